"""Fuse: compose the edits of a run, and refuse what cannot be repeated.

What is pushed and popped again on the way cancels out. Edits may touch the keyed bytes
of the header and its checksums; anything else, and anything that an element does beside
forwarding (a copy, a message, a change to a table), keeps the run out of the cache.

Rule of this file: a refusal says why, in words that `FlowCache.refused` can count.
"""

from __future__ import annotations

from emunet.fabric.capture import Record
from emunet.fabric.flow_key import TCP, UDP, WRAPPED_V4, WRAPPED_V6
from emunet.fabric.rewrite import Rewrite, Transport, View, Wrap
from emunet.packet.edit import Adjust, AdjustTransport, Complete, Edit, Pop, Push, Put, Trim
from emunet.plane.step import Step, Verdict
from emunet.plane.table import Advance, Counter, Refresh

KEYED_V4 = ((0, 16), (20, 24), (26, 38))
KEYED_V6 = ((0, 18), (20, 58))


class Unfusable(Exception):
    """Why a run is not repeated from the cache, in a few words."""


class Fused:
    """Edits of a run, composed: what is pushed and popped again cancels out."""

    def __init__(self, frame: bytes) -> None:
        self.frame = frame
        self.limit = 1 << 20
        self.pushed: list[Push] = []
        self.popped = 0
        self._look()

    def _look(self) -> None:
        frame = self.frame
        self.is_v4 = frame[12:14] == b"\x08\x00"
        self.transport: list[AdjustTransport] = []
        protocol = frame[23] if self.is_v4 else frame[20]
        start = 34 if self.is_v4 else 54
        self.is_udp = protocol == UDP
        self.is_tcp = protocol == TCP
        self.is_echo = not (self.is_udp or self.is_tcp)
        self.transport_at = start + (16 if self.is_tcp else 6 if self.is_udp else 2)
        self.identifier_at = start + 4

    @property
    def least(self) -> int:
        """Length in bytes of a frame whose transport header is whole."""
        return (34 if self.is_v4 else 54) + (20 if self.is_tcp else 8)

    @property
    def _depth(self) -> int:
        """Bytes in front of the frame that it is about, now."""
        return sum(len(push.data) for push in self.pushed)

    def take(self, step: Step, last: bool) -> None:
        """Compose one step."""
        if step.verdict is Verdict.DROP and last:
            if step.emissions or step.settled:
                raise Unfusable("a drop that tells somebody")
        elif step.verdict is not Verdict.FORWARD:
            raise Unfusable(f"it ends as {step.verdict.value}")
        elif len(step.outputs) != 1 or step.outputs[0].frame is not None:
            raise Unfusable("it makes copies")
        elif step.emissions or step.settled:
            raise Unfusable("an element speaks")
        if step.effects and any(not isinstance(effect, (Refresh, Advance)) for effect in step.effects):
            raise Unfusable("it changes a table")
        if step.limit is not None:
            self.limit = min(self.limit, step.limit - self._depth + self.popped)
        for edit in step.edits:
            self._edit(edit)

    def _edit(self, edit: Edit) -> None:
        depth = self._depth
        if isinstance(edit, Push):
            self.pushed.append(edit)
        elif isinstance(edit, Pop):
            if self.pushed and len(self.pushed[-1].data) == edit.length:
                self.pushed.pop()
            elif not self.pushed and not self.popped and edit.length in (WRAPPED_V4, WRAPPED_V6):
                self.popped = edit.length
                self.frame = self.frame[edit.length :]
                self._look()
            else:
                raise Unfusable("it unwraps what the cache cannot follow")
        elif isinstance(edit, Trim):
            raise Unfusable("it has padding")
        elif isinstance(edit, Complete):
            pass  # a checksum left to us may stay so: the wire form is the same
        elif edit.offset >= depth:
            self._inner(edit, edit.offset - depth)

    def _inner(self, edit: Put | Adjust | AdjustTransport, offset: int) -> None:
        if isinstance(edit, Put):
            keyed = KEYED_V4 if self.is_v4 else KEYED_V6
            if self.is_echo and offset == self.identifier_at and len(edit.data) == 2:
                return
            if not any(first <= offset and offset + len(edit.data) <= end for first, end in keyed):
                raise Unfusable("it changes bytes outside the key")
        elif isinstance(edit, AdjustTransport):
            if offset != self.transport_at:
                raise Unfusable("it changes a checksum outside the transport header")
            self.transport.append(edit)
        elif self.is_echo and offset == self.transport_at:
            self.transport.append(AdjustTransport(offset, edit.old, edit.new, pseudo=False))
        elif not self.is_v4 or offset != 24:
            raise Unfusable("it changes a checksum outside the IP header")

    @property
    def old_sum(self) -> int:
        """The sum of the keyed bytes of the header as it comes in (after unwrapping)."""
        before = self.frame
        return _sum(before[14:16] + before[20:24] + before[26:34]) if self.is_v4 else 0

    def view(self, record: Record, frame: bytes, advances: list[tuple[Counter, int]]) -> View:
        """What somebody sees who watches at this point of the run."""
        rewrite = Rewrite()
        self.write(rewrite, frame, advances)
        plain = rewrite.same and not rewrite.unwrap and rewrite.wrap is None
        return View(record.port, record.inbound, record.sinks, rewrite, plain)

    def write(self, rewrite: Rewrite, final: bytes, advances: list[tuple[Counter, int]]) -> None:
        """Write what the edits until here come to."""
        if len(self.pushed) > 1:
            raise Unfusable("it is wrapped more than once")
        if self.pushed:
            if len(advances) != 1:
                raise Unfusable("it takes several identifications")
            rewrite.wrap = self._wrap(final, advances[0][0])
        final = final[self._depth :]
        before = self.frame
        rewrite.unwrap = self.popped
        rewrite.is_v4 = self.is_v4
        if self.is_v4:
            rewrite.head, rewrite.middle = final[:16], final[20:24]
            rewrite.tail = b"" if self.is_echo else final[26:38]
            rewrite.new_sum = _sum(final[14:16] + final[20:24] + final[26:34])
            rewrite.same = before[:16] == final[:16] and before[20:24] == final[20:24] and before[26:38] == final[26:38]
        else:
            end = 54 if self.is_echo else 58
            rewrite.head, rewrite.tail = final[:18], final[20:end]
            rewrite.same = before[:18] == final[:18] and before[20:end] == final[20:end]
        if self.is_echo:
            self._echo(rewrite, final)
        if self.transport:
            rewrite.transport = Transport(self.transport_at, self.is_udp, tuple(self.transport))
            rewrite.same = False

    def share(self, rewrite: Rewrite, final: bytes) -> None:
        """As `write`, for frames that differ in their ports: these stay, and the addresses with them."""
        if self.pushed or self.transport:
            raise Unfusable("it is wrapped or translated")
        self.write(rewrite, final, [])
        first, end = (26, 34) if self.is_v4 else (22, 54)
        if final[first:end] != self.frame[first:end]:
            raise Unfusable("its addresses change")
        rewrite.tail = b"" if self.is_v4 else final[20:54]

    def _echo(self, rewrite: Rewrite, final: bytes) -> None:
        """An echo has its identifier where others have a port, behind what is not in its key."""
        at, before = self.identifier_at, self.frame
        extra: list[tuple[int, bytes]] = []
        if self.is_v4 and final[26:34] != before[26:34]:
            extra.append((26, final[26:34]))
        if final[at : at + 2] != before[at : at + 2]:
            extra.append((at, final[at : at + 2]))
        if extra:
            rewrite.extra = tuple(extra)
            rewrite.same = False

    def _wrap(self, final: bytes, counter: Counter) -> Wrap:
        """What stays in front of the final frame, as it can be built for others."""
        push = self.pushed[0]
        length = len(push.data)
        if push.recipe is None:
            raise Unfusable("it is wrapped by something that cannot be repeated")
        identification = final[18] << 8 | final[19]
        if push.recipe.header(final[length:], identification)[12:] != final[12:length]:
            raise Unfusable("its outer header was changed on the way")
        return Wrap(push.recipe, final[:12], counter)


def _sum(data: bytes) -> int:
    return int.from_bytes(data, "big") % 65535
