"""`emunet explain`: whether one reaches another, and how, in a few sentences.

Rule of this file: the lab says it; here it is only printed.
"""

from __future__ import annotations

import click

from emunet.cli.options import lab_option, output_option, print_json, the_lab


@click.command()
@click.argument("pod")
@click.argument("target")
@lab_option
@output_option
def explain(pod: str, target: str, lab: str | None, output: str) -> None:
    """Whether a pod (or a host) reaches a target, and how, in a few sentences. Nothing is really sent.

    A target is a pod, a host, a Service or an address, with a port and a protocol where that matters. The first packet
    of a connection is followed, and the answer to it, by the same walk that `emunet trace` shows step by step.

    \b
    emunet explain web-1 db-1:5432
    emunet explain web-1 web:http
    emunet explain blue/web-1 kube-dns.kube-system:53/udp
    emunet explain host1 10.244.2.3
    """  # noqa: D301 - click knows the character by this escape
    found = the_lab(lab).post("explain", **{"from": pod, "to": target})
    if output == "json":
        print_json([{key: value for key, value in one.items() if key != "text"} for one in found])
        return
    for number, one in enumerate(found):
        if number:
            click.echo()
        first, *rest = one["text"].split("\n")
        click.secho(first, fg="green" if one["reaches"] else "red", bold=True)
        for line in rest:
            click.echo(line)
