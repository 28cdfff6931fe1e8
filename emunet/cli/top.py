"""`emunet top`: counters of every device, live.

Rule of this file: rates are differences of two answers; nothing is asked of the lab but its counters.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from emunet.cli.options import lab_option, the_lab
from emunet.plane.ledger import FIELDS

_REASONS_SHOWN = 10


@click.command()
@click.option("-d", "delay", type=click.FloatRange(0.1, 60), default=1.0, metavar="S", help="Seconds between looks.")
@click.option("-n", "looks", type=click.IntRange(min=1), metavar="N", help="Look N times, then end.")
@lab_option
def top(delay: float, looks: int | None, lab: str | None) -> None:
    """Show the counters of every device, live; Ctrl-C ends it."""
    from rich.live import Live

    from emunet.cli.render import console

    client = the_lab(lab)
    before, then = client.get("counters"), time.monotonic()
    out = console()
    left = looks if looks is not None else -1 if sys.stdout.isatty() else 1
    with Live(_picture(client.name, before, before, 1.0), console=out, auto_refresh=False, screen=False) as live:
        while left:
            left -= 1
            try:
                time.sleep(delay)
            except KeyboardInterrupt:
                return
            now, at = client.get("counters"), time.monotonic()
            live.update(_picture(client.name, before, now, at - then), refresh=True)
            before, then = now, at


def _picture(name: str, before: dict[str, Any], now: dict[str, Any], seconds: float) -> Any:
    from rich.console import Group
    from rich.text import Text

    from emunet.cli.render import table

    world, last = now["world"], before["world"]
    rate = (world["received"] - last["received"]) / seconds
    late = f"{now['late_ns'] / 1e6:.1f} ms late at worst"
    head = Text.assemble((name, "bold"), f"  {rate:,.0f} frames/s in, {world['queued']:,} queued, {late}")
    if now["wire_overruns"]:
        head.append(f", {now['wire_overruns']:,} lost in full TAP queues", "yellow")
    rows = table("device", *FIELDS, "frames/s", right=(*FIELDS, "frames/s"))
    for device, ledger in [("all together", world), *now["devices"].items()]:
        old = last if device == "all together" else before["devices"].get(device, ledger)
        speed = (ledger["received"] - old["received"]) / seconds
        styles = {"dropped": "red"} if ledger["dropped"] else {}
        figures = [Text(f"{ledger[field]:,}", styles.get(field, "")) for field in FIELDS]
        rows.add_row(Text(device, "bold" if device == "all together" else ""), *figures, f"{speed:,.0f}")
    parts: list[Any] = [head, "", rows]
    reasons = sorted(world["reasons"].items(), key=lambda item: -item[1])[:_REASONS_SHOWN]
    if reasons:
        drops = table("dropped because", "frames", "now/s", right=("frames", "now/s"))
        for code, number in reasons:
            drops.add_row(code, f"{number:,}", f"{(number - last['reasons'].get(code, 0)) / seconds:,.0f}")
        parts += ["", drops]
    return Group(*parts)
