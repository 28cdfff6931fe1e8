"""Hypothesis strategies: topologies, frames and traffic, for properties that must hold in all of them.

    from emunet.testing import Lab
    from emunet.testing.strategies import sends, topologies

    @given(topologies(), st.data())
    def test_every_frame_is_accounted_for(topology, data):
        with Lab(topology) as lab:
            for send in data.draw(st.lists(sends(lab))):
                send.into(lab)
            assert set(lab.plane.balance().values()) == {0}

Rule of this file: what is drawn is plain text and bytes, so that a failing example can be
copied into a test; everything a topology strategy gives is a topology that loads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

try:
    from hypothesis import strategies as st
except ImportError as error:  # pragma: no cover - told where the extra is missing
    raise ImportError("emunet.testing.strategies needs hypothesis: pip install 'emunet[test]'") from error

from emunet.packet import icmp, icmpv6, ipv4, ipv6, tcp, udp
from emunet.packet.address import parse_ip, parse_mac

if TYPE_CHECKING:
    from emunet.testing.lab import Lab

MS = 1_000_000
_BROADCAST = b"\xff" * 6


@st.composite
def impairments(draw: st.DrawFn) -> dict[str, str]:
    """Settings of a link in the words of `emunet link`; often none."""
    settings: dict[str, str] = {}
    delay = draw(st.sampled_from([0, 0, 1, 20, 200]))
    if delay:
        settings["delay"] = f"{delay}ms"
        if draw(st.booleans()):
            settings["jitter"] = f"{draw(st.integers(0, delay))}ms"
    for name in ("loss", "duplicate", "reorder", "corrupt"):
        share = draw(st.sampled_from([0, 0, 0, 1, 10, 50]))
        if share:
            settings[name] = f"{share}%"
    if draw(st.integers(0, 3)) == 0:
        settings["rate"] = f"{draw(st.sampled_from([64, 1000, 10000]))}kbit"
        settings["queue"] = str(draw(st.integers(1, 100)))
    return settings


@st.composite
def topologies(
    draw: st.DrawFn, *, hosts: int = 4, pods: int = 6, impaired: bool = False, dual_stack: bool = True
) -> str:
    """A topology as YAML text: a tree of switches, hosts on them, pods on those. At most so many hosts and pods."""
    number = draw(st.integers(1, hosts))
    names = [f"host{index}" for index in range(1, number + 1)]
    switches = [f"switch{index}" for index in range(1, draw(st.integers(1, 3)) + 1)]
    links = [(draw(st.sampled_from(switches[:index])), switch) for index, switch in enumerate(switches) if index]
    links += [(host, draw(st.sampled_from(switches))) for host in names]
    lines = ["apiVersion: emunet/v1", "kind: Topology", "metadata: {name: drawn}", "spec:"]
    both = dual_stack and draw(st.booleans())
    if both:
        lines.append("  podCIDRs: [10.244.0.0/16, 'fd00:10:244::/56']")
    lines.append(f"  overlay: {draw(st.sampled_from(['vxlan', 'host-gw']))}")
    lines += [f"  hosts: [{', '.join(names)}]", f"  switches: [{', '.join(switches)}]", "  links:"]
    for a, b in links:
        settings = draw(impairments()) if impaired else {}
        words = "".join(f", {name}: {value}" for name, value in settings.items())
        lines.append(f"    - {{a: {a}, b: {b}{words}}}")
    for index in range(1, draw(st.integers(min(2, pods), pods)) + 1):
        host = draw(st.sampled_from(names))
        lines += ["---", "apiVersion: v1", "kind: Pod", f"metadata: {{name: pod-{index}}}"]
        lines.append(f"spec: {{nodeName: {host}, containers: [{{name: c, image: x}}]}}")
    return "\n".join(lines) + "\n"


@st.composite
def packets(draw: st.DrawFn, source: bytes, destination: bytes) -> bytes:
    """An IP packet of either family: UDP, TCP with any flags, echo, or another protocol; any TTL, size and port."""
    data = bytes(draw(st.sampled_from([0, 1, 18, 100, 1000, 1400, 3000])))
    ports = draw(st.integers(1, 65535)), draw(st.sampled_from([7, 53, 80, 443, 4789, 33434]))
    kind = draw(st.sampled_from(["udp", "tcp", "echo", "other"]))
    if kind == "udp":
        protocol, body = ipv4.UDP, udp.Udp(*ports).pack(source, destination, data)
    elif kind == "tcp":
        header = tcp.Tcp(*ports, draw(st.integers(0, 2**32 - 1)), 0, draw(st.integers(0, 63)), 65535)
        protocol, body = ipv4.TCP, header.pack(source, destination, data)
    elif kind == "other":
        protocol, body = draw(st.sampled_from([47, 89, 132, 253])), data
    elif len(source) == 4:
        protocol, body = ipv4.ICMP, icmp.echo_request(*ports, data).pack()
    else:
        protocol, body = ipv4.ICMPV6, icmpv6.echo_request(*ports, data).pack(source, destination)
    ttl = draw(st.sampled_from([64, 64, 64, 255, 2, 1, 0]))
    if len(source) == 16:
        return ipv6.IPv6(source, destination, protocol, ttl).pack(body)
    header4 = ipv4.IPv4(
        source, destination, protocol, ttl, identification=draw(st.integers(0, 65535)),
        dont_fragment=draw(st.booleans()),
    )  # fmt: skip
    return header4.pack(body)


@st.composite
def frames(draw: st.DrawFn, macs: Sequence[bytes], addresses: Sequence[bytes]) -> bytes:
    """An Ethernet frame between stations: IP of either family, ARP, something unknown, noise; now and then damaged."""
    source, destination = draw(st.sampled_from(list(macs))), draw(st.sampled_from([*macs, _BROADCAST]))
    kind = draw(st.sampled_from(["ip", "ip", "ip", "arp", "unknown", "noise"]))
    if kind == "noise":
        return draw(st.binary(min_size=0, max_size=120))
    if kind == "unknown":
        return destination + source + b"\x88\xb5" + draw(st.binary(min_size=0, max_size=100))
    one = draw(st.sampled_from(list(addresses)))
    family = [address for address in addresses if len(address) == len(one)]
    other = draw(st.sampled_from([*family, *([bytes((10, 9, 9, 9))] if len(one) == 4 else [])]))
    if kind == "arp" and len(one) == 4:
        operation = draw(st.sampled_from([b"\x00\x01", b"\x00\x02"]))
        head = destination + source + b"\x08\x06" + b"\x00\x01\x08\x00\x06\x04"
        frame = head + operation + source + one + bytes(6) + other + bytes(18)
    else:
        ethertype = b"\x08\x00" if len(one) == 4 else b"\x86\xdd"
        frame = destination + source + ethertype + draw(packets(one, other))
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(frame) - 1))
        frame = frame[:at] + bytes((frame[at] ^ draw(st.integers(1, 255)),)) + frame[at + 1 :]
    return frame


@dataclass(frozen=True)
class Send:
    """A pod sends: a frame as it is, or an IP packet by its own routing; `after` ns after the one before."""

    pod: str
    data: bytes
    is_frame: bool
    after: int

    def into(self, lab: Lab) -> None:
        """Let it happen."""
        lab.clock.advance(self.after / 1e9)
        pod = lab.pod(self.pod)
        if self.is_frame:
            pod.send(self.data)
        else:
            pod.send_ip(self.data)


@st.composite
def sends(draw: st.DrawFn, lab: Lab) -> Send:
    """One thing that a pod of a lab sends: mostly packets to other pods, now and then any frame."""
    pods = lab.pods
    pod = draw(st.sampled_from(pods))
    after = draw(st.sampled_from([0, 0, 1000, MS, 100 * MS, 5000 * MS]))
    if draw(st.integers(0, 3)) == 0:
        macs = [parse_mac(one.mac) for one in pods]
        addresses = [parse_ip(address) for one in pods for address in one.ips]
        return Send(pod.port, draw(frames(macs, addresses)), True, after)
    other = draw(st.sampled_from(pods))
    own = [parse_ip(address) for address in pod.ips]
    target = draw(st.sampled_from([parse_ip(address) for address in other.ips]))
    source = next((address for address in own if len(address) == len(target)), None)
    if source is None:
        source, target = own[0], bytes((10, 9, 9, 9)) if len(own[0]) == 4 else parse_ip("2001:db8::1")
    return Send(pod.port, draw(packets(source, target)), False, after)


def traffic(lab: Lab, *, most: int = 30) -> Any:
    """A list of what the pods of a lab send, one after the other."""
    return st.lists(sends(lab), max_size=most)
