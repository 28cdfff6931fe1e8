"""Options that many commands share, and the lab that they name.

Rule of this file: an option means the same wherever it stands.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from emunet.daemon.client import LabClient, find_lab

F = TypeVar("F", bound=Callable[..., Any])


def lab_option(function: F) -> F:
    """`--lab NAME`: the lab that is meant; without it the only one that is running."""
    return click.option(
        "--lab", metavar="NAME", envvar="EMUNET_LAB", help="The lab; not needed where only one is running."
    )(function)


def output_option(function: F) -> F:
    """`-o json`: for programs instead of people."""
    return click.option(
        "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="How the result is printed."
    )(function)


def the_lab(name: str | None) -> LabClient:
    """The lab of that name, or the only one that is running. LabError where there is none."""
    return find_lab(name)


def print_json(value: Any) -> None:
    """Print a value for programs, and for eyes where it goes to a terminal."""
    print(json.dumps(value, indent=2 if sys.stdout.isatty() else None))
