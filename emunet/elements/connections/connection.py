"""Connection: what is remembered of one, as a value; and what is found for one packet.

What is made for each packet is a NamedTuple: a frozen dataclass takes three times as long to make (1.7 µs for a
`Tracked`, 3 for a `Connection`), which was an eighth of a new connection's cost.

Rule of this file: values only. A connection changes by another value taking its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from emunet.elements.connections.flow import NAMES, QUERIES, Flow

SECOND = 1_000_000_000


class TcpState(Enum):
    """States of a TCP connection as a bystander sees it (nf_conntrack_tcp.h)."""

    NONE = "NONE"
    SYN_SENT = "SYN_SENT"
    SYN_RECV = "SYN_RECV"
    ESTABLISHED = "ESTABLISHED"
    FIN_WAIT = "FIN_WAIT"
    CLOSE_WAIT = "CLOSE_WAIT"
    LAST_ACK = "LAST_ACK"
    TIME_WAIT = "TIME_WAIT"
    CLOSE = "CLOSE"
    SYN_SENT2 = "SYN_SENT2"

    __hash__ = object.__hash__
    """Enum's own is written in Python: 0.3 µs, several times a packet."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a connection is remembered after its last packet, in ns. The kernel's defaults (fidelity CT-04).

    unacknowledged  an established TCP connection of which only one direction was seen
    """

    udp: int = 30 * SECOND
    udp_stream: int = 120 * SECOND
    icmp: int = 30 * SECOND
    other: int = 600 * SECOND
    syn_sent: int = 120 * SECOND
    syn_recv: int = 60 * SECOND
    established: int = 432_000 * SECOND
    unacknowledged: int = 300 * SECOND
    fin_wait: int = 120 * SECOND
    close_wait: int = 60 * SECOND
    last_ack: int = 30 * SECOND
    time_wait: int = 120 * SECOND
    close: int = 10 * SECOND

    def tcp(self, state: TcpState, *, assured: bool) -> int:
        """Of a TCP connection in a state."""
        if state is TcpState.ESTABLISHED and not assured:
            return min(self.established, self.unacknowledged)
        value: int = getattr(self, _TIMEOUTS[state])
        return value


_TIMEOUTS = {state: state.value.lower() for state in TcpState} | {TcpState.SYN_SENT2: "syn_sent"}
"""The field of `Timeouts` for each state: names are made once, since every packet asks."""


class Last(NamedTuple):
    """The last segment that counted: its kind, its direction, and the sequence number behind it.

    Of plain acknowledgements only the kind is kept, so that a steady connection does not change.
    """

    kind: str
    is_reply: bool = False
    end: int = 0


class Connection(NamedTuple):
    """Both directions of a connection, and how far it has come.

    original    the flow of its first packet, as it came in
    reply       the flow of what answers, as it comes in here: its destination is where the source was
                translated to, its source where the destination was translated to
    began       when the first packet came (ns)
    seen_reply  a packet of the other direction was seen
    assured     it is worth keeping when the table is full
    state       of TCP only
    last, closing, crossed, challenged   of TCP only: see `states`
    interface   the interface whose address the source took (masquerade), or ""
    """

    original: Flow
    reply: Flow
    began: int
    seen_reply: bool = False
    assured: bool = False
    state: TcpState | None = None
    last: Last | None = None
    closing: bool = False
    crossed: bool = False
    challenged: bool = False
    interface: str = ""

    def flow(self, *, is_reply: bool) -> Flow:
        """The flow of a direction, as its packets come in."""
        return self.reply if is_reply else self.original

    def target(self, *, is_reply: bool) -> Flow:
        """The flow of a direction as its packets go out, fully translated."""
        inverse = (self.original if is_reply else self.reply).inverted()
        assert inverse is not None  # only flows that have an answer become connections
        return inverse

    def moves_source(self, *, is_reply: bool) -> bool:
        """Whether packets of a direction go out from elsewhere than they came from: address, port or identifier."""
        flow, other = (self.reply, self.original) if is_reply else (self.original, self.reply)
        if flow.source != other.destination:
            return True
        return flow.source_port != (other.source_port if flow.protocol in QUERIES else other.destination_port)

    def moves_destination(self, *, is_reply: bool) -> bool:
        """Whether they go to elsewhere than they were sent. An identifier is of both ends."""
        return self.moves_source(is_reply=not is_reply)

    @property
    def source_translated(self) -> bool:
        """Whether its first packet went out with another source: address, port or identifier."""
        target = self.target(is_reply=False)
        return target.source != self.original.source or target.source_port != self.original.source_port

    @property
    def destination_translated(self) -> bool:
        """Whether its first packet went to another destination: address or port."""
        target = self.target(is_reply=False)
        return (
            target.destination != self.original.destination or target.destination_port != self.original.destination_port
        )

    def __str__(self) -> str:
        return self.as_line()

    def as_line(self, remaining: int | None = None) -> str:
        """The row of `conntrack -L`, with the seconds that remain where they are known."""
        protocol = self.original.protocol
        words = [f"{NAMES.get(protocol, 'unknown'):<8} {protocol}"]
        if remaining is not None:
            words.append(str(remaining // SECOND))
        if self.state is not None:
            words.append(self.state.value)
        words.append(self.original.as_text())
        if not self.seen_reply:
            words.append("[UNREPLIED]")
        words.append(self.reply.as_text())
        if self.assured:
            words.append("[ASSURED]")
        return " ".join(words)

    def as_dict(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "protocol": NAMES.get(self.original.protocol, str(self.original.protocol)),
            "state": None if self.state is None else self.state.value,
            "original": self.original.as_text(),
            "reply": self.reply.as_text(),
            "seen_reply": self.seen_reply,
            "assured": self.assured,
        }


class Standing(Enum):
    """How a packet stands to the connections of a host: netfilter's `ct state`."""

    NEW = "new"
    ESTABLISHED = "established"
    RELATED = "related"
    INVALID = "invalid"
    UNTRACKED = "untracked"


class Tracked(NamedTuple):
    """What was found for one packet: its annotation `connection` from here on.

    connection  None for INVALID and UNTRACKED
    is_reply    which direction it is on
    confirmed   the connection is in the table; else its first packet may still be refused
    choice      what was chosen for a first packet (see `rules.Choice`), until it is confirmed
    """

    standing: Standing
    connection: Connection | None = None
    is_reply: bool = False
    confirmed: bool = True
    choice: Any = None

    def __str__(self) -> str:
        return f"{self.standing.value} {self.connection}" if self.connection is not None else self.standing.value


INVALID = Tracked(Standing.INVALID)
UNTRACKED = Tracked(Standing.UNTRACKED)
