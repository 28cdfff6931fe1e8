"""What a frame says, for people: who speaks to whom, of what, with which flags.

As a value (`summarize`), which pictures use, and as one line as tcpdump would say it
(`frame_line`). Our own, without Scapy: `emunet capture` starts at once and keeps up with
the network.

Rule of this file: any bytes give a summary; nothing is judged (that is the network's business).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from emunet.packet.address import format_ip, format_mac

_ICMP = {
    (0, None): "echo reply",
    (3, 0): "network unreachable",
    (3, 1): "host unreachable",
    (3, 2): "protocol unreachable",
    (3, 3): "port unreachable",
    (3, 4): "fragmentation needed",
    (3, 13): "administratively prohibited",
    (3, None): "unreachable",
    (5, None): "redirect",
    (8, None): "echo request",
    (11, 0): "time exceeded in transit",
    (11, 1): "reassembly time exceeded",
    (12, None): "parameter problem",
}
_ICMPV6 = {
    (1, 0): "no route to destination",
    (1, 1): "administratively prohibited",
    (1, 3): "address unreachable",
    (1, 4): "port unreachable",
    (1, None): "unreachable",
    (2, None): "packet too big",
    (3, None): "time exceeded",
    (4, None): "parameter problem",
    (128, None): "echo request",
    (129, None): "echo reply",
    (133, None): "router solicitation",
    (134, None): "router advertisement",
    (135, None): "neighbour solicitation",
    (136, None): "neighbour advertisement",
    (143, None): "multicast listener report",
}
_ECHO = {(1, 0), (1, 8), (58, 128), (58, 129)}
_PROTOCOLS = {
    1: "ICMP", 2: "IGMP", 4: "IPIP", 6: "TCP", 17: "UDP", 41: "IPv6", 47: "GRE", 50: "ESP", 51: "AH", 58: "ICMP6",
    89: "OSPF", 112: "VRRP", 132: "SCTP",
}  # fmt: skip
_TCP_FLAGS = ((0x02, "S"), (0x01, "F"), (0x04, "R"), (0x08, "P"), (0x20, "U"), (0x40, "E"), (0x80, "W"), (0x10, "."))
_EXTENSIONS = (0, 43, 60)
_VXLAN_PORTS = (4789, 8472)
_HTTP_VERBS = (b"GET ", b"PUT ", b"HEAD ", b"POST ", b"DELETE ", b"PATCH ", b"HTTP/1.")
_DNS_TYPES = {1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV", 255: "ANY"}
_DNS_ANSWERS_TOLD = 4
_DNS_ANSWERS = ("", "malformed question", "server failure", "no such name", "not implemented", "refused")


@dataclass(frozen=True, slots=True)
class Summary:
    """What a frame, or the packet in it, says.

    kind     arp, icmp, tcp, udp, vxlan, fragment, or other
    source   who speaks, as text: an address (a MAC where there is no IP), "" where it is part of `what`
    ports    of TCP and UDP; (0, 0) without
    what     what is said, without who to whom
    tail     what is said of the IP header
    size     bytes of payload above TCP or UDP
    hops     TTL or hop limit; None without an IP header
    asks     of ARP and neighbour discovery: the address that is asked for or spoken of
    within   what a tunnel carries
    message  of the application, where it is one that people read (DNS, HTTP); not part of the line
    tag      the VLAN tags before it, in words
    """

    kind: str
    source: str
    target: str
    what: str
    ports: tuple[int, int] = (0, 0)
    tail: str = ""
    size: int = 0
    hops: int | None = None
    asks: str = ""
    within: Summary | None = None
    message: str = ""
    tag: str = ""

    @property
    def said(self) -> str:
        """The application's message, behind tunnels too."""
        return self.message or (self.within.said if self.within is not None else "")

    @property
    def line(self) -> str:
        """As tcpdump would say it."""
        if not self.source:
            return f"{self.tag}{self.what}{self.tail}"
        ends = (self.source, self.target)
        if self.ports != (0, 0):
            ends = (_joined(self.source, self.ports[0]), _joined(self.target, self.ports[1]))
        what = self.what if self.within is None else f"{self.what} {{{self.within.line}}}"
        return f"{self.tag}{ends[0]} > {ends[1]}: {what}{self.tail}"


def frame_line(frame: bytes) -> str:
    """What a frame says, in one line without its time and port."""
    return summarize(frame).line


def summarize(frame: bytes) -> Summary:
    """What a frame says."""
    if len(frame) < 14:
        return Summary("other", "", "", f"a runt of {len(frame)} bytes: {frame.hex()}")
    at, tag = 12, ""
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8") and len(frame) >= at + 6:
        tag += f"vlan {(frame[at + 2] & 15) << 8 | frame[at + 3]}, "
        at += 4
    return replace(_link(frame, at), tag=tag) if tag else _link(frame, at)


def _link(frame: bytes, at: int) -> Summary:
    """From the EtherType on."""
    ethertype = int.from_bytes(frame[at : at + 2], "big")
    payload = frame[at + 2 :]
    if ethertype == 0x0806 and len(payload) >= 28 and payload[:6] == bytes.fromhex("000108000604"):
        return _arp(payload)
    if ethertype == 0x0800 and len(payload) >= 20 and payload[0] >> 4 == 4:
        return _ipv4(payload)
    if ethertype == 0x86DD and len(payload) >= 40 and payload[0] >> 4 == 6:
        return _ipv6(payload)
    ends = format_mac(frame[6:12]), format_mac(frame[:6])
    if ethertype <= 1500:
        return Summary("other", *ends, f"802.3, length {ethertype}")
    return Summary("other", *ends, f"ethertype 0x{ethertype:04x}, length {len(payload)}")


def _arp(payload: bytes) -> Summary:
    operation = payload[6] << 8 | payload[7]
    sender, target = format_ip(payload[14:18]), format_ip(payload[24:28])
    if operation == 1 and sender == target:
        return Summary("arp", "", "", f"ARP, announcement of {sender}")
    if operation == 1:
        return Summary("arp", "", "", f"ARP, who has {target}? tell {sender}", asks=target)
    if operation == 2:
        return Summary("arp", "", "", f"ARP, {sender} is at {format_mac(payload[8:14])}", asks=sender)
    return Summary("arp", "", "", f"ARP, operation {operation}")


def _ipv4(packet: bytes) -> Summary:
    header = max(20, (packet[0] & 15) * 4)
    length = packet[2] << 8 | packet[3]
    fragment = packet[6] << 8 | packet[7]
    ends = (format_ip(packet[12:16]), format_ip(packet[16:20]))
    payload = packet[header : max(header, min(length, len(packet)))]
    hops = packet[8]
    tail = f", ttl {hops}"
    if fragment & 0x1FFF:
        more = "more to come" if fragment & 0x2000 else "the last"
        offset = (fragment & 0x1FFF) * 8
        what = f"fragment at {offset} of id {packet[4] << 8 | packet[5]}, {more}"
        return Summary("fragment", *ends, what, tail=tail, size=len(payload), hops=hops)
    if fragment & 0x2000:
        tail = f", first fragment of id {packet[4] << 8 | packet[5]}{tail}"
    return _transport(packet[9], ends, payload, tail, hops)


def _ipv6(packet: bytes) -> Summary:
    protocol, at = packet[6], 40
    ends = (format_ip(packet[8:24]), format_ip(packet[24:40]))
    hops = packet[7]
    tail = f", hop limit {hops}"
    while protocol in (*_EXTENSIONS, 44) and at + 8 <= len(packet):
        if protocol == 44:
            offset = (packet[at + 2] << 8 | packet[at + 3]) & 0xFFF8
            identification = int.from_bytes(packet[at + 4 : at + 8], "big")
            if offset:
                what = f"fragment at {offset} of id {identification}"
                return Summary("fragment", *ends, what, tail=tail, size=len(packet) - at - 8, hops=hops)
            tail = f", first fragment of id {identification}{tail}"
            protocol, at = packet[at], at + 8
        else:
            protocol, at = packet[at], at + 8 + packet[at + 1] * 8
    end = 40 + (packet[4] << 8 | packet[5])
    return _transport(protocol, ends, packet[at : max(at, end)], tail, hops)


def _transport(protocol: int, ends: tuple[str, str], payload: bytes, tail: str, hops: int) -> Summary:
    if protocol in (1, 58) and len(payload) >= 8:
        what, asks = _icmp(protocol, payload)
        return Summary("icmp", *ends, what, tail=tail, size=len(payload) - 8, hops=hops, asks=asks)
    if protocol in (6, 17) and len(payload) >= 8:
        ports = payload[0] << 8 | payload[1], payload[2] << 8 | payload[3]
        if protocol == 17:
            return _udp(ends, ports, payload, tail, hops)
        if len(payload) >= 20:
            data = payload[max(20, (payload[12] >> 4) * 4) :]
            what = _tcp(payload)
            return Summary("tcp", *ends, what, ports, tail, len(data), hops, message=_http(data))
    name = _PROTOCOLS.get(protocol, f"protocol {protocol}")
    return Summary("other", *ends, f"{name}, length {len(payload)}", tail=tail, size=len(payload), hops=hops)


def _joined(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _icmp(protocol: int, message: bytes) -> tuple[str, str]:
    """What it says, and the address that it speaks of."""
    kind, code = message[0], message[1]
    names, family = (_ICMP, "ICMP") if protocol == 1 else (_ICMPV6, "ICMP6")
    name = names.get((kind, code)) or names.get((kind, None)) or f"type {kind} code {code}"
    text, asks = f"{family} {name}", ""
    if (protocol, kind) in _ECHO:
        text += f", id {message[4] << 8 | message[5]}, seq {message[6] << 8 | message[7]}"
    elif protocol == 58 and kind in (135, 136) and len(message) >= 24:
        asks = format_ip(message[8:24])
        text += f", {'who has' if kind == 135 else 'target'} {asks}"
    elif (protocol, kind, code) == (1, 3, 4):
        text += f", mtu {message[6] << 8 | message[7]}"
    elif (protocol, kind) == (58, 2):
        text += f", mtu {int.from_bytes(message[4:8], 'big')}"
    return f"{text}, length {len(message)}", asks


def _tcp(segment: bytes) -> str:
    header = max(20, (segment[12] >> 4) * 4)
    sequence, acknowledgment = int.from_bytes(segment[4:8], "big"), int.from_bytes(segment[8:12], "big")
    bits = segment[13]
    flags = "".join(letter for bit, letter in _TCP_FLAGS if bits & bit) or "none"
    length = max(0, len(segment) - header)
    span = f"{sequence}:{(sequence + length) & 0xFFFFFFFF}" if length else str(sequence)
    acknowledged = f", ack {acknowledgment}" if bits & 0x10 else ""
    return f"TCP [{flags}], seq {span}{acknowledged}, win {segment[14] << 8 | segment[15]}, length {length}"


def _udp(ends: tuple[str, str], ports: tuple[int, int], datagram: bytes, tail: str, hops: int) -> Summary:
    size = max(0, (datagram[4] << 8 | datagram[5]) - 8)
    if ports[1] in _VXLAN_PORTS and len(datagram) >= 16 + 14:
        network = int.from_bytes(datagram[12:15], "big")
        within = summarize(datagram[16:])
        return Summary("vxlan", *ends, f"VXLAN {network}", ports, tail, size, hops, within=within)
    message = _dns(datagram[8:]) if 53 in ports else ""
    return Summary("udp", *ends, f"UDP, length {size}", ports, tail, size, hops, message=message)


def _http(data: bytes) -> str:
    """The first line of a request or an answer."""
    if not data.startswith(_HTTP_VERBS):
        return ""
    return _printable(data[:200].split(b"\r\n", 1)[0])


def _printable(data: bytes) -> str:
    """ASCII as it is, and `?` for what a terminal might obey."""
    return "".join(chr(byte) if 32 <= byte < 127 else "?" for byte in data)


def _dns(message: bytes) -> str:
    """The question, and what is answered: `DNS A web?`, `DNS A web: 10.96.0.80`."""
    if len(message) < 17 or not message[5]:
        return ""
    at, labels = 12, []
    while at < len(message) and 0 < message[at] < 64:
        labels.append(_printable(message[at + 1 : at + 1 + message[at]]))
        at += 1 + message[at]
    if at + 3 > len(message) or message[at]:
        return ""
    kind = message[at + 1] << 8 | message[at + 2]
    question = f"DNS {_DNS_TYPES.get(kind, f'type {kind}')} {'.'.join(labels) or '.'}"
    if not message[2] & 0x80:
        return f"{question}?"
    if code := message[3] & 15:
        return f"{question}: {_DNS_ANSWERS[code] if code < len(_DNS_ANSWERS) else f'code {code}'}"
    answers = message[6] << 8 | message[7]
    told = _dns_answers(message, at + 5, min(answers, _DNS_ANSWERS_TOLD))
    if answers > len(told):
        told.append(f"{answers - len(told)} more")
    return f"{question}: {', '.join(told) or 'no such record'}"


def _dns_answers(message: bytes, at: int, count: int) -> list[str]:
    """What the records from `at` on say: addresses, and of others the type; fewer where the message is cut."""
    told: list[str] = []
    while len(told) < count:
        while at < len(message) and 0 < message[at] < 64:
            at += 1 + message[at]
        at += 2 if at < len(message) and message[at] else 1  # a pointer, or the root
        if at + 10 > len(message):
            break
        kind, length = message[at] << 8 | message[at + 1], message[at + 8] << 8 | message[at + 9]
        data = message[at + 10 : at + 10 + length]
        if (kind, len(data)) in ((1, 4), (28, 16)):
            told.append(format_ip(data))
        else:
            told.append(_DNS_TYPES.get(kind, f"type {kind}"))
        at += 10 + length
    return told
