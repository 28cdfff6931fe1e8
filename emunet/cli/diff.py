"""`emunet diff`: what changed on the way between two captures of the same traffic.

Rule of this file: it reads files and shows; which packets are the same is `packet.matching`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from emunet.cli.options import output_option, print_json
from emunet.packet.malformed import Malformed
from emunet.packet.matching import Comparison, Way, compare
from emunet.packet.pcap import CapturedFrame
from emunet.packet.pcapng import read_capture
from emunet.packet.summary import frame_line

_SHARES = (("median", 0.5), ("90 %", 0.9), ("99 %", 0.99))
_SHOWN = 5
_LOST_SHOWN = 10


@click.command()
@click.argument("a", type=click.Path(exists=True, dir_okay=False), metavar="A.pcapng")
@click.argument("b", type=click.Path(exists=True, dir_okay=False), metavar="[B.pcapng]", required=False)
@click.option("--from", "source", metavar="PORT", help="The interface of A that is meant, where it has several.")
@click.option("--to", "target", metavar="PORT", help="The interface of B.")
@output_option
def diff(a: str, b: str | None, source: str | None, target: str | None, output: str) -> None:
    """Say what changed between two captures of the same traffic: headers, order, loss, delay.

    Packets are known again behind tunnels and NAT. Any two captures will do; in one file with several ports, name two.

    \b
    emunet diff client.pcapng server.pcapng
    emunet diff x.pcapng --from web-1 --to web-3
    """  # noqa: D301 - click knows the character by this escape
    if b is None and (source is None or target is None):
        raise click.UsageError("name a second file, or two ports of this one: --from PORT --to PORT")
    every = read(a)
    first = of_port(every, a, source, "--from")
    second = of_port(every if b is None else read(b), b or a, target, "--to")
    result = compare(first, second, every if b is None else ())
    ends = (_end(first, source, a), _end(second, target, b or a))
    if output == "json":
        print_json(as_fields(result, ends))
    else:
        click.echo("\n".join(as_lines(result, ends)))


def read(file: str) -> list[CapturedFrame]:
    """The frames of a file. ClickException where it cannot be read."""
    try:
        return list(read_capture(file))
    except Malformed as error:
        raise click.ClickException(f"{file}: {error}") from None
    except OSError as error:
        raise click.ClickException(f"cannot read {file}: {error.strerror or error}") from None


def of_port(frames: list[CapturedFrame], file: str, interface: str | None, option: str) -> list[CapturedFrame]:
    """The frames of one interface of a file. UsageError where it is not clear which."""
    there = list(dict.fromkeys(frame.interface for frame in frames))
    if interface is None and len(there) > 1:
        raise click.UsageError(f"{file} has several ports: say {option} PORT, one of {', '.join(there)}")
    if interface is not None and interface not in there:
        raise click.UsageError(f"{file} has no frame of {interface}; it has those of {', '.join(there) or 'nothing'}")
    return [frame for frame in frames if interface in (None, frame.interface)]


def _end(frames: list[CapturedFrame], interface: str | None, file: str) -> str:
    return interface or (frames[0].interface if frames else "") or file


def as_fields(result: Comparison, ends: tuple[str, str]) -> dict[str, Any]:
    """What `-o json` prints."""
    ways = ((result.forth, ends), (result.back, ends[::-1]))
    return {
        "matched": result.forth.packets + result.back.packets,
        "by_identity": result.by_identity,
        "ways": [_way_fields(way, *names) for way, names in ways if way.packets],
        "only_in_a": [_lost_fields(frame) for frame in result.only_a],
        "only_in_b": [_lost_fields(frame) for frame in result.only_b],
    }


def _way_fields(way: Way, source: str, target: str) -> dict[str, Any]:
    delays = {"least": min(way.delays), "most": max(way.delays)}
    delays |= {name.removesuffix(" %"): way.percentile(share) for name, share in _SHARES}
    return {
        "from": source,
        "to": target,
        "packets": way.packets,
        "reordered": way.reordered,
        "fragmented": way.fragments,
        "delay_ms": {name: value / 1e6 for name, value in delays.items()},
        "changes": {what: dict(rows.most_common()) for what, rows in way.changes.items()},
    }


def _lost_fields(frame: CapturedFrame) -> dict[str, Any]:
    return {"time_ns": frame.time_ns, "summary": frame_line(frame.data), "comments": frame.comments}


def as_lines(result: Comparison, ends: tuple[str, str]) -> Iterable[str]:
    """What a person reads."""
    if not result.forth.packets and not result.back.packets:
        yield f"no packet of {ends[0]} is in {ends[1]}"
    for way, (source, target) in ((result.forth, ends), (result.back, ends[::-1])):
        if way.packets:
            yield from _way_lines(way, source, target)
    for name, other, frames in ((*ends, result.only_a), (*ends[::-1], result.only_b)):
        if frames:
            yield f"{_count(len(frames))} of {name} not seen at {other}"
            for frame in frames[:_LOST_SHOWN]:
                yield f"  {frame_line(frame.data)}"
                yield from (f"    {comment}" for comment in frame.comments)
            if len(frames) > _LOST_SHOWN:
                yield f"  and {len(frames) - _LOST_SHOWN:,} more"


def _way_lines(way: Way, source: str, target: str) -> Iterable[str]:
    yield f"{source} to {target}: {_count(way.packets)}"
    shares = ", ".join(f"{name} {way.percentile(share) / 1e6:.3f}" for name, share in _SHARES)
    yield f"  delay in ms: least {min(way.delays) / 1e6:.3f}, {shares}, most {max(way.delays) / 1e6:.3f}"
    yield f"  order: {f'{_count(way.reordered)} came behind later ones' if way.reordered else 'kept'}"
    if way.fragments:
        yield f"  fragmented on the way: {_count(way.fragments)}"
    for what, rows in way.changes.items():
        for how, number in rows.most_common(_SHOWN):
            yield f"  {what}: {how} ({'all' if number == way.packets else _count(number)})"
        if len(rows) > _SHOWN:
            rest = sum(rows.values()) - sum(number for _, number in rows.most_common(_SHOWN))
            yield f"  {what}: otherwise ({_count(rest)})"
    if not way.changes:
        yield "  nothing was changed"


def _count(number: int) -> str:
    return "1 packet" if number == 1 else f"{number:,} packets"
