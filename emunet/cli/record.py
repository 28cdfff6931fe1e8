"""`emunet record`: write all that comes into a lab to a file that `emunet replay` plays again.

Rule of this file: the lab writes; this command only says from when to when.
"""

from __future__ import annotations

import os
import select
import time

import click

from emunet.cli.interrupt import until_interrupted
from emunet.cli.options import lab_option, output_option, print_json, the_lab
from emunet.cli.progress import bar


@click.command()
@click.option("-w", "file", required=True, type=click.Path(dir_okay=False), metavar="FILE", help="Where to.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), metavar="S", help="End after so many seconds.")
@lab_option
@output_option
def record(file: str, seconds: float | None, lab: str | None, output: str) -> None:
    """Write frames, commands and seed to a file, until Ctrl-C; `emunet replay FILE` plays the run again, in memory.

    What the lab had learned before is not in it: `emunet up --record FILE` begins with the first frame.

    \b
    emunet record -w run.pcapng --seconds 10
    emunet replay run.pcapng
    """  # noqa: D301 - click knows the character by this escape
    client = the_lab(lab)
    client.post("record", file=os.path.abspath(file))
    began = time.monotonic()
    with bar("recording; Ctrl-C ends it", seconds) as shown, until_interrupted() as interrupted:
        while (left := _left(began, seconds)) > 0 and not select.select([interrupted], [], [], min(left, 0.2))[0]:
            shown.to(time.monotonic() - began)
    done = client.ask("DELETE", ("record",))
    if output == "json":
        print_json({"file": file, "inputs": done["inputs"]})
        return
    click.echo(f"{done['inputs']:,} inputs recorded: `emunet replay {file}` plays them again")


def _left(began: float, seconds: float | None) -> float:
    """Seconds that are left; for ever where nobody said how long."""
    return float("inf") if seconds is None else seconds - (time.monotonic() - began)
