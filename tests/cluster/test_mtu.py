"""What fits: the pods' MTU follows from the overlay, and a link that is too narrow is warned about, not cut for."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP

from emunet.testing import Lab

TOPOLOGY = """apiVersion: emunet/v1
kind: Topology
metadata: {{name: narrow}}
spec:
  overlay: {overlay}
  underlay: {{mtu: {underlay}}}
  hosts: [host1, host2]
  switches: [leaf1, leaf2]
  links:
  - {{a: host1, b: leaf1, mtu: {first}}}
  - {{a: host2, b: leaf2, mtu: {second}}}
  - {{a: leaf1, b: leaf2, mtu: {middle}}}
"""
PODS = "".join(
    f"---\napiVersion: v1\nkind: Pod\nmetadata: {{name: web-{number}}}\n"
    f"spec: {{nodeName: host{number}, containers: [{{name: main, image: none}}]}}\n"
    for number in (1, 2)
)


def lab(overlay: str = "vxlan", underlay: int = 1500, first: int = 1500, second: int = 1500, middle: int = 1500) -> Lab:
    topology = TOPOLOGY.format(overlay=overlay, underlay=underlay, first=first, second=second, middle=middle)
    return Lab(topology + PODS)


@pytest.mark.parametrize(
    ("overlay", "wire", "pod"), [("vxlan", 1500, 1450), ("vxlan", 9000, 8950), ("host-gw", 1500, 1500)]
)
def test_the_pods_mtu_follows_from_the_overlay(overlay: str, wire: int, pod: int) -> None:
    with lab(overlay, wire, wire, wire, wire) as one:
        assert one.warnings == ()
        assert {edge.mtu for edge in one.plane.world.config.pods} == {pod}
        fits = one.trace("web-1", IP(dst=one.pod("web-2").ip, flags="DF") / ICMP() / bytes(pod - 28))
        assert fits.verdict == "delivered"


@pytest.mark.parametrize(
    ("mtus", "place", "words"),
    [
        (
            {"middle": 1400},
            "spec.links[2].mtu",
            "leaf1--leaf2 carries packets of up to 1400 bytes, and host1 sends up to 1500",
        ),
        (
            {"second": 1400},
            "spec.links[1].mtu",
            "host2--leaf2 carries packets of up to 1400 bytes, and host1 sends up to 1500",
        ),
    ],
)
def test_a_link_that_is_too_narrow_is_warned_about(mtus: dict[str, int], place: str, words: str) -> None:
    with lab(**mtus) as one:
        [warning] = one.warnings
        assert place in str(warning)
        assert words in str(warning)
        lost = one.trace("web-1", IP(dst=one.pod("web-2").ip) / ICMP() / bytes(1422))
        assert lost.reason.name == "OVERSIZED", "a switch never cuts, whatever the packet allows"
        assert one.trace("web-1", IP(dst=one.pod("web-2").ip) / ICMP() / bytes(1300)).verdict == "delivered"


def test_where_all_is_narrow_all_fits() -> None:
    with lab(underlay=1400, first=1400, second=1400, middle=1400) as one:
        assert one.warnings == ()
    with lab(first=1400, second=1400, middle=1500) as one:
        assert one.warnings == (), "a wide link between narrow ones is no fault"
