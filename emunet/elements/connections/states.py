"""States: what a packet of a connection does to what is remembered of it.

TCP by the table that netfilter has had since 2001 (G. van Rooij, "Real stateful TCP packet
filtering in IP Filter", 2000): the next state by direction, kind of segment and state.
UDP: a reply and two seconds make it a stream (fidelity CT-04). ICMP queries and other
protocols have no states.

Sequence numbers and windows are not followed, so a segment is judged by the state alone:
a reset with a wrong sequence number closes a connection here, where the kernel would not
believe it, and what the kernel calls INVALID for being outside the window is not.

Rule of this file: functions of their arguments. `advance` gives the same object back
where nothing changes, so that a steady packet is known by identity.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from emunet.elements.connections.connection import SECOND, Connection, Last, TcpState
from emunet.elements.connections.flow import UDP
from emunet.packet.tcp import ACK, FIN, RST, SYN, URG

STREAM_AFTER = 2 * SECOND

KINDS = ("syn", "synack", "fin", "ack", "rst", "none")
STATES = tuple(TcpState)
_WORDS = {"no": "NONE", "ss": "SYN_SENT", "sr": "SYN_RECV", "es": "ESTABLISHED", "fw": "FIN_WAIT"}
_WORDS |= {"cw": "CLOSE_WAIT", "la": "LAST_ACK", "tw": "TIME_WAIT", "cl": "CLOSE", "s2": "SYN_SENT2"}


class Odd(Enum):
    """What a segment may be instead of a step to a state.

    IGNORE: let through without believing it; the other end will say what it was. INVALID: cannot be.
    """

    IGNORE = "ig"
    INVALID = "--"


def _rows(text: str) -> dict[tuple[str, TcpState], TcpState | Odd]:
    table: dict[tuple[str, TcpState], TcpState | Odd] = {}
    for line in text.strip().splitlines():
        kind, *cells = line.split()
        for state, cell in zip(STATES, cells, strict=True):
            table[kind, state] = TcpState[_WORDS[cell]] if cell in _WORDS else Odd(cell)
    return table


# Columns: the state before, in the order of TcpState.
ORIGINAL = _rows("""
    syn     ss ss ig ig ig ig ig ss ss s2
    synack  -- -- sr -- -- -- -- -- -- sr
    fin     -- -- fw fw la la la tw cl --
    ack     es -- es es cw cw tw tw cl --
    rst     -- cl cl cl cl cl cl cl cl cl
    none    -- -- -- -- -- -- -- -- -- --
""")
REPLY = _rows("""
    syn     -- s2 -- -- -- -- -- ss -- s2
    synack  -- sr ig ig ig ig ig ig ig sr
    fin     -- -- fw fw la la la tw cl --
    ack     -- ig sr es cw cw tw tw cl ig
    rst     -- cl cl cl cl cl cl cl cl cl
    none    -- -- -- -- -- -- -- -- -- --
""")

# Which flags may stand together, beside PSH and the two of ECN (nf_conntrack's own list).
_SOUND = frozenset(
    (SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG)
)  # fmt: skip
_JUDGED = FIN | SYN | RST | ACK | URG


class Segment(NamedTuple):
    """What matters of a TCP segment: its kind, the sequence number behind it, and what it acknowledges."""

    kind: str
    end: int = 0
    acknowledgment: int = 0


PLAIN_ACK = Segment("ack")


class Fate(Enum):
    """What a packet does to its connection's entry.

    ACCEPT  it takes the new value (which may be the old one) and is used
    IGNORE  it takes the new value; the time that remains does not change
    END     it goes, and the packet still passes as one of it
    REOPEN  it goes, and the packet is the first of another
    INVALID nothing; the packet is of no connection
    """

    ACCEPT = "accept"
    IGNORE = "ignore"
    END = "end"
    REOPEN = "reopen"
    INVALID = "invalid"


def flags_problem(flags: int) -> str:
    """What is wrong with a segment's flags, or "" ."""
    return "" if flags & _JUDGED in _SOUND else f"no TCP sends the flags 0x{flags:02x} together"


def kind_of(flags: int) -> str:
    """The kind of a segment by its flags."""
    if flags & RST:
        return "rst"
    if flags & SYN:
        return "synack" if flags & ACK else "syn"
    if flags & FIN:
        return "fin"
    return "ack" if flags & ACK else "none"


def begin(connection: Connection, segment: Segment | None) -> Connection | None:
    """The connection after its first packet; None where no connection begins like that.

    A connection may begin in its middle (an ACK): its beginning was not seen (`tcp_loose`).
    """
    if segment is None:
        return connection
    state = ORIGINAL[segment.kind, TcpState.NONE]
    if isinstance(state, Odd):
        return None
    return connection._replace(state=state, last=_last(segment, is_reply=False))


def advance(connection: Connection, segment: Segment | None, now: int, *, is_reply: bool) -> tuple[Fate, Connection]:
    """What a later packet does. `segment` is None unless it is TCP."""
    if segment is not None:
        fate, after = _tcp(connection, segment, is_reply=is_reply)
    elif connection.original.protocol == UDP:
        fate, after = Fate.ACCEPT, _udp(connection, now)
    else:
        fate, after = Fate.ACCEPT, connection
    if is_reply and not after.seen_reply and fate in (Fate.ACCEPT, Fate.IGNORE):
        after = after._replace(seen_reply=True)
    return fate, after


def changes_at(connection: Connection) -> int | None:
    """When the next packet would do something that an earlier one would not (ns), or None: a UDP stream begins."""
    if connection.original.protocol == UDP and connection.seen_reply and not connection.assured:
        return connection.began + STREAM_AFTER + 1
    return None


def _udp(connection: Connection, now: int) -> Connection:
    if connection.seen_reply and not connection.assured and now > connection.began + STREAM_AFTER:
        return connection._replace(assured=True)
    return connection


def _last(segment: Segment, *, is_reply: bool) -> Last:
    return Last("ack") if segment.kind == "ack" else Last(segment.kind, is_reply, segment.end)


def _tcp(connection: Connection, segment: Segment, *, is_reply: bool) -> tuple[Fate, Connection]:
    before, last = connection.state, connection.last
    assert before is not None
    assert last is not None
    kind = segment.kind
    after = (REPLY if is_reply else ORIGINAL)[kind, before]
    if after is Odd.INVALID:
        return Fate.INVALID, connection
    reopens = after is TcpState.SYN_SENT and before not in (TcpState.SYN_SENT, TcpState.SYN_SENT2)
    if reopens and (connection.closing or (last.kind == "rst" and last.is_reply == is_reply)):
        # Closed, or reset by the same side that now begins anew (RFC 9293 3.6.1).
        return Fate.REOPEN, connection
    if reopens or after is Odd.IGNORE:
        if kind == "synack" and last.kind == "syn" and last.is_reply != is_reply and segment.acknowledgment == last.end:
            # It answers a SYN that was let through unbelieved: both ends agree, so we were wrong.
            anew = connection._replace(closing=False)
            return _accept(anew, segment, TcpState.SYN_SENT, TcpState.SYN_RECV, is_reply=is_reply)
        return Fate.IGNORE, _unbelieved(connection, segment, is_reply=is_reply)
    assert isinstance(after, TcpState)
    if after is TcpState.TIME_WAIT and before is TcpState.LAST_ACK and kind == "ack" and connection.challenged:
        if last.kind == "syn" and last.is_reply != is_reply:
            # A challenge to the SYN (RFC 5961 4), not the acknowledgement of the last FIN.
            return Fate.IGNORE, connection._replace(challenged=False)
    elif after is TcpState.SYN_SENT2:
        connection = connection if connection.crossed else connection._replace(crossed=True)
    elif after is TcpState.SYN_RECV and is_reply and kind == "ack" and connection.crossed:
        after = TcpState.ESTABLISHED
    return _accept(connection, segment, before, after, is_reply=is_reply)


def _unbelieved(connection: Connection, segment: Segment, *, is_reply: bool) -> Connection:
    after = connection._replace(last=Last(segment.kind, is_reply, segment.end))
    if segment.kind == "syn" and not is_reply:
        after = after._replace(crossed=False, challenged=connection.state is TcpState.LAST_ACK)
    return after if after != connection else connection


def _accept(
    connection: Connection, segment: Segment, before: TcpState, state: TcpState, *, is_reply: bool
) -> tuple[Fate, Connection]:
    kind = segment.kind
    closing = connection.closing or (state is TcpState.FIN_WAIT and before is not state)
    assured, fate = connection.assured, Fate.ACCEPT
    if not connection.seen_reply:
        if kind == "rst":
            # Nothing but a reset came back, or the sender gave up: there never was a connection.
            return Fate.END, connection
        if kind == "syn" and before is TcpState.SYN_SENT:
            fate = Fate.IGNORE  # a SYN sent again does not keep the entry alive
    elif state is TcpState.ESTABLISHED and before in (TcpState.SYN_RECV, TcpState.ESTABLISHED):
        assured = True
    last = _last(segment, is_reply=is_reply)
    if (state, closing, assured, last) == (connection.state, connection.closing, connection.assured, connection.last):
        return fate, connection
    # Written out: `_replace` takes 2 µs more, and ten packets come by here eighteen times on two hosts.
    after = Connection(
        connection.original, connection.reply, connection.began, connection.seen_reply, assured, state, last, closing,
        connection.crossed, connection.challenged, connection.interface,
    )  # fmt: skip
    return fate, after


__all__ = [
    "ORIGINAL",
    "PLAIN_ACK",
    "REPLY",
    "Fate",
    "Odd",
    "Segment",
    "advance",
    "begin",
    "changes_at",
    "flags_problem",
    "kind_of",
]
