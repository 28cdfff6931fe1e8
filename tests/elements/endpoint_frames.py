"""An endpoint with one peer and one gateway, and the frames that its tests send it."""

from __future__ import annotations

import pytest

from emunet.elements.endpoint import Endpoint
from emunet.packet import arp
from emunet.packet.address import (
    BROADCAST_MAC,
    InterfaceAddress,
    multicast_mac,
    parse_ip,
    parse_mac,
    solicited_node,
)
from emunet.packet.arp import Arp
from emunet.packet.ethernet import Ethernet, build
from emunet.packet.icmpv6 import Icmpv6, NeighborAdvertisement, NeighborSolicitation
from emunet.packet.ipv6 import IPv6

US, PEER, GATE = parse_mac("02:00:00:00:00:01"), parse_mac("02:00:00:00:00:02"), parse_mac("02:00:00:00:00:fe")
OUR4, PEER4, GATE4, FAR4 = (parse_ip(text) for text in ("10.0.0.1", "10.0.0.2", "10.0.0.254", "192.0.2.9"))
OUR6, PEER6, GATE6, FAR6 = (parse_ip(text) for text in ("fd00::1", "fd00::2", "fd00::fe", "2001:db8::9"))
BOTH = pytest.mark.parametrize(("our", "peer"), [(OUR4, PEER4), (OUR6, PEER6)], ids=["v4", "v6"])


def pod(mtu: int = 1500) -> Endpoint:
    addresses = (InterfaceAddress(OUR4, 24), InterfaceAddress(OUR6, 64))
    return Endpoint("web-1", US, addresses, (GATE4, GATE6), mtu)


def frame(packet: bytes, dst: bytes = US, src: bytes = PEER) -> bytes:
    return build(dst, src, 0x86DD if packet[0] >> 4 == 6 else 0x0800, packet)


def request_for(target: bytes, mac: bytes = PEER, sender: bytes | None = None, dst: bytes | None = None) -> bytes:
    """An ARP request or a neighbour solicitation, as an unresolved neighbour sends it."""
    if len(target) == 4:
        return arp.request(mac, PEER4 if sender is None else sender, target, dst or BROADCAST_MAC)
    group, sender = solicited_node(target), PEER6 if sender is None else sender
    question = NeighborSolicitation(target, None if not any(sender) else mac)
    return frame(IPv6(sender, group, 58, 255).pack(question.pack(sender, group)), dst or multicast_mac(group), mac)


def answer_from(address: bytes, mac: bytes = PEER) -> bytes:
    """The reply to our own request."""
    if len(address) == 4:
        return arp.reply(mac, address, US, OUR4)
    news = NeighborAdvertisement(address, mac, solicited=True, override=True)
    return frame(IPv6(address, OUR6, 58, 255).pack(news.pack(address, OUR6)), US, mac)


def knowing(mtu: int = 1500) -> Endpoint:
    """A pod that has resolved its peer and its gateways."""
    us = pod(mtu)
    for address, mac in ((PEER4, PEER), (PEER6, PEER), (GATE4, GATE), (GATE6, GATE)):
        us.resolve(address, 0)
        us.receive(answer_from(address, mac), 0)
        assert us.mac_of(address) == mac
    return us


def target_of(request: bytes) -> tuple[bytes, bytes]:
    """(Ethernet destination, address asked for) of an ARP request or a solicitation."""
    header, payload = Ethernet.parse(request)
    if header.ethertype == 0x0806:
        return header.dst, Arp.parse(payload).target_ip
    ip, message = IPv6.parse(payload)
    assert ip.hop_limit == 255
    return header.dst, NeighborSolicitation.parse(Icmpv6.parse(ip.src, ip.dst, message)).target
