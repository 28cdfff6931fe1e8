"""Translating and translating back is the identity, byte for byte, and what goes out is right by itself.

For both families, for TCP, UDP and echo, with checksums complete, left open (as a kernel
hands them over) and absent, and for ICMP errors that quote more or less of a translated
packet: whoever gets the error must find in it what it sent.
"""

from __future__ import annotations

from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from emunet.elements.connections import Connection, Flow
from emunet.elements.connections.flow import read, read_quoted
from emunet.elements.connections.translation import (
    error_from_source,
    error_to_destination,
    from_source,
    to_destination,
)
from emunet.packet import icmp, icmpv6, ipv4, ipv6, tcp, udp
from emunet.packet.checksum import ones_sum, pseudo_sum, transport_is_valid
from emunet.packet.edit import apply
from emunet.packet.offload import GSO_NONE, NEEDS_CSUM, Offload, complete
from emunet.packet.view import Packet

TCP, UDP, ICMP, ICMPV6 = ipv4.TCP, ipv4.UDP, ipv4.ICMP, ipv4.ICMPV6
SCTP, GRE = 132, 47
LINK = bytes.fromhex("020000000001020000000002")

ports = st.integers(0, 65535)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Connection, bytes, str]:
    """A translated connection, a packet of its original direction, and how its checksum is."""
    family = draw(st.sampled_from([4, 16]))
    addresses = st.binary(min_size=family, max_size=family)
    source, destination, new_source, new_destination = (draw(addresses) for _ in range(4))
    query = ICMP if family == 4 else ICMPV6
    protocol = draw(st.sampled_from([TCP, UDP, SCTP, query, GRE]))
    sport, dport = (draw(ports), draw(ports)) if protocol in (TCP, UDP, SCTP) else (0, 0)
    if protocol == query:
        sport, dport = draw(ports), (8 if family == 4 else 128) << 8
    original = Flow(source, destination, protocol, sport, dport)
    target = Flow(new_source, new_destination, protocol, sport, dport)
    if protocol in (TCP, UDP, query):
        target = target._replace(source_port=draw(ports))
    if protocol in (TCP, UDP):
        target = target._replace(destination_port=draw(ports))
    reply = target.inverted()
    assert reply is not None
    body, form = draw(bodies(original, family))
    return Connection(original, reply, 0), in_ip(original, body, draw), form


@st.composite
def bodies(draw: st.DrawFn, flow: Flow, family: int) -> tuple[bytes, str]:
    """What IP carries for a flow, and the form of its checksum."""
    data = draw(st.binary(max_size=60))
    source, destination = flow.source, flow.destination
    if flow.protocol == TCP:
        header = tcp.Tcp(flow.source_port, flow.destination_port, draw(ports), 5, tcp.ACK, 7)
        body, at = header.pack(source, destination, data), 16
    elif flow.protocol == UDP:
        body, at = udp.Udp(flow.source_port, flow.destination_port).pack(source, destination, data), 6
    elif flow.protocol == ICMP:
        return icmp.echo_request(flow.source_port, 1, data).pack(), "complete"
    elif flow.protocol == ICMPV6:
        return icmpv6.echo_request(flow.source_port, 1, data).pack(source, destination), "complete"
    elif flow.protocol == SCTP:  # its ports stay: they are under a checksum over the whole packet
        return flow.source_port.to_bytes(2, "big") + flow.destination_port.to_bytes(2, "big") + bytes(8) + data, "none"
    else:
        return data, "none"
    form = draw(st.sampled_from(["complete", "left open", "damaged", *(["absent"] if flow.protocol == UDP else [])]))
    if form == "left open":
        value = pseudo_sum(source, destination, flow.protocol, len(body))
        body = body[:at] + value.to_bytes(2, "big") + body[at + 2 :]
    elif form == "absent":
        body = body[:at] + bytes(2) + body[at + 2 :]
    elif form == "damaged":
        value = (int.from_bytes(body[at : at + 2], "big") + 1) % 65535 or 1
        body = body[:at] + value.to_bytes(2, "big") + body[at + 2 :]
    return body, form


def in_ip(flow: Flow, body: bytes, draw: Any) -> bytes:
    """The frame."""
    if len(flow.source) == 4:
        options = bytes((1,)) * (4 * draw(st.integers(0, 3)))
        header = ipv4.IPv4(flow.source, flow.destination, flow.protocol, identification=9, options=options)
        return LINK + b"\x08\x00" + header.pack(body)
    return LINK + b"\x86\xdd" + ipv6.IPv6(flow.source, flow.destination, flow.protocol).pack(body)


def moved(frame: bytes, target: Flow, *, partial: bool = False) -> bytes:
    """The frame with both sides as `target` has them."""
    packet = Packet(frame)
    reading = read(packet)
    assert reading is not None
    frame = apply(frame, to_destination(packet, reading[1], target), partial)
    return apply(frame, from_source(Packet(frame), reading[1], target), partial)


def fields(frame: bytes) -> tuple[int, bytes, int]:
    """Protocol, what IP carries, and where it begins in the frame."""
    packet = Packet(frame)
    at = 14 + packet.header_length
    return packet.protocol, frame[at:], at


@given(cases())
def test_there_and_back(case: tuple[Connection, bytes, str]) -> None:
    connection, frame, form = case
    partial = form == "left open"
    out = moved(frame, connection.target(is_reply=False), partial=partial)
    reading = read(Packet(out))
    assert reading is not None
    assert reading[0] == connection.target(is_reply=False)
    assert moved(out, connection.original, partial=partial) == frame
    assert moved(out, connection.target(is_reply=False), partial=partial) == out
    protocol, body, at = fields(out)
    packet = Packet(out)
    if packet.is_ipv4:
        assert ones_sum(out[14:at]) == 0xFFFF
    if partial:
        offload = Offload(NEEDS_CSUM, GSO_NONE, 0, 0, at, 16 if protocol == TCP else 6)
        body = complete(out, offload)[at:]
    if protocol in (TCP, UDP, ICMPV6) and form in ("complete", "left open"):
        assert transport_is_valid(packet.ip_source, packet.ip_destination, protocol, body)
    if form == "damaged" and protocol in (TCP, UDP):
        assert not transport_is_valid(packet.ip_source, packet.ip_destination, protocol, body)
    if form == "absent":
        assert body[6:8] == bytes(2)
    if protocol == ICMP:
        assert ones_sum(body) == 0xFFFF


@given(cases(), st.integers(8, 80), st.booleans())
def test_an_error_tells_its_receiver_what_it_sent(
    case: tuple[Connection, bytes, str], quoted: int, router: bool
) -> None:
    connection, frame, form = case
    assume(connection.original.protocol != GRE and form != "left open")
    out = moved(frame, connection.target(is_reply=False))
    _, _, at = fields(out)
    quote = out[14 : at + quoted]
    target = connection.target(is_reply=False)
    sender = bytes(range(1, 1 + len(target.source))) if router else target.destination
    error = error_frame(sender, target.source, quote)
    packet = Packet(error)
    _, _, body = fields(error)
    back = connection.target(is_reply=True)
    told = apply(error, error_to_destination(packet, body, back))
    told = apply(told, error_from_source(Packet(told), body, back))
    assert told[body + 8 :] == frame[14 : at + quoted]
    received = Packet(told)
    assert received.ip_destination == connection.original.source
    assert received.ip_source == connection.original.destination
    if received.is_ipv4:
        assert ones_sum(told[14:body]) == 0xFFFF
        assert ones_sum(told[body:]) == 0xFFFF
    else:
        assert transport_is_valid(received.ip_source, received.ip_destination, ICMPV6, told[body:])
    reading = read_quoted(told[body + 8 :])
    assert reading is not None
    assert reading[0] == connection.original


def error_frame(source: bytes, destination: bytes, quote: bytes) -> bytes:
    """An error about a packet."""
    if len(source) == 4:
        body = icmp.Icmp(icmp.UNREACHABLE, 3, bytes(4), quote).pack()
        return LINK + b"\x08\x00" + ipv4.IPv4(source, destination, ICMP).pack(body)
    message = icmpv6.Icmpv6(icmpv6.UNREACHABLE, 4, bytes(4), quote).pack(source, destination)
    return LINK + b"\x86\xdd" + ipv6.IPv6(source, destination, ICMPV6).pack(message)


@given(cases())
def test_a_reply_finds_the_way_back(case: tuple[Connection, bytes, str]) -> None:
    """What answers the translated packet is, translated, what answers the original one."""
    connection, _, _ = case
    reply = connection.target(is_reply=True)
    assert reply == connection.original.inverted()
    again = connection._replace(seen_reply=True)
    assert again.target(is_reply=False).inverted() == connection.reply
