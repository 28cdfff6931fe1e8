"""`emunet down`: end a lab, by force if need be, and wait until all of it is gone.

Rule of this file: what is left over of a lab that was killed goes too.
"""

from __future__ import annotations

import time

import click

from emunet.cli.options import lab_option
from emunet.cli.progress import bar
from emunet.daemon.client import LabError, end_lab, find_lab
from emunet.daemon.folder import FolderError, folders


@click.command()
@click.option("--all", "every", is_flag=True, help="All labs of this user, and what is left of those that were killed.")
@lab_option
def down(every: bool, lab: str | None) -> None:
    """End a lab and remove all it made; returns when it is gone."""
    if every and lab is not None:
        raise click.UsageError("--all and --lab exclude each other")
    try:
        wanted = list(folders()) if every else [find_lab(lab).folder]
    except FolderError as error:
        raise LabError(str(error)) from None
    if not wanted:
        click.echo("no lab is running")
    for folder in wanted:
        began = time.monotonic()
        running = folder.is_held()
        try:
            with bar(f"ending {folder.name}"):
                ended = end_lab(folder)
        except FolderError as error:
            raise LabError(str(error)) from None
        if not ended:
            raise LabError(f"there is no lab {folder.name}: `emunet labs` lists those there are")
        seconds = time.monotonic() - began
        if running:
            click.echo(f"{folder.name} is down after {seconds:.1f} s")
        else:
            click.echo(f"{folder.name} was not running; what was left of it is gone")
