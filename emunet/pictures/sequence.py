"""Who sent what to whom, out of a capture: frames as messages between machines and pods.

A frame goes from the owner of one MAC address to the owner of another: so a switch is
not seen, a bridge is not seen, and each router is. One frame that was captured at several
ports of one link is one message; a packet that was routed is a message for each link.

Names are the capture's own: of its interfaces (with their MACs) and of addresses; what ARP,
neighbour discovery and tunnels tell of MACs is learned from the frames themselves.

Rule of this file: frames in, values out; a frame that says nothing known is a message too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from emunet.packet.address import format_ip, format_mac, parse_ip
from emunet.packet.pcap import INBOUND, CapturedFrame
from emunet.packet.pcapng import Facts
from emunet.packet.summary import Summary, summarize

EVERYBODY = "everybody"
TOGETHER_NS = 2_000_000_000
"""One and the same frame at two ports is one message if it passed both within this time."""

_DROPPED = re.compile(
    r"(?:(?P<after>[\d.]+ s) after it passed here: )?dropped at (?P<device>[^,]+), [^:]+: (?P<why>.*)", re.S
)
_FLAG_WORDS = {"S": "SYN", "F": "FIN", "R": "RST", "P": "PSH", "U": "URG", "E": "ECE", "W": "CWR", ".": "ACK"}


@dataclass(slots=True)
class Message:
    """One arrow. `kind` is that of the summary, or `drop` for a loss that has no arrow of its own.

    title    what is said; detail: between which addresses, and the TTL
    dropped  the sentence of the drop at the end of the arrow, or ""
    times    how many frames the arrow stands for, of `size` bytes of data together
    """

    at: int
    source: str
    target: str
    kind: str
    title: str
    detail: str = ""
    dropped: str = ""
    times: int = 1
    size: int = 0
    to_all: bool = False
    seen: set[tuple[str, int]] = field(default_factory=set)

    @property
    def words(self) -> str:
        """The title, and how often."""
        if self.kind == "tcp" and self.title == "data":
            told = f"data, {self.size:,} bytes"
            return told if self.times == 1 else f"{told} in {self.times:,} segments"
        return self.title if self.times == 1 else f"{self.title}, {self.times:,} times"


@dataclass(frozen=True, slots=True)
class Course:
    """All messages, and who takes part, from left to right. `left_out` messages came after those."""

    title: str
    about: str
    who: tuple[str, ...]
    messages: tuple[Message, ...]
    left_out: int = 0

    @property
    def more(self) -> str:
        """What is said of the messages that were left out; nothing where none were."""
        if not self.left_out:
            return ""
        return f"and {self.left_out:,} more message{'' if self.left_out == 1 else 's'}: -c shows as many as it says"


def sequence(
    title: str,
    frames: Iterable[CapturedFrame],
    facts: Facts,
    *,
    limit: int = 60,
    wanted: Callable[[bytes], bool] = lambda frame: True,
) -> Course:
    """The messages of a capture. Of more than `limit` the first are shown, and the others counted."""
    rows = [frame for frame in frames if len(frame.data) >= 14]
    names = _Names(facts, rows)
    messages: list[Message] = []
    latest: dict[bytes, Message] = {}
    count = 0
    for frame in rows:
        if not wanted(frame.data):
            continue
        count += 1
        place = (frame.interface, frame.direction)
        before = latest.get(frame.data)
        drops = [found for comment in frame.comments if (found := _DROPPED.match(comment)) is not None]
        if drops and drops[0]["after"]:
            what = _told(summarize(frame.data), names)[0]
            messages.append(_loss(frame.time_ns, drops[0], what))
            continue
        if before is not None and place not in before.seen and frame.time_ns - before.at <= TOGETHER_NS:
            before.seen.add(place)
        else:
            before = latest[frame.data] = _message(frame, names)
            before.seen.add(place)
            messages.append(before)
        for found in drops:
            if found["device"] in (before.target, "the wire"):
                before.dropped = found["why"]
            else:
                messages.append(_loss(frame.time_ns, found, before.title))
    messages = _merged(messages)
    shown = messages[:limit]
    who = list(dict.fromkeys(name for one in shown for name in (one.source, one.target)))
    about = f"{count:,} frames at {', '.join(dict.fromkeys(frame.interface or 'one port' for frame in rows))}"
    return Course(title, about, tuple(who), tuple(shown), len(messages) - len(shown))


def _loss(at: int, found: re.Match[str], what: str) -> Message:
    after = f" after {found['after']}" if found["after"] else ""
    return Message(at, found["device"], found["device"], "drop", f"{what}: dropped{after}", dropped=found["why"])


def _message(frame: CapturedFrame, names: _Names) -> Message:
    summary = summarize(frame.data)
    target = frame.data[:6]
    source = names.at(frame.interface, frame.data[6:12]) or names.owner(frame.data[6:12])
    to_all = bool(target[0] & 1)
    if not to_all:
        there = names.at(frame.interface, target) or names.owner(target)
    elif _is_question(summary) and _machine(names.of(summary.asks)) not in ("", source):
        there = _machine(names.of(summary.asks))
    else:
        port = names.station(frame.interface)
        there = port if frame.direction == INBOUND and port and port != source else EVERYBODY
    title, detail = _told(summary, names)
    return Message(frame.time_ns, source, there, summary.kind, title, detail, to_all=to_all, size=summary.size)


def _is_question(summary: Summary) -> bool:
    """Whether it asks for an address, and does not tell of one."""
    return bool(summary.asks) and "who has" in summary.what


def _merged(messages: Sequence[Message]) -> list[Message]:
    """Segments in a row that carry data the same way are one arrow; so are frames that say exactly the same."""
    rows: list[Message] = []
    for one in messages:
        last = rows[-1] if rows else None
        if (
            last is not None
            and (last.source, last.target, last.kind, last.title, last.detail)
            == (one.source, one.target, one.kind, one.title, one.detail)
            and not (last.dropped or one.dropped)
            and one.kind in ("tcp", "udp", "fragment")
        ):
            last.times += 1
            last.size += one.size
        else:
            rows.append(replace(one, seen=set(one.seen)))
    return rows


def moment(nanoseconds: int) -> str:
    """A time since the first message."""
    if nanoseconds < 1_000_000_000:
        return f"{nanoseconds / 1e6:.3f} ms"
    return f"{nanoseconds / 1e9:.4f} s"


# What is said


def _told(summary: Summary, names: _Names) -> tuple[str, str]:
    """The title and the detail of an arrow."""
    if summary.within is not None:
        title, detail = _told(summary.within, names)
        outer = f"{summary.what}: {summary.source} → {summary.target}"
        return title, f"{detail} in {outer}" if detail else f"in {outer}"
    if summary.kind == "arp":
        return summary.what.replace("ARP, ", "ARP: ").partition(" tell")[0], ""
    if not summary.source or (summary.kind == "other" and summary.hops is None):
        return summary.what, ""
    ends = [names.shown(summary.source), names.shown(summary.target)]
    if summary.ports != (0, 0):
        ends = [f"{end}:{port}" for end, port in zip(ends, summary.ports, strict=True)]
    return _title(summary), f"{ends[0]} → {ends[1]}, TTL {summary.hops}"


def _title(summary: Summary) -> str:
    if summary.message:
        return summary.message
    if summary.kind == "tcp":
        flags = summary.what.partition("[")[2].partition("]")[0]
        if summary.size and not set(flags) & set("SFR"):
            return "data"
        words = " ".join(_FLAG_WORDS.get(flag, flag) for flag in flags if flag != "P")
        return f"{words}, {summary.size:,} bytes" if summary.size else words
    if summary.kind == "udp":
        return f"UDP, {summary.size:,} bytes"
    what = re.sub(r", length \d+$", "", summary.what)
    what = re.sub(r", id \d+, seq ", " ", what)  # an echo's identifier says nothing to a reader
    return what.removeprefix("ICMP6 ").removeprefix("ICMP ")


# Who it is


class _Names:
    """Who has which MAC and address."""

    def __init__(self, facts: Facts, frames: Sequence[CapturedFrame]) -> None:
        self._addresses = facts.names
        self._macs = facts.macs
        self._owners = {mac: _machine(name) for name, mac in facts.macs.items()}
        self._sources: dict[bytes, set[str]] = {}
        tunnels: list[tuple[bytes, str]] = []
        for frame in frames:
            self._learn(frame, tunnels)
        for mac, address in tunnels:
            self._owners.setdefault(mac, _machine(self.of(address)) or address)

    def _learn(self, frame: CapturedFrame, tunnels: list[tuple[bytes, str]]) -> None:
        data = frame.data
        summary = summarize(data)
        if summary.kind == "arp" and len(data) >= 42:
            sender = data[28:32]
            if any(sender):
                self._claim(data[22:28], format_ip(sender))
        elif summary.what.startswith("ICMP6 neighbour"):
            self._claim(data[6:12], summary.source)
        elif summary.within is not None:
            inner = data[-summary.size + 8 :]
            tunnels += [(inner[6:12], summary.source), (inner[:6], summary.target)]
        elif summary.hops is not None:
            self._sources.setdefault(data[6:12], set()).add(summary.source)

    def _claim(self, mac: bytes, address: str) -> None:
        self._owners.setdefault(mac, _machine(self.of(address)) or address)

    def owner(self, mac: bytes) -> str:
        """The machine or pod with that MAC; else the only address that it speaks with; else the MAC itself."""
        known = self._owners.get(mac)
        if known is not None:
            return known
        addresses = self._sources.get(mac, set())
        if len(addresses) == 1:
            (address,) = addresses
            return _machine(self.of(address)) or address
        return format_mac(mac)

    def at(self, port: str, mac: bytes) -> str:
        """The machine or pod whose port this is, if the MAC is its own; two may have one, on networks apart."""
        return _machine(port) if self._macs.get(port) == mac else ""

    def station(self, port: str) -> str:
        """The machine or pod whose port this is; "" of a switch, which is nobody's partner."""
        return _machine(port) if port in self._macs else ""

    def of(self, address: str) -> str:
        """The name of an address, or ""."""
        try:
            return self._addresses.get(parse_ip(address), "")
        except ValueError:
            return ""

    def shown(self, address: str) -> str:
        """A pod by its name, all else by its address: of a host it matters which one it is."""
        name = self.of(address)
        return name if name and ":" not in name else address


def _machine(name: str) -> str:
    """`host1` for host1:eth0; a pod is itself."""
    return name.partition(":")[0]
