"""`emunet trace`: follow one frame hop by hop, and say why.

The Scapy expression is evaluated by a program of its own (`python -m emunet.shell.expression`),
so that nothing else loads Scapy.

Rule of this file: a dry run changes nothing; only --live sends.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import click

from emunet.cli.options import lab_option, output_option, print_json, the_lab
from emunet.cli.sighting import Sighting, find_sightings
from emunet.daemon.client import LabClient, LabError


@click.command()
@click.argument("pod", required=False)
@click.argument("expression", metavar="'SCAPY EXPRESSION'", required=False)
@click.option("--from", "file", metavar="FILE", help="Explain a packet of this capture instead, where it was seen.")
@click.option("--packet", type=click.IntRange(min=1), metavar="N", help="Which one, as Wireshark numbers them.")
@click.option("--live", is_flag=True, help="Really send it, and follow it for up to four seconds.")
@lab_option
@output_option
def trace(
    pod: str | None, expression: str | None, file: str | None, packet: int | None, live: bool, lab: str | None,
    output: str,
) -> None:  # fmt: skip
    """Follow one frame from a pod (or a host) hop by hop, and say why it went where it went.

    Names of pods and hosts serve as addresses. Without Ether(...) it is sent as the pod's own stack would send it.

    \b
    emunet trace web-1 'IP(dst="web-3")/ICMP()'
    emunet trace web-1 'IP(dst="10.9.9.9")/UDP(dport=53)' --live
    emunet trace web-1 'Ether(dst="ff:ff:ff:ff:ff:ff")/ARP(pdst="web-2")'
    emunet trace --from x.pcapng --packet 17         the lab as it is now, with a packet of then
    """  # noqa: D301 - click knows the character by this escape
    recorded: tuple[str, ...] = ()
    if file is not None:
        if pod is not None or packet is None or live:
            raise click.UsageError(
                "--from FILE takes --packet N, and neither a pod nor --live: it says where it was seen"
            )
        sighting, answer = explain(the_lab(lab), find_sightings(file, packet))
        recorded = sighting.frame.comments
        if output != "json":
            click.echo(sighting.told(packet))
    elif pod is None or expression is None:
        raise click.UsageError("say who sends what, as in: emunet trace web-1 'IP(dst=\"web-3\")/ICMP()'")
    else:
        client = the_lab(lab)
        data, is_frame = evaluate(client, pod, expression)
        answer = client.post("trace", port=pod, data=data, is_frame=is_frame, live=live)
    if output == "json":
        shown = {key: value for key, value in answer.items() if key != "text"}
        print_json(shown | {"recorded": recorded} if file is not None else shown)
        return
    from emunet.cli.render import console
    from emunet.cli.render import trace as show

    show(console(), answer)


def explain(client: LabClient, sightings: list[Sighting]) -> tuple[Sighting, dict[str, Any]]:
    """What the lab says of the first sighting that it can begin at, and that one. LabError of the first otherwise."""
    refusal: LabError | None = None
    for one in sightings:
        try:
            return one, client.post("onward", port=one.port, data=one.frame.data.hex(), inbound=one.inbound)
        except LabError as error:
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def evaluate(client: LabClient, pod: str, expression: str) -> tuple[str, bool]:
    """The bytes (hex) that an expression means when `pod` sends it, and whether they begin with an Ethernet header."""
    from emunet.daemon.start import python_environment, python_program

    names: dict[str, Any] = client.get("names")
    if pod.removeprefix("default/") not in names:
        raise LabError(f"there is no pod or host {pod}; there are: {', '.join(names)}")
    command = python_program(
        "emunet.shell.expression", "--lab", client.name, "--from", pod, "--names", "--", expression
    )
    done = subprocess.run(
        command, input=json.dumps(names), capture_output=True, text=True, env=python_environment(), check=False
    )
    if done.returncode == 0:
        value = json.loads(done.stdout)
        return str(value["hex"]), bool(value["has_ethernet"])
    lines = done.stderr.strip().splitlines() or [f"the program that reads it ended with code {done.returncode}"]
    print("\n".join(lines[:-1]), end="\n" if lines[1:] else "", file=sys.stderr)
    raise LabError(lines[-1])
