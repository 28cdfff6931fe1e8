"""Ports: another source for a connection, such that what answers cannot be mistaken.

Netfilter's order (nf_nat_core.c, get_unique_tuple): keep the port where that is unique;
else the port that this sender is known by already; else look for a free one in the class
of the old one (below 512, below 1024, the rest; any identifier for ICMP), from a place
that chance says, in ever smaller pieces: 240 tries at most, so that a full class is told
and not searched for ever.

Rule of this file: it reads the table and changes nothing.
"""

from __future__ import annotations

from emunet.elements.connections.connection import Connection
from emunet.elements.connections.flow import PORTS, QUERIES, Flow
from emunet.elements.connections.table import ConnectionTable, endpoint
from emunet.plane.chance import chance

FIRST_PIECE = 128
SMALLEST_PIECE = 16


def port_class(protocol: int, port: int) -> tuple[int, int]:
    """The first port and the number of ports among which one may be exchanged for another."""
    if protocol in QUERIES:
        return 0, 65536
    if port < 512:
        return 1, 511
    if port < 1024:
        return 600, 424
    return 1024, 64512


class Ports:
    """Chooses sources for one host."""

    def __init__(self, seed: int, device: str, table: ConnectionTable) -> None:
        self.seed = seed
        self.device = device
        self.table = table

    def source(
        self, connection: Connection, address: bytes, now: int, *, random_fully: bool = False
    ) -> Connection | None:
        """The connection with `address` for its source and a port that tells its replies; None: no port is free."""
        flow = connection.target(is_reply=False)
        wanted = flow._replace(source=address)
        if not random_fully:
            if flow.source != address:
                for other in self.table.mappings(endpoint(connection.original), now):
                    known = other.target(is_reply=False)
                    if known.source == address:
                        same = wanted._replace(source_port=known.source_port)
                        if self._is_free(same, now):
                            return _with(connection, same)
                        break
            if self._is_free(wanted, now):
                return _with(connection, wanted)
        if wanted.protocol not in PORTS and wanted.protocol not in QUERIES:
            return _with(connection, wanted) if self._is_free(wanted, now) else None
        return self._search(connection, wanted, now)

    def _search(self, connection: Connection, wanted: Flow, now: int) -> Connection | None:
        first, size = port_class(wanted.protocol, wanted.source_port)
        piece, attempt = min(FIRST_PIECE, size), 0
        while True:
            offset = chance(self.seed, self.device, *connection.original, attempt) % 65536
            for number in range(piece):
                candidate = wanted._replace(source_port=first + (offset + number) % size)
                if self._is_free(candidate, now):
                    return _with(connection, candidate)
            if piece >= size or piece < SMALLEST_PIECE:
                return None
            piece //= 2
            attempt += 1

    def _is_free(self, flow: Flow, now: int) -> bool:
        reply = flow.inverted()
        return reply is not None and self.table.find(reply, now) is None


def _with(connection: Connection, flow: Flow) -> Connection:
    reply = flow.inverted()
    assert reply is not None
    return connection if reply == connection.reply else connection._replace(reply=reply)
