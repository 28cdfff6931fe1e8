"""Ports as people write them for `docker run -p`: `80`, `8080:80`, `127.0.0.1:8080:80/udp`, `8000-8002:80-82`.

Rule of this file: text in, values out; ValueError with what was expected.
"""

from __future__ import annotations

import re

from emunet.cluster.docker.containers import PortWish
from emunet.packet.address import parse_ip

_PORT = re.compile(
    r"(?:(?:(?P<address>\[[0-9a-fA-F:]+\]|[0-9.]+):)?(?P<first>\d*)(?:-(?P<last>\d+))?:)?"
    r"(?P<target>\d+)(?:-(?P<end>\d+))?(?:/(?P<protocol>tcp|udp))?"
)


def read_port(text: str) -> list[PortWish]:
    """The ports that one `-p` asks for."""
    found = _PORT.fullmatch(text)
    if found is None:
        raise ValueError(f"expected a port to publish, like 8080:80, 127.0.0.1:53:53/udp or 80 (got {text!r})")
    target, end = int(found["target"]), int(found["end"] or found["target"])
    first = int(found["first"] or 0)
    last = int(found["last"] or (first + end - target if first else 0))
    if end < target or (first and last - first != end - target) or max(end, last) > 65_535 or not target:
        raise ValueError(f"the port ranges of {text!r} do not fit each other, or are beyond 65535")
    address = parse_ip(found["address"].strip("[]")) if found["address"] else b""
    address = address if any(address) else b""
    return [
        PortWish(target + step, found["protocol"] or "tcp", first + step if first else 0, address)
        for step in range(end - target + 1)
    ]
