"""Filters over frames: the part of pcap-filter(7) that is about headers, in pure Python.

    udp and dst port 53
    tcp[tcpflags] & (tcp-syn|tcp-fin) != 0 and not src net 10.244.1.0/24
    vxlan and icmp                      what is inside a VXLAN packet, from `vxlan` on

It is libpcap's language without arithmetic on bytes, so that what is written here means
the same to tcpdump and Wireshark's capture filters: `and` and `or` have the same
precedence and go from left to right, `not` binds closest, and `vxlan` moves all that
follows it to the inner frame.

Rule of this file: a text that is no filter raises ValueError with the word where it goes
wrong; a filter is asked about any bytes and never raises.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from emunet.packet.address import Prefix, is_group_mac, parse_ip, parse_mac

Filter = Callable[[bytes], bool]
_Test = Callable[["_Headers"], bool]

_TOKEN = re.compile(r"\s*(&&|\|\||!=|[()!&|=\[\]]|[^\s()!&|=\[\]]+)")
_ETHERTYPES = {"arp": 0x0806, "ip": 0x0800, "ip6": 0x86DD}
_PROTOCOLS = {"icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "icmp6": 58, "sctp": 132}
_PORTS = (6, 17, 132)
_FLAGS = {"tcp-fin": 1, "tcp-syn": 2, "tcp-rst": 4, "tcp-push": 8, "tcp-ack": 16, "tcp-urg": 32}
_VXLAN_PORTS = (4789, 8472)
_BROADCAST = b"\xff" * 6


@dataclass(frozen=True, slots=True)
class _Headers:
    """What a filter may ask of one frame, and the frame inside it where it is VXLAN."""

    frame: bytes
    ethertype: int
    source: bytes = b""
    destination: bytes = b""
    protocol: int = -1
    ports: tuple[int, int] | None = None
    flags: int = 0
    payload: bytes = b""


def compile_filter(text: str) -> Filter:
    """The function that says whether a frame is meant. An empty text means every frame."""
    if not text.strip():
        return lambda frame: True
    test = _Parser(text).parse()
    return lambda frame: len(frame) >= 14 and test(_look(frame))


def _look(frame: bytes) -> _Headers:
    ethertype = frame[12] << 8 | frame[13]
    if ethertype == 0x0800 and len(frame) >= 34:
        protocol, start = frame[23], 14 + (frame[14] & 15) * 4
        source, destination = frame[26:30], frame[30:34]
        first = not (frame[20] << 8 | frame[21]) & 0x1FFF
    elif ethertype == 0x86DD and len(frame) >= 54:
        protocol, start = frame[20], 54
        source, destination = frame[22:38], frame[38:54]
        first = True
    elif ethertype == 0x0806 and len(frame) >= 42:
        return _Headers(frame, ethertype, frame[28:32], frame[38:42])
    else:
        return _Headers(frame, ethertype)
    ports, flags = None, 0
    if first and protocol in _PORTS and len(frame) >= start + 4:
        ports = (frame[start] << 8 | frame[start + 1], frame[start + 2] << 8 | frame[start + 3])
        if protocol == 6 and len(frame) > start + 13:
            flags = frame[start + 13]
    payload = frame[start + 8 :] if protocol == 17 and ports is not None else b""
    return _Headers(frame, ethertype, source, destination, protocol, ports, flags, payload)


class _Parser:
    """Recursive descent over the words of one filter."""

    def __init__(self, text: str) -> None:
        self._words = _TOKEN.findall(text)
        self._at = 0
        self._vxlan = False

    def parse(self) -> _Test:
        """The whole text."""
        test = self._chain()
        if self._at < len(self._words):
            raise self._fault("expected `and`, `or` or the end")
        return test

    def _fault(self, what: str) -> ValueError:
        place = f"at {self._words[self._at]!r}" if self._at < len(self._words) else "at its end"
        return ValueError(f"not a filter: {what} {place} (like `udp and dst port 53`)")

    def _peek(self) -> str:
        return self._words[self._at].lower() if self._at < len(self._words) else ""

    def _take(self, *words: str) -> str:
        """The next word if it is one of these, else nothing."""
        word = self._peek()
        if word not in words:
            return ""
        self._at += 1
        return word

    def _next(self, what: str) -> str:
        word = self._peek()
        if not word:
            raise self._fault(f"expected {what}")
        self._at += 1
        return word

    def _chain(self) -> _Test:
        test = self._factor()
        while word := self._take("and", "&&", "or", "||"):
            test = _joined(test, self._factor(), word in ("and", "&&"))
        return test

    def _factor(self) -> _Test:
        if self._take("not", "!"):
            inner = self._factor()
            return lambda headers: not inner(headers)
        if self._take("("):
            test = self._chain()
            if not self._take(")"):
                raise self._fault("expected `)`")
            return test
        if self._take("vxlan"):
            return self._begin_vxlan()
        test = self._primitive()
        return _inside(test) if self._vxlan else test

    def _begin_vxlan(self) -> _Test:
        if self._vxlan:
            raise self._fault("`vxlan` may stand once, before")
        self._vxlan = True
        number = int(self._next("a VNI")) if self._peek().isdigit() else None
        return lambda headers: _inner(headers) is not None and number in (None, _vni(headers))

    def _primitive(self) -> _Test:
        if word := self._take("less", "greater"):
            return self._length(word)
        if word := self._take("broadcast", "multicast"):
            return _broadcast if word == "broadcast" else _multicast
        if self._take("ether"):
            return self._ether()
        if word := self._take(*_ETHERTYPES):
            return self._of_network(_ETHERTYPES[word])
        if word := self._take(*_PROTOCOLS):
            return self._of_protocol(word)
        if self._take("proto"):
            return self._protocol()
        return self._addressed(self._direction())

    def _length(self, word: str) -> _Test:
        number = self._number("a number of bytes", 0, 65535)
        if word == "less":
            return lambda headers: len(headers.frame) <= number
        return lambda headers: len(headers.frame) >= number

    def _number(self, what: str, low: int, high: int) -> int:
        word = self._next(what)
        if not (word.isascii() and word.isdigit() and low <= int(word) <= high):
            self._at -= 1
            raise self._fault(f"expected {what} from {low} to {high}")
        return int(word)

    def _direction(self) -> str:
        return self._take("src", "dst")

    def _ether(self) -> _Test:
        if word := self._take("broadcast", "multicast"):
            return _broadcast if word == "broadcast" else _multicast
        if self._take("proto"):
            word = self._next("a protocol")
            number = _ETHERTYPES.get(word)
            if number is None:
                try:
                    number = int(word, 0)
                except ValueError:
                    self._at -= 1
                    raise self._fault("expected an EtherType like 0x88b5") from None
            return lambda headers: headers.ethertype == number
        direction = self._direction()
        self._take("host")
        try:
            mac = parse_mac(self._next("a MAC address"))
        except ValueError:
            self._at -= 1
            raise self._fault("expected a MAC address") from None
        return _either(direction, lambda headers: headers.frame[6:12] == mac, lambda headers: headers.frame[:6] == mac)

    def _of_network(self, ethertype: int) -> _Test:
        """`ip`, or `ip host ...`, `ip proto ...`."""

        def own(headers: _Headers) -> bool:
            return headers.ethertype == ethertype

        if self._take("proto"):
            return _joined(own, self._protocol(), True)
        direction = self._direction()
        if direction or self._peek() in ("host", "net"):
            return _joined(own, self._addressed(direction), True)
        return own

    def _of_protocol(self, name: str) -> _Test:
        """`tcp`, or `tcp port ...`, `tcp[tcpflags] & ...`."""
        number = _PROTOCOLS[name]

        def own(headers: _Headers) -> bool:
            return headers.protocol == number

        if name == "tcp" and self._take("["):
            return self._tcp_flags()
        direction = self._direction()
        if direction or self._peek() in ("port", "portrange"):
            return _joined(own, self._port(direction), True)
        return own

    def _tcp_flags(self) -> _Test:
        for word in ("tcpflags", "]", "&"):
            if not self._take(word):
                raise self._fault(f"expected `{word}`")
        group = self._take("(")
        wanted = 0
        while True:
            name = self._take(*_FLAGS)
            if not name:
                raise self._fault(f"expected one of {', '.join(_FLAGS)}")
            wanted |= _FLAGS[name]
            if not group or not self._take("|"):
                break
        if group and not self._take(")"):
            raise self._fault("expected `)`")
        negated = bool(self._take("!="))
        if not negated and not (self._take("=") and (self._take("=") or True)):
            raise self._fault("expected `!= 0` or `= 0`")
        self._number("0", 0, 0)
        return lambda headers: headers.protocol == 6 and headers.ports is not None and (
            bool(headers.flags & wanted) is negated
        )  # fmt: skip

    def _protocol(self) -> _Test:
        word = self._next("a protocol")
        number = _PROTOCOLS.get(word)
        if number is None:
            self._at -= 1
            number = self._number("a protocol number", 0, 255)
        return lambda headers: headers.protocol == number

    def _addressed(self, direction: str) -> _Test:
        if self._peek() in ("port", "portrange"):
            return self._port(direction)
        if self._take("net"):
            return self._in_network(direction)
        named = self._take("host") or direction
        word = self._next("a host, a port or a protocol")
        try:
            address = parse_ip(word)
        except ValueError:
            self._at -= 1
            raise self._fault("expected an IP address" if named else "expected a host, a port or a protocol") from None
        return _either(direction, lambda h: h.source == address, lambda h: h.destination == address)

    def _in_network(self, direction: str) -> _Test:
        try:
            prefix = Prefix.parse(self._next("a network"))
        except ValueError:
            self._at -= 1
            raise self._fault("expected a network like 10.244.1.0/24") from None
        size = len(prefix.address)

        def within(address: bytes) -> bool:
            return len(address) == size and prefix.contains(address)

        return _either(direction, lambda h: within(h.source), lambda h: within(h.destination))

    def _port(self, direction: str) -> _Test:
        if self._take("portrange"):
            low, dash, high = self._next("two ports like 8000-8010").partition("-")
            if not (dash and low.isdigit() and high.isdigit() and int(low) <= int(high) <= 65535):
                self._at -= 1
                raise self._fault("expected two ports like 8000-8010")
            first, last = int(low), int(high)
        elif self._take("port"):
            first = last = self._number("a port", 0, 65535)
        else:
            raise self._fault("expected `port`")
        return _either(
            direction,
            lambda h: h.ports is not None and first <= h.ports[0] <= last,
            lambda h: h.ports is not None and first <= h.ports[1] <= last,
        )


def _joined(left: _Test, right: _Test, both: bool) -> _Test:
    if both:
        return lambda headers: left(headers) and right(headers)
    return lambda headers: left(headers) or right(headers)


def _either(direction: str, source: _Test, destination: _Test) -> _Test:
    if direction == "src":
        return source
    if direction == "dst":
        return destination
    return _joined(source, destination, False)


def _broadcast(headers: _Headers) -> bool:
    return headers.frame[:6] == _BROADCAST


def _multicast(headers: _Headers) -> bool:
    return is_group_mac(headers.frame[:6])


def _inside(test: _Test) -> _Test:
    def within(headers: _Headers) -> bool:
        inner = _inner(headers)
        return inner is not None and test(inner)

    return within


def _inner(headers: _Headers) -> _Headers | None:
    """The frame in a VXLAN packet (RFC 7348 5), or None."""
    payload = headers.payload
    if headers.ports is None or headers.ports[1] not in _VXLAN_PORTS or len(payload) < 22 or not payload[0] & 8:
        return None
    return _look(payload[8:])


def _vni(headers: _Headers) -> int:
    return int.from_bytes(headers.payload[4:7], "big")
