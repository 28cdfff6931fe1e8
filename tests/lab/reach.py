"""Whether one pod of a Lab reaches another, by real frames between their stacks."""

from __future__ import annotations

import itertools

from emunet.fabric.capture import Record
from emunet.packet.address import parse_ip
from emunet.testing import Lab

_SOURCE_PORTS = itertools.count(20_000)


def reaches(lab: Lab, source: str, target: str, protocol: str, port: int) -> bool:
    """Whether a real frame that begins a connection comes to the target's stack, and the stack's answer back."""
    here = lab.pod(source)
    seen = _Heard()
    lab.plane.tap([target, source], seen)
    try:
        if protocol == "TCP":
            ports = {"source_port": next(_SOURCE_PORTS)}
            _, frames = here.endpoint.connect(lab.address(target), port, lab.clock.now, **ports)
            lab.plane.world.send(lab.plane.edge(source), frames, lab.clock.now)
        else:
            socket = here.endpoint.udp_bind()
            lab.plane.world.send(
                lab.plane.edge(source), socket.send(b"?", lab.address(target), port, lab.clock.now), lab.clock.now
            )
            socket.closed = True
    finally:
        lab.plane.untap([target, source], seen)
    return seen.reached(lab.pod(source).ip, lab.pod(target).ip)


class _Heard:
    """IP packets that came in at ports that are watched."""

    def __init__(self) -> None:
        self.got: set[tuple[str, bytes, bytes]] = set()

    def write(self, record: Record) -> None:
        """Keep who sent what to whom, of what a port's stack received."""
        for frame in record.frames if record.inbound else ():
            if frame[12:14] == b"\x08\x00":
                self.got.add((record.port, frame[26:30], frame[30:34]))

    def reached(self, source: str, target: str) -> bool:
        """Whether the question was heard and the answer too; one without the other is a fault."""
        question = any(sender == parse_ip(source) for _, sender, _ in self.got)
        answer = any(sender == parse_ip(target) for _, sender, _ in self.got)
        assert question == answer
        return question
