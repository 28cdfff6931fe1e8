"""Addresses are given once, kept, and not used again at once."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from emunet.cluster import assign as module
from emunet.cluster.assign import Allocation, assign, derive_mac
from emunet.cluster.build import build
from emunet.cluster.desired import Desired
from emunet.cluster.load import BadInput, load_text
from emunet.packet.address import format_mac, is_group_mac, parse_mac


def desire(*pods: str | dict[str, Any], **spec: Any) -> Desired:
    """A cluster (one host unless `spec` says otherwise) with these pods: names, or names with annotations."""
    objects: list[dict[str, Any]] = [
        {
            "apiVersion": "emunet/v1",
            "kind": "Topology",
            "metadata": {"name": "lab"},
            "spec": {"hosts": ["host1"], **spec},
        }
    ]
    for pod in pods:
        given: dict[str, Any] = {"name": pod} if isinstance(pod, str) else dict(pod)
        inner: dict[str, Any] = given.pop("spec", {})
        objects.append(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": given,
                "spec": {"containers": [{"name": "a", "image": "b"}], **inner},
            }
        )
    return build(load_text("\n---\n".join(map(json.dumps, objects)), "lab.yaml"))


def fixed(name: str, **annotations: str) -> dict[str, Any]:
    """A pod with emunet annotations."""
    return {"name": name, "annotations": {f"emunet/{key}": value for key, value in annotations.items()}}


def addresses(allocation: Allocation) -> dict[str, str]:
    """Each pod's addresses as text."""
    return {pod.port: " ".join(map(str, pod.addresses)) for pod in allocation.pods}


def test_the_first_pod_has_the_third_address() -> None:
    assert addresses(assign(desire("web-1", "web-2"))) == {"web-1": "10.244.1.2/24", "web-2": "10.244.1.3/24"}


def test_both_families_are_given() -> None:
    desired = desire("a", podCIDRs=["fd00:10:244::/48", "10.244.0.0/16"])
    assert addresses(assign(desired)) == {"a": "10.244.1.2/24 fd00:10:244:1::2/64"}


def test_nobody_is_renumbered_when_others_come_and_go() -> None:
    first = assign(desire("b", "d"))
    second = assign(desire("a", "b", "c", "d"), first)
    third = assign(desire("c", "d"), second)
    assert addresses(second) == {"a": "10.244.1.4/24", "b": "10.244.1.2/24", "c": "10.244.1.5/24", "d": "10.244.1.3/24"}
    assert addresses(third) == {"c": "10.244.1.5/24", "d": "10.244.1.3/24"}


@pytest.mark.rule("CNI-08", element="round-robin")
def test_a_freed_address_is_used_again_only_after_the_rest() -> None:
    given: list[str] = []
    allocation = Allocation()
    for round_number in range(8):
        allocation = assign(desire(f"pod-{round_number}", nodeMasks={"IPv4": 29}), allocation)
        given += addresses(allocation).values()
    # Of 10.244.0.8/29: .8 is the network's (and flannel.1's), .9 the gateway, .15 the broadcast address.
    assert [address.removesuffix("/29") for address in given] == [
        f"10.244.0.{last}" for last in (10, 11, 12, 13, 14, 10, 11, 12)
    ]


def test_the_same_name_again_is_a_new_address_and_the_same_mac() -> None:
    first = assign(desire("a"))
    again = assign(desire("a"), assign(desire(), first))
    assert addresses(again) == {"a": "10.244.1.3/24"}
    assert again.pod("a").mac == first.pod("a").mac


def test_a_fixed_address_is_left_out_for_the_others() -> None:
    desired = desire("a", "b", fixed("c", ip="10.244.1.2"), fixed("d", mac="02:00:00:00:00:01"))
    allocation = assign(desired)
    assert addresses(allocation) == {
        "a": "10.244.1.3/24",
        "b": "10.244.1.4/24",
        "c": "10.244.1.2/24",
        "d": "10.244.1.5/24",
    }
    assert format_mac(allocation.pod("d").mac) == "02:00:00:00:00:01"


def test_one_family_may_be_fixed_and_the_other_given() -> None:
    desired = desire(fixed("a", ip="fd00:10:244:1::99"), podCIDRs=["10.244.0.0/16", "fd00:10:244::/48"])
    assert addresses(assign(desired)) == {"a": "10.244.1.2/24 fd00:10:244:1::99/64"}


def test_pods_may_swap_what_they_fix() -> None:
    before = assign(desire(fixed("a", ip="10.244.1.7"), fixed("b", ip="10.244.1.8")))
    after = assign(desire(fixed("a", ip="10.244.1.8"), fixed("b", ip="10.244.1.7")), before)
    assert addresses(after) == {"a": "10.244.1.8/24", "b": "10.244.1.7/24"}


def test_what_another_pod_has_cannot_be_fixed() -> None:
    before = assign(desire("a"))
    mac = format_mac(before.pod("a").mac)
    with pytest.raises(BadInput) as error:
        assign(desire("a", fixed("b", ip="10.244.1.2")), before)
    assert str(error.value) == ("lab.yaml:5:58: metadata.name: b: it asks for the address 10.244.1.2, which a has")
    with pytest.raises(BadInput) as error:
        assign(desire("a", fixed("b", mac=mac)), before)
    assert str(error.value) == f"lab.yaml:5:58: metadata.name: b: it asks for the MAC address {mac}, which a has"


def test_a_pod_that_moves_gets_an_address_of_its_new_host() -> None:
    where = [{"name": "a", "spec": {"nodeName": f"host{number}"}} for number in (1, 2)]
    before = assign(desire(where[0], hosts=["host1", "host2"]))
    after = assign(desire(where[1], hosts=["host1", "host2"]), before)
    assert addresses(after) == {"a": "10.244.2.2/24"}
    assert after.pod("a").mac == before.pod("a").mac


def test_an_address_that_its_smaller_range_reserves_is_given_up() -> None:
    before = assign(desire(fixed("a", ip="10.244.1.127"), hosts=[{"name": "host1", "podCIDR": "10.244.1.0/24"}]))
    after = assign(desire("a", hosts=[{"name": "host1", "podCIDR": "10.244.1.0/25"}]), before)
    assert addresses(after) == {"a": "10.244.1.2/25"}  # .127 is the broadcast address now


def test_a_pod_in_its_hosts_network_gets_nothing() -> None:
    assert assign(desire({"name": "a", "spec": {"hostNetwork": True}})).pods == ()


def test_a_range_that_is_used_up_is_said() -> None:
    wished = desire("a", "b", nodeMasks={"IPv4": 30}, hosts=["host1", "host2"])
    crowded = replace(wished, pods=tuple(replace(pod, host="host1") for pod in wished.pods))
    with pytest.raises(BadInput) as error:
        assign(crowded)
    assert str(error.value) == (
        "lab.yaml:5:58: metadata.name: b: no address is left for it on host1: all of 10.244.0.4/30 are given out"
    )


def test_macs_are_of_one_machine_and_locally_administered() -> None:
    allocation = assign(desire(*(f"pod-{number}" for number in range(50)), hosts=["host1", "host2"]))
    macs = [pod.mac for pod in allocation.pods] + [mac for _, mac in allocation.interfaces]
    assert len(set(macs)) == 56
    assert all(mac[0] & 2 and not is_group_mac(mac) and len(mac) == 6 for mac in macs)


def test_macs_come_of_the_seed_and_the_name() -> None:
    one, same, other = (assign(desire("a"), seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one.pod("a").mac != other.pod("a").mac
    assert one.pod("a").mac == derive_mac(1, "a")
    assert dict(one.interfaces)["host1:flannel.1"] == derive_mac(1, "host1:flannel.1")


def test_macs_are_kept_even_if_the_seed_changes() -> None:
    first = assign(desire("a"), seed=1)
    assert assign(desire("a"), first, seed=2) == first


def test_macs_that_collide_are_derived_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "derive_mac", lambda seed, name, attempt=0: bytes((2, 0, 0, 0, 0, attempt)))
    allocation = assign(desire("a", "b", fixed("c", mac="02:00:00:00:00:01")))
    macs = [*dict(allocation.interfaces).values(), *(pod.mac for pod in allocation.pods)]
    assert len(set(macs)) == len(macs) == 6
    assert allocation.pod("c").mac == parse_mac("02:00:00:00:00:01")


def test_an_unknown_pod_has_nothing() -> None:
    with pytest.raises(KeyError):
        assign(desire("a")).pod("b")
