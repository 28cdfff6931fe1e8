"""One line about a frame, as tcpdump would say it: who speaks to whom, of what, with which flags.

Our own, without Scapy: `emunet capture` starts at once and keeps up with the network.

Rule of this file: any bytes give a line; nothing is judged (that is the network's business).
"""

from __future__ import annotations

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


def frame_line(frame: bytes) -> str:
    """What a frame says, in one line without its time and port."""
    if len(frame) < 14:
        return f"a runt of {len(frame)} bytes: {frame.hex()}"
    return _link(frame, 12)


def _link(frame: bytes, at: int) -> str:
    """From the EtherType on."""
    ethertype = frame[at] << 8 | frame[at + 1]
    payload = frame[at + 2 :]
    if ethertype in (0x8100, 0x88A8) and len(payload) >= 4:
        return f"vlan {(payload[0] & 15) << 8 | payload[1]}, {_link(frame, at + 4)}"
    if ethertype == 0x0806 and len(payload) >= 28 and payload[:6] == bytes.fromhex("000108000604"):
        return _arp(payload)
    if ethertype == 0x0800 and len(payload) >= 20 and payload[0] >> 4 == 4:
        return _ipv4(payload)
    if ethertype == 0x86DD and len(payload) >= 40 and payload[0] >> 4 == 6:
        return _ipv6(payload)
    ends = f"{format_mac(frame[6:12])} > {format_mac(frame[:6])}"
    if ethertype <= 1500:
        return f"{ends}: 802.3, length {ethertype}"
    return f"{ends}: ethertype 0x{ethertype:04x}, length {len(payload)}"


def _arp(payload: bytes) -> str:
    operation = payload[6] << 8 | payload[7]
    sender, target = format_ip(payload[14:18]), format_ip(payload[24:28])
    if operation == 1:
        return f"ARP, announcement of {sender}" if sender == target else f"ARP, who has {target}? tell {sender}"
    if operation == 2:
        return f"ARP, {sender} is at {format_mac(payload[8:14])}"
    return f"ARP, operation {operation}"


def _ipv4(packet: bytes) -> str:
    header = max(20, (packet[0] & 15) * 4)
    length = packet[2] << 8 | packet[3]
    fragment = packet[6] << 8 | packet[7]
    ends = (format_ip(packet[12:16]), format_ip(packet[16:20]))
    payload = packet[header : max(header, min(length, len(packet)))]
    tail = f", ttl {packet[8]}"
    if fragment & 0x1FFF:
        more = "more to come" if fragment & 0x2000 else "the last"
        offset = (fragment & 0x1FFF) * 8
        return f"{ends[0]} > {ends[1]}: fragment at {offset} of id {packet[4] << 8 | packet[5]}, {more}{tail}"
    if fragment & 0x2000:
        tail = f", first fragment of id {packet[4] << 8 | packet[5]}{tail}"
    return _transport(packet[9], ends, payload, tail)


def _ipv6(packet: bytes) -> str:
    protocol, at = packet[6], 40
    ends = (format_ip(packet[8:24]), format_ip(packet[24:40]))
    tail = f", hop limit {packet[7]}"
    while protocol in (*_EXTENSIONS, 44) and at + 8 <= len(packet):
        if protocol == 44:
            offset = (packet[at + 2] << 8 | packet[at + 3]) & 0xFFF8
            identification = int.from_bytes(packet[at + 4 : at + 8], "big")
            if offset:
                return f"{ends[0]} > {ends[1]}: fragment at {offset} of id {identification}{tail}"
            tail = f", first fragment of id {identification}{tail}"
            protocol, at = packet[at], at + 8
        else:
            protocol, at = packet[at], at + 8 + packet[at + 1] * 8
    end = 40 + (packet[4] << 8 | packet[5])
    return _transport(protocol, ends, packet[at : max(at, end)], tail)


def _transport(protocol: int, ends: tuple[str, str], payload: bytes, tail: str) -> str:
    source, destination = ends
    if protocol in (1, 58) and len(payload) >= 8:
        return f"{source} > {destination}: {_icmp(protocol, payload)}{tail}"
    if protocol in (6, 17) and len(payload) >= 8:
        ports = payload[0] << 8 | payload[1], payload[2] << 8 | payload[3]
        ends_text = f"{_joined(source, ports[0])} > {_joined(destination, ports[1])}"
        if protocol == 17:
            return f"{ends_text}: {_udp(ports, payload)}{tail}"
        if len(payload) >= 20:
            return f"{ends_text}: {_tcp(payload)}{tail}"
    name = _PROTOCOLS.get(protocol, f"protocol {protocol}")
    return f"{source} > {destination}: {name}, length {len(payload)}{tail}"


def _joined(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _icmp(protocol: int, message: bytes) -> str:
    kind, code = message[0], message[1]
    names, family = (_ICMP, "ICMP") if protocol == 1 else (_ICMPV6, "ICMP6")
    name = names.get((kind, code)) or names.get((kind, None)) or f"type {kind} code {code}"
    text = f"{family} {name}"
    if (protocol, kind) in _ECHO:
        text += f", id {message[4] << 8 | message[5]}, seq {message[6] << 8 | message[7]}"
    elif protocol == 58 and kind in (135, 136) and len(message) >= 24:
        text += f", {'who has' if kind == 135 else 'target'} {format_ip(message[8:24])}"
    elif (protocol, kind, code) == (1, 3, 4):
        text += f", mtu {message[6] << 8 | message[7]}"
    elif (protocol, kind) == (58, 2):
        text += f", mtu {int.from_bytes(message[4:8], 'big')}"
    return f"{text}, length {len(message)}"


def _tcp(segment: bytes) -> str:
    header = max(20, (segment[12] >> 4) * 4)
    sequence, acknowledgment = int.from_bytes(segment[4:8], "big"), int.from_bytes(segment[8:12], "big")
    bits = segment[13]
    flags = "".join(letter for bit, letter in _TCP_FLAGS if bits & bit) or "none"
    length = max(0, len(segment) - header)
    span = f"{sequence}:{(sequence + length) & 0xFFFFFFFF}" if length else str(sequence)
    acknowledged = f", ack {acknowledgment}" if bits & 0x10 else ""
    return f"TCP [{flags}], seq {span}{acknowledged}, win {segment[14] << 8 | segment[15]}, length {length}"


def _udp(ports: tuple[int, int], datagram: bytes) -> str:
    text = f"UDP, length {max(0, (datagram[4] << 8 | datagram[5]) - 8)}"
    if ports[1] in _VXLAN_PORTS and len(datagram) >= 16 + 14:
        return f"VXLAN {int.from_bytes(datagram[12:15], 'big')} {{{frame_line(datagram[16:])}}}"
    return text
