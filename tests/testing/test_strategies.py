"""The strategies that others write properties with: what they give can be used, and is varied."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emunet.packet.address import parse_ip, parse_mac
from emunet.testing import Lab
from emunet.testing.strategies import frames, impairments, topologies, traffic

SLOW = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@SLOW
@given(topologies(impaired=True), st.data())
def test_every_frame_of_any_traffic_in_any_topology_is_accounted_for(topology: str, data: st.DataObject) -> None:
    with Lab(topology) as lab:
        for send in data.draw(traffic(lab, most=15)):
            send.into(lab)
        lab.clock.advance(120)
        assert set(lab.plane.balance().values()) == {0}


@SLOW
@given(topologies(hosts=3, pods=4))
def test_pods_of_any_plain_topology_reach_each_other(topology: str) -> None:
    with Lab(topology) as lab:
        for pong in lab.ping_all():
            assert pong, (topology, pong)
        lab.assert_no_drops(except_for=("BRIDGE_NO_PORT", "BRIDGE_FILTERED"))  # a switch has nobody else to flood to


@given(impairments())
def test_impairments_are_such_as_a_link_takes(settings: dict[str, str]) -> None:
    with Lab("apiVersion: emunet/v1\nkind: Topology\nmetadata: {name: l}\nspec: {hosts: [a]}\n") as lab:
        lab.link("a--switch1", **settings)


def test_frames_are_varied() -> None:
    seen: set[bytes] = set()
    macs = [parse_mac("02:00:00:00:00:01"), parse_mac("02:00:00:00:00:02")]

    @settings(max_examples=300, derandomize=True, database=None)
    @given(frames(macs, [parse_ip("10.0.0.1"), parse_ip("10.0.0.2"), parse_ip("fd00::1")]))
    def draw(frame: bytes) -> None:
        seen.add(frame[12:14])

    draw()
    assert {b"\x08\x00", b"\x86\xdd", b"\x08\x06", b"\x88\xb5"} <= seen
