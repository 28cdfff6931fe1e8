"""A small honest TCP (RFC 9293), sans-I/O.

What it does: active, passive and simultaneous open; data in order, with a
bounded store for what comes early; cumulative acknowledgment at once; one
retransmission timer with round-trip estimation and exponential back-off
(RFC 6298); a second try after three duplicate acknowledgments and for each
further hole (the repair of RFC 6582, without its window arithmetic); flow
control without silly windows, probing a closed one; half close, simultaneous
close, a short TIME-WAIT; resets and out-of-window segments treated as RFC 5961
says; path MTU discovery.

What it leaves out, on purpose: congestion control (an emulated wire shows what a
sender does, and a steady sender is easier to read), delayed acknowledgments,
Nagle's rule, window scaling, time stamps, SACK, urgent data, keep-alives.

Rule of this file: every public method takes `now`, returns the frames to send,
and leaves `due` right. Sequence numbers inside are plain integers that never
wrap; only the wire has 32 bits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from emunet.elements.endpoint.network import MILLISECOND, SECOND, Failure, Network
from emunet.packet.tcp import ACK, FIN, HEADER_LENGTH, PSH, RST, SYN, Tcp, TcpOptions

PROTOCOL = 6
RECEIVE_LIMIT = 65535
"""Bytes that wait for the application, and so the largest window (there is no window scaling)."""

EARLY_SEGMENTS = 128
"""Segments kept that came before their turn; more are dropped, and come again."""

INITIAL_TIMEOUT = SECOND
MINIMUM_TIMEOUT = 200 * MILLISECOND
MAXIMUM_TIMEOUT = 60 * SECOND
SYN_RETRIES = 6
SYN_ACK_RETRIES = 5
RETRIES = 15
TIME_WAIT = 2 * SECOND
"""Short (RFC 9293 has minutes): a lab's wires hold no segment for long."""

FIN_WAIT_2 = 3 * MAXIMUM_TIMEOUT
"""How long a closed side waits to hear more from a silent peer."""

CHALLENGE_INTERVAL = 500 * MILLISECOND
MINIMUM_MSS = 64


class State(Enum):
    """RFC 9293 3.3.2; a listening port is a Listener, not a Connection."""

    SYN_SENT = "SYN-SENT"
    SYN_RECEIVED = "SYN-RECEIVED"
    ESTABLISHED = "ESTABLISHED"
    FIN_WAIT_1 = "FIN-WAIT-1"
    FIN_WAIT_2 = "FIN-WAIT-2"
    CLOSE_WAIT = "CLOSE-WAIT"
    CLOSING = "CLOSING"
    LAST_ACK = "LAST-ACK"
    TIME_WAIT = "TIME-WAIT"
    CLOSED = "CLOSED"


_MAY_SEND = (State.SYN_SENT, State.SYN_RECEIVED, State.ESTABLISHED, State.CLOSE_WAIT)
_MAY_TRANSMIT = (State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK)
_MAY_RECEIVE = (State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2)


class _Timer(Enum):
    RETRANSMIT = 1
    PERSIST = 2
    TIME_WAIT = 3
    FIN_WAIT_2 = 4


class Stack(Network, Protocol):
    """What a connection asks of its stack beyond what every socket does."""

    def forget(self, connection: Connection) -> None:
        """The connection is closed; no segment must reach it any more."""
        ...


Handler = Callable[["Connection", int], list[bytes]]
"""Called with (connection, now) after anything about a connection may have changed; returns the frames of its acts."""


@dataclass(slots=True)
class Listener:
    """A listening port. Without a handler, established connections wait for `accept`."""

    port: int
    address: bytes | None = None
    handler: Handler | None = None
    backlog: int = 128
    pending: int = 0
    closed: bool = False
    _established: deque[Connection] = field(default_factory=deque)

    def accept(self) -> Connection | None:
        """The next established connection; None if there is none. (It may have been closed since.)"""
        return self._established.popleft() if self._established else None

    def close(self, now: int) -> list[bytes]:
        """Listen no more and reset what nobody accepted; what was accepted, or has a handler, lives on."""
        self.closed = True
        frames: list[bytes] = []
        while (connection := self.accept()) is not None:
            frames += connection.abort(now)
        return frames

    @property
    def full(self) -> bool:
        """True when no further half-open or waiting connection is taken: its SYN is dropped."""
        return self.pending + len(self._established) >= self.backlog


def _near(number: int, reference: int) -> int:
    """The integer that is `number` modulo 2**32 and nearest to `reference`."""
    difference = (number - reference) & 0xFFFFFFFF
    return reference + (difference - (1 << 32) if difference & 0x80000000 else difference)


def reset_for(header: Tcp, length: int) -> Tcp | None:
    """The reset that answers a segment for which there is no connection (RFC 9293 3.10.7.1, fidelity IC-06)."""
    if header.flags & RST:
        return None
    if header.flags & ACK:
        return Tcp(header.dport, header.sport, header.acknowledgment, 0, RST, 0)
    end = header.sequence + length + bool(header.flags & SYN) + bool(header.flags & FIN)
    return Tcp(header.dport, header.sport, 0, end & 0xFFFFFFFF, RST | ACK, 0)


class Connection:
    """One connection. Made by `Endpoint.connect` or by a Listener.

    `state`, `error` (why it failed, or None), `received` (bytes that wait to be
    taken by `receive`) and `ended` (the peer has sent its last byte) tell how it is.
    """

    def __init__(
        self,
        stack: Stack,
        local: bytes,
        local_port: int,
        remote: bytes,
        remote_port: int,
        initial_sequence: int,
        handler: Handler | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.local, self.local_port = local, local_port
        self.remote, self.remote_port = remote, remote_port
        self.state = State.CLOSED
        self.error: Failure | None = None
        self.soft_error: Failure | None = None
        self.handler = handler
        self.retransmissions = 0
        self.due: int | None = None
        self.queued: int | None = None
        self._stack = stack
        self._listener = listener
        self._timer = _Timer.RETRANSMIT
        # Sending: `una` is the oldest unacknowledged, `next` the next to send, `top` the highest ever sent.
        self._una = self._next = self._top = initial_sequence
        self._outgoing = bytearray()
        self._base = initial_sequence + 1
        self._closing = False
        self._fin_at: int | None = None
        self._peer_window = 0
        self._peer_window_maximum = 0
        self._window_sequence = self._window_acknowledgment = 0
        self._peer_mss = 536 if len(local) == 4 else 1220
        self._duplicates = 0
        self._recover = initial_sequence
        self._repaired = initial_sequence
        # Timing.
        self._timeout = INITIAL_TIMEOUT
        self._smoothed: int | None = None
        self._variation = 0
        self._timed: tuple[int, int] | None = None
        self._tries = 0
        # Receiving.
        self._expected = 0
        self._edge = 0
        self._incoming = bytearray()
        self._early: dict[int, bytes] = {}
        self._peer_fin: int | None = None
        self._ended = False
        self._acknowledge = False
        self._challenged: int | None = None

    # --- what the application sees and does

    @property
    def received(self) -> bytes:
        """The bytes that wait; `receive` takes them."""
        return bytes(self._incoming)

    @property
    def ended(self) -> bool:
        """True once the peer has closed its direction and everything before has come."""
        return self._ended

    @property
    def unsent(self) -> int:
        """Bytes given to `send` that the peer has not acknowledged yet."""
        return len(self._outgoing)

    def send(self, data: bytes, now: int) -> list[bytes]:
        """Queue bytes for the peer and send what its window allows. BrokenPipeError after `close` or a failure."""
        if self.state not in _MAY_SEND or self._closing:
            reason = self.error or "this side has closed it"
            raise BrokenPipeError(f"nothing can be sent on this connection any more: {reason}")
        self._outgoing += data
        return self._finish(self._flush(now), now)

    def receive(self, now: int, limit: int | None = None) -> tuple[bytes, list[bytes]]:
        """Take up to `limit` waiting bytes (all if None); a frame if the peer must hear that there is room again."""
        length = len(self._incoming) if limit is None else min(limit, len(self._incoming))
        data = bytes(self._incoming[:length])
        del self._incoming[:length]
        before = self._edge - self._expected
        if data and self.state in _MAY_RECEIVE and before < RECEIVE_LIMIT // 2 and self._window() > before:
            self._acknowledge = True
        return data, self._finish(self._flush(now), now)

    def close(self, now: int) -> list[bytes]:
        """Send what is queued, then FIN. The peer's data still comes until it closes too. Again: nothing."""
        if self.state is State.CLOSED or self._closing:
            return []
        self._closing = True
        if self.state is State.SYN_SENT:
            self._end(None)
            return []
        return self._finish(self._flush(now), now)

    def abort(self, now: int) -> list[bytes]:
        """Reset the connection; what was queued is lost. The handler is not called for it."""
        frames: list[bytes] = []
        if self.state not in (State.CLOSED, State.SYN_SENT, State.TIME_WAIT):
            frames = self._emit(RST | ACK, self._next, b"", now)
        self._end(None)
        return self._stack.settle(frames, now)

    # --- opening

    def open(self, now: int) -> list[bytes]:
        """Active open: the SYN. Called once, by the stack."""
        self.state = State.SYN_SENT
        self._next = self._top = self._una + 1
        self._timed = (self._next, now)
        self._arm(_Timer.RETRANSMIT, now + self._timeout)
        return self._emit(SYN, self._una, b"", now)

    def accept_syn(self, header: Tcp, now: int) -> list[bytes]:
        """Passive open: the SYN-ACK. Called once, by the stack."""
        if self._listener is not None:
            self._listener.pending += 1
        self._take_syn(header)
        self.state = State.SYN_RECEIVED
        self._next = self._top = self._una + 1
        self._timed = (self._next, now)
        self._arm(_Timer.RETRANSMIT, now + self._timeout)
        return self._emit(SYN | ACK, self._una, b"", now)

    def _take_syn(self, header: Tcp) -> None:
        """The peer's initial sequence number, window and largest segment. Data on a SYN is left for it to repeat."""
        self._expected = header.sequence + 1
        self._edge = self._expected
        self._set_peer_window(header.window, header.sequence, self._una)
        mss = TcpOptions.parse(header.options).mss
        if mss is not None:
            self._peer_mss = max(mss, MINIMUM_MSS)

    def _establish(self, now: int) -> None:
        self.state = State.ESTABLISHED
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.pending -= 1
            if listener.handler is None:
                listener._established.append(self)
                self._closing = listener.closed  # nobody will accept it: FIN follows at once

    # --- segments from the peer

    def segment(self, header: Tcp, data: bytes, now: int) -> list[bytes]:
        """Take a segment (RFC 9293 3.10.7), let the handler act on it, answer. Called by the stack."""
        if self.state is State.SYN_SENT:
            frames = self._segment_in_syn_sent(header, now)
        elif self.state is State.CLOSED:
            return []
        else:
            frames = self._segment_in_order(header, data, now)
        return self._finish(frames + self._notify(now) + self._flush(now), now)

    def _segment_in_syn_sent(self, header: Tcp, now: int) -> list[bytes]:
        """RFC 9293 3.10.7.3."""
        acknowledged = False
        if header.flags & ACK:
            acknowledged = _near(header.acknowledgment, self._una) == self._next
            if not acknowledged:
                reset = reset_for(header, 0)
                return [] if reset is None else self._emit(RST, reset.sequence, b"", now)
        if header.flags & RST:
            if acknowledged:
                self._end(Failure.REFUSED)
            return []
        if not header.flags & SYN:
            return []
        self._take_syn(header)
        if not acknowledged:  # both opened at once
            self.state = State.SYN_RECEIVED
            return self._emit(SYN | ACK, self._una, b"", now)
        self._take_acknowledgment(self._next, now)
        self._set_peer_window(header.window, header.sequence, self._next)
        self._establish(now)
        self._acknowledge = True
        return []

    def _segment_in_order(self, header: Tcp, data: bytes, now: int) -> list[bytes]:
        """RFC 9293 3.10.7.4, in its order of checks. The first is tolerant: ACKs must get in with a full window."""
        flags = header.flags
        sequence = _near(header.sequence, self._expected)
        if flags & SYN and self.state is State.SYN_RECEIVED and sequence == self._expected - 1 and not flags & RST:
            if not flags & ACK:
                return self._emit(SYN | ACK, self._una, b"", now)
            sequence, flags = sequence + 1, flags & ~SYN
        length = len(data) + bool(flags & SYN) + bool(flags & FIN)
        if sequence + length < self._expected or sequence > self._edge:
            if flags & RST:
                return []
            return self._challenge(now) if not data and (flags & SYN or not length) else self._answer()
        if flags & RST:
            if sequence != self._expected:
                return self._challenge(now)
            if self.state is not State.TIME_WAIT:  # RFC 1337: a reset does not cut TIME-WAIT short
                passive = self.state is State.SYN_RECEIVED and self._listener is not None
                finished = self.state in (State.CLOSING, State.LAST_ACK)
                self._end(None if passive or finished else Failure.RESET)
            return []
        if flags & SYN:
            return self._challenge(now)
        if not flags & ACK:
            return []
        refused = self._check_acknowledgment(header, sequence, len(data), now)
        if refused is not None:
            return refused
        if self.state is State.FIN_WAIT_2:
            self._arm(_Timer.FIN_WAIT_2, now + FIN_WAIT_2)
        frames = self._repair(now)
        if length:
            self._acknowledge = True
            self._take_data(sequence, data, bool(flags & FIN))
            self._take_fin(now)
            if self.state is State.TIME_WAIT:
                self._arm(_Timer.TIME_WAIT, now + TIME_WAIT)
        return frames

    def _check_acknowledgment(self, header: Tcp, sequence: int, length: int, now: int) -> list[bytes] | None:
        """Take the ACK and the window; frames instead if the segment must go no further."""
        acknowledgment = _near(header.acknowledgment, self._una)
        if self.state is State.SYN_RECEIVED:
            if not self._una < acknowledgment <= self._top:
                return self._emit(RST, header.acknowledgment, b"", now)
            self._establish(now)
        elif acknowledgment > self._top or acknowledgment < self._una - max(self._peer_window_maximum, 1):
            return self._challenge(now)
        newer = (sequence, acknowledgment) >= (self._window_sequence, self._window_acknowledgment)
        if acknowledgment > self._una:
            self._take_acknowledgment(acknowledgment, now)
            self._duplicates = 0
        elif acknowledgment == self._una:
            if self._timer is _Timer.PERSIST or not header.window:
                self._tries = 0  # it answers, so it lives; that its window is closed is its own affair
            same = header.window == self._peer_window and not length and not header.flags & FIN
            self._duplicates = self._duplicates + 1 if same and self._next > self._una else 0
        if newer and acknowledgment >= self._una:
            self._set_peer_window(header.window, sequence, acknowledgment)
        return None

    def _take_acknowledgment(self, acknowledgment: int, now: int) -> None:
        """The peer has everything before `acknowledgment`: forget it, learn the round-trip time, move on."""
        self._una = acknowledgment
        self._next = max(self._next, acknowledgment)
        gone = min(max(acknowledgment - self._base, 0), len(self._outgoing))
        del self._outgoing[:gone]
        self._base += gone
        self._tries = 0
        if self._timed is not None and acknowledgment >= self._timed[0]:
            self._measure(now - self._timed[1])
            self._timed = None
        self._timeout = self._estimate()
        self._stack.confirm(self.remote, now)
        if self._una == self._top:
            self._disarm(_Timer.RETRANSMIT)
        else:
            self._arm(_Timer.RETRANSMIT, now + self._timeout)
        if self._fin_at is not None and acknowledgment > self._fin_at:
            if self.state is State.FIN_WAIT_1:
                self.state = State.FIN_WAIT_2
                self._arm(_Timer.FIN_WAIT_2, now + FIN_WAIT_2)
            elif self.state is State.CLOSING:
                self._wait(now)
            elif self.state is State.LAST_ACK:
                self._end(None)

    def _set_peer_window(self, window: int, sequence: int, acknowledgment: int) -> None:
        self._peer_window = window
        self._peer_window_maximum = max(self._peer_window_maximum, window)
        self._window_sequence, self._window_acknowledgment = sequence, acknowledgment
        if window:
            self._disarm(_Timer.PERSIST)

    def _repair(self, now: int) -> list[bytes]:
        """What an acknowledgment says about losses: its third repetition names one, each step to `recover` another."""
        if self._una == self._top or self.state is State.CLOSED:
            return []
        if self._duplicates == 3 and self._una >= self._recover:
            self._recover = self._top
            return self._retransmit(now)
        if self._una < self._recover and self._repaired != self._una:
            return self._retransmit(now)
        return []

    def _take_data(self, sequence: int, data: bytes, fin: bool) -> None:
        """Keep what lies in the window; move on over everything that is now in order."""
        if self.state not in _MAY_RECEIVE:
            return
        if fin and sequence + len(data) <= self._edge:
            self._peer_fin = sequence + len(data)
        data = data[max(self._expected - sequence, 0) : max(self._edge - sequence, 0)]
        sequence = max(sequence, self._expected)
        if data and sequence > self._expected:
            if len(self._early) < EARLY_SEGMENTS and len(data) > len(self._early.get(sequence, b"")):
                self._early[sequence] = data
            return
        self._incoming += data
        self._expected += len(data)
        while self._early and (start := min(self._early)) <= self._expected:
            piece = self._early.pop(start)
            piece = piece[self._expected - start :]
            self._incoming += piece
            self._expected += len(piece)

    def _take_fin(self, now: int) -> None:
        """The peer's FIN, once everything before it has come."""
        if self._ended or self._peer_fin != self._expected:
            return
        self._ended = True
        self._expected += 1
        self._edge = max(self._edge, self._expected)
        if self.state is State.ESTABLISHED:
            self.state = State.CLOSE_WAIT
        elif self.state is State.FIN_WAIT_1:
            self.state = State.CLOSING
        elif self.state is State.FIN_WAIT_2:
            self._wait(now)

    def _answer(self) -> list[bytes]:
        self._acknowledge = True
        return []

    def _challenge(self, now: int) -> list[bytes]:
        """An acknowledgment that tells the peer where we are (RFC 5961 3, 4, 5); rarely, so that two never circle."""
        if self._challenged is None or now - self._challenged >= CHALLENGE_INTERVAL:
            self._challenged = now
            self._acknowledge = True
        return []

    # --- segments to the peer

    def _window(self) -> int:
        """The window to announce: the edge moves only by a full segment or half of all room (RFC 9293 3.8.6.2.2)."""
        room = RECEIVE_LIMIT - len(self._incoming)
        gain = self._expected + room - self._edge
        if gain >= min(self._stack.mtu - self._headers, RECEIVE_LIMIT // 2):
            self._edge = self._expected + room
        return self._edge - self._expected

    @property
    def _headers(self) -> int:
        return HEADER_LENGTH + (20 if len(self.local) == 4 else 40)

    def _mss(self, now: int) -> int:
        """The largest segment to send now: what the peer takes and the path carries."""
        return max(min(self._peer_mss, self._stack.path_mtu(self.remote, now) - self._headers), MINIMUM_MSS)

    def _flush(self, now: int) -> list[bytes]:
        """Send new data as far as the window goes, then FIN if it is due, then an acknowledgment if one is owed."""
        frames: list[bytes] = []
        if self.state in _MAY_TRANSMIT:
            mss = self._mss(now)
            while (length := self._allowance(mss)) > 0:
                frames += self._send_from(self._next, length, now)
            if self._closing and self._next == self._base + len(self._outgoing) and self._fits_fin():
                frames += self._send_from(self._next, 0, now)
            if self._peer_window == 0 and self._una == self._top and self._unsent_length() > 0 and self.due is None:
                self._timeout = max(self._estimate(), MINIMUM_TIMEOUT)
                self._arm(_Timer.PERSIST, now + self._timeout)
        if self._acknowledge and self.state not in (State.CLOSED, State.SYN_SENT):
            frames += self._emit(ACK, self._next, b"", now)
        return frames

    def _unsent_length(self) -> int:
        return self._base + len(self._outgoing) - self._next

    def _fits_fin(self) -> bool:
        """True when FIN has not been sent (or is to be sent again after a step back)."""
        return self._fin_at is None or self._next <= self._fin_at

    def _allowance(self, mss: int) -> int:
        """How many new bytes to send in one segment now; 0 also to avoid a silly one (RFC 9293 3.8.6.2.1)."""
        unsent = self._unsent_length()
        usable = self._una + self._peer_window - self._next
        length = min(unsent, usable, mss)
        if length <= 0:
            return 0
        if length in (mss, unsent) or self._next == self._una or length * 2 >= self._peer_window_maximum:
            return length
        return 0

    def _send_from(self, sequence: int, length: int, now: int) -> list[bytes]:
        """One segment of `length` bytes from `sequence` on, FIN with it where the data ends; keeps the books."""
        data = bytes(self._outgoing[sequence - self._base : sequence - self._base + length])
        end = sequence + length
        last = end == self._base + len(self._outgoing)
        flags = ACK | (PSH if data and last else 0)
        if last and self._closing:
            flags |= FIN
            self._fin_at = end
            end += 1
            if self.state is State.ESTABLISHED:
                self.state = State.FIN_WAIT_1
            elif self.state is State.CLOSE_WAIT:
                self.state = State.LAST_ACK
        if sequence < self._top:
            self.retransmissions += 1
            self._timed = None  # Karn: a sample of something sent twice says nothing
        elif self._timed is None:
            self._timed = (end, now)
        self._next = max(self._next, end)
        self._top = max(self._top, end)
        if self.due is None or self._timer is not _Timer.RETRANSMIT:
            self._arm(_Timer.RETRANSMIT, now + self._timeout)
        return self._emit(flags, sequence, data, now)

    def _retransmit(self, now: int) -> list[bytes]:
        """The oldest unacknowledged segment again."""
        if self.state is State.SYN_SENT or self.state is State.SYN_RECEIVED:
            self.retransmissions += 1
            self._timed = None
            return self._emit(SYN if self.state is State.SYN_SENT else SYN | ACK, self._una, b"", now)
        self._repaired = self._una
        sent = min(self._top, self._base + len(self._outgoing)) - self._una
        return self._send_from(self._una, min(max(sent, 0), self._mss(now)), now)

    def _emit(self, flags: int, sequence: int, data: bytes, now: int) -> list[bytes]:
        options = b""
        if flags & SYN:
            options = TcpOptions(mss=self._stack.mtu - self._headers).pack()
        acknowledgment = self._expected & 0xFFFFFFFF if flags & ACK else 0
        window = 0 if flags & RST else self._window() if flags & ACK else RECEIVE_LIMIT
        if flags & ACK:
            self._acknowledge = False
        header = Tcp(
            self.local_port, self.remote_port, sequence & 0xFFFFFFFF, acknowledgment, flags, window, options=options
        )
        segment = header.pack(self.local, self.remote, data)
        return self._stack.transmit(self.local, self.remote, PROTOCOL, segment, now)

    # --- time

    def wake(self, now: int) -> list[bytes]:
        """The timer: repeat, probe, or end."""
        if self.due is None or self.due > now:
            return []
        if self._timer in (_Timer.TIME_WAIT, _Timer.FIN_WAIT_2):
            self._end(None if self._timer is _Timer.TIME_WAIT else Failure.TIMED_OUT)
            return self._notify(now)
        limits = {State.SYN_SENT: SYN_RETRIES, State.SYN_RECEIVED: SYN_ACK_RETRIES}
        if self._tries >= limits.get(self.state, RETRIES):
            self._end(self.soft_error or Failure.TIMED_OUT)
            return self._finish(self._notify(now), now)
        self._tries += 1
        self._timeout = min(self._timeout * 2, MAXIMUM_TIMEOUT)
        if self._timer is _Timer.PERSIST:
            self._arm(_Timer.PERSIST, now + self._timeout)
            # One byte before the window, as Linux does: unacceptable, hence answered with the window as it is.
            return self._emit(ACK, self._una - 1, b"", now)
        self._recover, self._duplicates = self._top, 0
        self._arm(_Timer.RETRANSMIT, now + self._timeout)
        return self._retransmit(now)

    def sent(self, sequence: int) -> bool:
        """True if a segment with this number is on its way: else an ICMP error about it is a forgery (RFC 5927 4)."""
        return self._una <= _near(sequence, self._una) < self._top

    def can_be_replaced(self, header: Tcp) -> bool:
        """True in TIME-WAIT if a SYN begins beyond all that the old connection had (RFC 9293 3.10.7.4)."""
        return self.state is State.TIME_WAIT and _near(header.sequence, self._expected) >= self._expected

    def unreachable(self, failure: Failure, now: int) -> list[bytes]:
        """An ICMP error, or the local stack, about a segment of ours. It ends an attempt, not a connection (IC-18)."""
        self.soft_error = failure
        if self.state is State.SYN_SENT:
            self._end(failure)
        return self._finish(self._notify(now), now)

    def path_changed(self, now: int) -> list[bytes]:
        """A segment of ours was too big for the path: send again, smaller, all that is unacknowledged."""
        if self.state in (State.SYN_SENT, State.SYN_RECEIVED, State.CLOSED, State.TIME_WAIT):
            return []
        self._next = self._una
        self._timed = None
        return self._finish(self._flush(now), now)

    def _measure(self, sample: int) -> None:
        """RFC 6298 2.2, 2.3."""
        if self._smoothed is None:
            self._smoothed, self._variation = sample, sample // 2
        else:
            self._variation += (abs(self._smoothed - sample) - self._variation) // 4
            self._smoothed += (sample - self._smoothed) // 8

    def _estimate(self) -> int:
        """The retransmission timeout for the round-trip times seen."""
        if self._smoothed is None:
            return INITIAL_TIMEOUT
        return min(max(self._smoothed + max(4 * self._variation, MILLISECOND), MINIMUM_TIMEOUT), MAXIMUM_TIMEOUT)

    def _arm(self, timer: _Timer, due: int) -> None:
        self._timer, self.due = timer, due
        self._stack.schedule(self)

    def _disarm(self, timer: _Timer) -> None:
        if self._timer is timer:
            self.due = None

    def _wait(self, now: int) -> None:
        """TIME-WAIT: long enough here for two lost acknowledgments of the peer's FIN."""
        self.state = State.TIME_WAIT
        self._arm(_Timer.TIME_WAIT, now + TIME_WAIT)

    def _end(self, failure: Failure | None) -> None:
        if self.state is State.CLOSED:
            return
        if self._listener is not None:
            self._listener.pending -= 1
            self._listener = None
        self.state = State.CLOSED
        self.error = failure
        self.due = None
        self._acknowledge = False
        self._outgoing.clear()
        self._early.clear()
        self._stack.forget(self)

    def _notify(self, now: int) -> list[bytes]:
        return [] if self.handler is None else self.handler(self, now)

    def _finish(self, frames: list[bytes], now: int) -> list[bytes]:
        return self._stack.settle(frames, now)
