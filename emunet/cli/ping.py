"""`emunet ping`: echo requests between two places, or between all pods as a matrix.

Rule of this file: it ends with code 1 when anything did not answer, and says why.
"""

from __future__ import annotations

from typing import Any

import click

from emunet.cli.options import lab_option, output_option, print_json, the_lab
from emunet.cli.progress import bar


@click.command()
@click.argument("source", required=False, metavar="[FROM")
@click.argument("target", required=False, metavar="TO]")
@click.option("-c", "count", type=click.IntRange(1, 1000), metavar="N", help="Requests to each: 1, or 3 for one pair.")
@click.option("-W", "timeout", type=click.FloatRange(0.01, 60), default=1.0, metavar="S", help="Seconds to wait.")
@click.option("-i", "interval", type=click.FloatRange(0, 60), default=0.2, metavar="S", help="Seconds between two.")
@click.option("-s", "size", type=click.IntRange(0, 65507), default=56, metavar="N", help="Bytes of data in a request.")
@lab_option
@output_option
def ping(
    source: str | None, target: str | None, count: int | None, timeout: float, interval: float, size: int,
    lab: str | None, output: str,
) -> None:  # fmt: skip
    """Echo between two pods, hosts or addresses; without names, between all pairs of pods.

    \b
    emunet ping
    emunet ping web-1 web-3
    emunet ping host1 10.244.2.2
    """  # noqa: D301 - click knows the character by this escape
    if source is not None and target is None:
        raise click.UsageError(f"ping {source} what? Give FROM and TO, or neither for all pairs")
    body: dict[str, Any] = {"timeout": timeout, "interval": interval, "size": size}
    body["count"] = count if count is not None else 1 if source is None else 3
    if source is not None:
        body |= {"from": source, "to": target}
    with bar("pinging all pairs" if source is None else f"pinging {target}"):
        answer = the_lab(lab).post("ping", **body)
    if output == "json":
        print_json(answer)
    else:
        from emunet.cli.render import console

        _show(console(), answer, matrix=source is None)
    if answer["unanswered"]:
        click.get_current_context().exit(1)


def _show(out: Any, answer: dict[str, Any], *, matrix: bool) -> None:
    from emunet.cli.render import milliseconds, ping_matrix, ping_summary

    if matrix:
        if answer["pairs"]:
            ping_matrix(out, answer)
        else:
            out.print("there are not two pods to ping each other")
        return
    row = answer["pairs"][0]
    for number, time in enumerate(row["rtt_ms"], 1):
        told = f"{milliseconds(time)} ms" if time is not None else "no answer"
        out.print(f"{row['from']} → {row['to']} ({row['address']}) {number}: {told}")
    ping_summary(out, answer)
