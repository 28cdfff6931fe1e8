"""`emunet draw`: the network as a picture, or who sent what to whom in a capture.

Rule of this file: it asks the lab, and hands values to `pictures`; what a picture looks like is theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from emunet.cli.options import lab_option, the_lab

_TERMINAL_MAX = 200

_SERVICES = "api/v1/services"
_SLICES = "apis/discovery.k8s.io/v1/endpointslices"


@click.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False), metavar="[FILE]...")
@click.option("--sequence", "captured", type=click.Path(exists=True, dir_okay=False), metavar="FILE.pcapng",
              help="Who sent what to whom in this capture, instead of the network.")  # fmt: skip
@click.option("-w", "picture", type=click.Path(dir_okay=False), metavar="FILE.svg|FILE.png", help="Write a picture.")
@click.option("-c", "count", type=click.IntRange(min=1), default=60, metavar="N", help="Messages at most: 60.")
@click.option("--match", "wanted", metavar="FILTER", help="Only such frames: 'icmp or vxlan', 'tcp port 80'.")
@click.option("--title", metavar="TEXT", help="What to call it.")
@lab_option
def draw(
    files: tuple[str, ...], captured: str | None, picture: str | None, count: int, wanted: str | None,
    title: str | None, lab: str | None,
) -> None:  # fmt: skip
    """Draw the running lab as it is now, the topology of FILEs, or the messages of a capture.

    Without -w the picture is in the terminal. The same lab, or file, gives the same picture.

    \b
    emunet draw
    emunet draw topologies/leaf-spine.yaml -w leaf-spine.svg
    emunet draw --sequence ping.pcapng
    emunet draw --sequence ping.pcapng --match 'not arp' -w ping.png
    """  # noqa: D301 - click knows the character by this escape
    if captured is not None and (files or lab):
        raise click.UsageError("--sequence draws a capture by itself: leave the topology and --lab out")
    if captured is None and wanted is not None:
        raise click.UsageError("--match chooses frames of a capture: name one with --sequence")
    if picture is not None:
        check_picture("-w", picture)
    if captured is not None:
        _sequence(captured, picture, count, wanted, title)
        return
    from emunet.pictures.network_svg import network_svg
    from emunet.pictures.network_text import network_lines

    network = _of_files(files, title) if files else _of_lab(lab, title)
    if picture is not None:
        write_picture(picture, network_svg(network))
        click.echo(f"drawn: {picture}")
    else:
        _print(lambda width: network_lines(network, width))


def _sequence(captured: str, picture: str | None, count: int, wanted: str | None, title: str | None) -> None:
    from emunet.packet.filter import compile_filter
    from emunet.packet.malformed import Malformed
    from emunet.packet.pcapng import read_capture, read_facts
    from emunet.pictures.sequence import sequence
    from emunet.pictures.sequence_svg import sequence_svg
    from emunet.pictures.sequence_text import sequence_lines

    try:
        chosen = compile_filter(wanted) if wanted is not None else lambda frame: True
        course = sequence(
            title or Path(captured).stem, read_capture(captured), read_facts(captured), limit=count, wanted=chosen
        )
    except Malformed as error:
        raise click.ClickException(f"{captured}: {error}") from None
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if not course.messages:
        raise click.ClickException(f"{captured} holds no frame{' that matches' if wanted else ''}: nothing to draw")
    if picture is not None:
        write_picture(picture, sequence_svg(course))
        click.echo(f"drawn: {picture}")
    else:
        _print(lambda width: sequence_lines(course, width))


def _of_lab(name: str | None, title: str | None) -> Any:
    """The network of a running lab, with what is wrong there now."""
    from emunet.daemon.frame_channel import FrameChannel, FrameChannelError
    from emunet.daemon.kube import client as kube_client
    from emunet.pictures.network import network
    from emunet.pictures.services import services

    client = the_lab(name)
    status, trouble = client.get("status"), client.get("trouble")
    try:
        ports = FrameChannel.list_ports(client.folder.frames)
    except FrameChannelError as error:
        raise click.ClickException(str(error)) from None
    pods = {_port(pod): pod for pod in status["pods"]}
    off = [device for device, on in trouble["powered"].items() if not on]
    ails = {name: "not ready" for name, pod in pods.items() if not pod["ready"] and pod["host"] not in off}
    ails |= dict.fromkeys(trouble["frozen"], "frozen")
    in_hosts = [(pod["host"], name) for name, pod in pods.items() if pod["mac"] is None]
    containers = client.get("containers")
    in_hosts += [(one["host"], one["name"]) for one in containers if one["mode"] == "host"]
    alone = [(one["host"], one["name"]) for one in containers if one["mode"] == "none"]
    guests: dict[str, list[str]] = {}
    for one in containers:
        if one["mode"].startswith("container:"):
            guests.setdefault(f"{one['host']}/{one['mode'].partition(':')[2]}", []).append(one["name"])
    kept = [kube_client.ask(client, "GET", path)[1]["items"] for path in (_SERVICES, _SLICES)]
    about = _about(len(status["hosts"]), len(pods), len(containers), f"{status['wires']} wires")
    if trouble["groups"]:
        about += "; parted: " + " | ".join(", ".join(group) for group in trouble["groups"])
    return network(
        title or client.name, about, [asdict(port) for port in ports], client.get("wires"), off=off, troubled=ails,
        in_hosts=in_hosts, alone=alone, guests=guests, services=services(*kept),
    )  # fmt: skip


def _of_files(files: Sequence[str], title: str | None) -> Any:
    """The network that files describe, as it would begin."""
    import sys

    from emunet.cluster.load import BadInput
    from emunet.daemon.port_facts import ports_of
    from emunet.lab.lab import Lab
    from emunet.pictures.network import network
    from emunet.pictures.services import services

    try:
        lab = Lab(files)
    except BadInput as error:
        print(error, file=sys.stderr)
        click.get_current_context().exit(1)
    with lab:
        desired = lab.desired
        ports = [asdict(port) for port in ports_of(lab.plane.world.config)]
        in_hosts = [(pod.host, pod.port) for pod in desired.pods if pod.host_network]
        about = _about(
            len(desired.cluster.hosts), len(desired.pods), 0, f"overlay {desired.cluster.overlay.kind.value}"
        )
        shown = services(lab.objects("services"), lab.objects("endpointslices"))
        return network(
            title or desired.cluster.name, about, ports, lab.plane.trouble.wires(), in_hosts=in_hosts, services=shown
        )


def _about(hosts: int, pods: int, containers: int, more: str) -> str:
    from emunet.cli.render import count

    told = [count(hosts, "host")]
    told += [count(pods, "pod")] if pods or not containers else []
    told += [count(containers, "container")] if containers else []
    return ", ".join((*told, more))


def _port(pod: dict[str, Any]) -> str:
    return str(pod["name"]) if pod["namespace"] == "default" else f"{pod['namespace']}/{pod['name']}"


def check_picture(option: str, picture: str) -> None:
    """Say at once where a name does not say which kind of picture it is to be. UsageError."""
    if Path(picture).suffix not in (".svg", ".png"):
        raise click.UsageError(f"{option} {picture}: the name says which kind of picture, so it ends in .svg or .png")


def write_picture(picture: str, svg: str) -> None:
    """Write an SVG, as PNG where the name ends so. ClickException where that cannot be."""
    from emunet.pictures.raster import NoRaster, png

    try:
        data = png(svg) if picture.endswith(".png") else svg.encode()
        Path(picture).write_bytes(data)
    except NoRaster as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"cannot write {picture}: {error.strerror or error}") from None


def _print(lines: Any) -> None:
    from rich.text import Text

    from emunet.cli.render import console

    out = console()
    for line in lines(min(out.width, _TERMINAL_MAX) if out.is_terminal else _TERMINAL_MAX):
        text = Text.assemble(*line)
        text.rstrip()
        out.print(text, soft_wrap=True)
