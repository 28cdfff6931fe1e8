"""`emunet shell`: Scapy's prompt on a running lab. A program of its own, started in place of this one.

Rule of this file: nothing of Scapy is loaded here; its licence and its second of start-up stay in the shell.
"""

from __future__ import annotations

import os

import click

from emunet.cli.options import lab_option, the_lab
from emunet.daemon.start import python_environment, python_program


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-c", "code", metavar="CODE", help="Run CODE, and end.")
@lab_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[FILE.py] [ARGS...]")
def shell(code: str | None, lab: str | None, arguments: tuple[str, ...]) -> None:
    """A Scapy prompt in which every port of the lab is an interface, and `lab` is the lab.

    \b
    emunet shell
    emunet shell -c 'print(sr1(IP(dst="web-3")/ICMP(), iface="web-1", timeout=2).summary())'
    emunet shell probe.py web-1
    """  # noqa: D301 - click knows the character by this escape
    command = ["--lab", the_lab(lab).name, *(["-c", code] if code is not None else []), *arguments]
    program = python_program("emunet.shell", *command)
    os.execvpe(program[0], program, python_environment())
