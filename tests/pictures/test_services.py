"""Services in the picture of a network: what leads to each, who stands behind it, and what is left out."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from emunet.lab.lab import Lab
from emunet.pictures.network import Network, Pod, Service
from emunet.pictures.network_svg import network_svg
from emunet.pictures.network_text import length, network_lines
from emunet.pictures.services import services

ROOT = Path(__file__).parent.parent.parent
SVG = "{http://www.w3.org/2000/svg}"


def in_a_lab(topology: str) -> dict[str, Service]:
    """The Services of a lab as pictures see them."""
    with Lab(ROOT / "topologies" / topology) as lab:
        return {one.name: one for one in services(lab.objects("services"), lab.objects("endpointslices"))}


def said(*shown: Service, width: int = 200) -> str:
    lines = network_lines(Network("x", "", (), (), shown), width)
    return "\n".join("".join(text for text, _ in line).rstrip() for line in lines)


def words(*shown: Service) -> list[str]:
    return [
        node.text or ""
        for node in ElementTree.fromstring(network_svg(Network("x", "", (), (), shown))).iter(f"{SVG}text")
    ]


def test_what_leads_to_a_service_is_told_way_by_way() -> None:
    found = in_a_lab("services.yaml")
    assert list(found) == ["balanced", "idle", "web", "kube-system/kube-dns"], "the people's before the lab's own"
    assert found["web"].ways == (("10.96.0.80:80", "ClusterIP"), ("any node:30080", "NodePort"))
    assert found["balanced"].ways[-1] == ("192.168.9.240:80", "LoadBalancer at host1")
    assert found["kube-system/kube-dns"].ways == (("10.96.0.10:53/UDP,53", "ClusterIP"),)
    pods = [("10.244.1.3:8080",), ("10.244.2.2:8080",), ("10.244.2.3:8080",)]
    assert sorted(pod.addresses for pod in found["web"].behind) == pods
    assert (found["idle"].behind, found["idle"].nobody) == ((), "no pod is behind it")


def test_services_without_an_address_of_their_own() -> None:
    found = in_a_lab("primer/names.yaml")
    assert found["db"].ways == (("no address", "headless"),)
    assert [pod.name for pod in found["db"].behind] == ["db-0", "db-1"]
    assert found["shop"].ways == (("web.default.svc.cluster.local", "ExternalName"),)
    assert found["shop"].nobody == "", "nobody is expected behind another name"


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "default", "name": name}, "spec": {"ports": [{"port": 80}], **spec}}


def slice_of(name: str, *endpoints: tuple[str, str, dict[str, bool]], port: int = 8080) -> dict[str, Any]:
    rows = [
        {"addresses": [address], "conditions": state, "targetRef": {"kind": "Pod", "namespace": "default", "name": pod}}
        for pod, address, state in endpoints
    ]
    labels = {"kubernetes.io/service-name": name}
    return {
        "metadata": {"namespace": "default", "name": f"{name}-x", "labels": labels}, "endpoints": rows,
        "ports": [{"name": "", "port": port, "protocol": "TCP"}],
    }  # fmt: skip


def test_pods_that_are_not_ready_or_ending_are_shown_as_such() -> None:
    states = {
        "p1": {"ready": True},
        "p2": {"ready": False},
        "p10": {"ready": False, "serving": True, "terminating": True},
    }
    slices = [
        slice_of("web", *((name, f"10.244.1.{order}", state) for order, (name, state) in enumerate(states.items(), 2)))
    ]
    (web,) = services([service("web", clusterIP="10.96.0.80")], slices)
    assert [(pod.name, pod.trouble) for pod in web.behind] == [("p1", ""), ("p2", "not ready"), ("p10", "ending")]
    assert said(web) == "\n".join(
        (
            "x",
            "",
            "╭─ Services ──────────────────────────╮",
            "│ web      10.96.0.80:80    ClusterIP │",
            "│  ├─ p1   10.244.1.2:8080            │",
            "│  ├─ p2   10.244.1.3:8080  not ready │",
            "│  └─ p10  10.244.1.4:8080  ending    │",
            "╰─────────────────────────────────────╯",
        )
    )
    assert {"web", "p2", "10.244.1.3:8080", "not ready", "ending"} <= set(words(web))


def test_both_families_are_one_service_and_one_pod() -> None:
    slices = [
        slice_of("web", ("p1", "10.244.1.2", {"ready": True})),
        slice_of("web", ("p1", "fd00::2", {"ready": True})),
    ]
    (web,) = services([service("web", clusterIPs=["10.96.0.80", "fd00::80"])], slices)
    assert [address for address, _ in web.ways] == ["10.96.0.80:80", "[fd00::80]:80"]
    assert web.behind == (Pod("p1", ("10.244.1.2:8080", "[fd00::2]:8080")),)


def test_what_comes_from_outside_and_how() -> None:
    spec = {"type": "LoadBalancer", "clusterIP": "10.96.0.9", "ports": [{"port": 80, "nodePort": 30001}]}
    (web,) = services([service("web", **spec, externalIPs=["1.2.3.4"], externalTrafficPolicy="Local")], [])
    assert web.ways[1:] == (
        ("any node:30001", "NodePort, Local"),
        ("pending", "LoadBalancer"),
        ("1.2.3.4:80", "external IP, Local"),
    )


def test_the_api_s_own_service_is_shown_with_somebody_behind_it_only() -> None:
    own = service("kubernetes", clusterIP="10.96.0.1")
    assert services([own], []) == ()
    assert len(services([own], [slice_of("kubernetes", ("p1", "10.244.1.2", {"ready": True}))])) == 1


def test_many_are_counted_instead_of_drawn() -> None:
    pods = tuple(
        Pod(f"p{number}", (f"10.0.0.{number}:80",), "not ready" if number > 97 else "") for number in range(1, 101)
    )
    many = [Service(f"s{number}", (("10.96.0.1:80", "ClusterIP"),), pods) for number in range(40)]
    for shown in (said(*many), said(*many, width=40), "\n".join(words(*many))):
        assert shown.count("and 94 more, 3 of them not ready") == 12
        assert "and 28 more" in shown
        assert "s12" not in shown
    assert len(said(*many).split("\n")) < 110


names = st.text("abc-", min_size=1, max_size=40)
some = st.builds(
    Service,
    names,
    st.lists(st.tuples(names, names), min_size=1, max_size=4).map(tuple),
    st.lists(
        st.builds(Pod, names, st.lists(names, max_size=2).map(tuple), st.sampled_from(["", "not ready"])), max_size=9
    ).map(tuple),
)


@given(st.lists(some, min_size=1, max_size=15))
def test_cards_of_services_do_not_overlap_and_are_within_the_picture(shown: list[Service]) -> None:
    root = ElementTree.fromstring(network_svg(Network("x", "", (), (), tuple(shown))))
    cards = [
        tuple(float(node.get(name, "")) for name in ("x", "y", "width", "height"))
        for node in root.iter(f"{SVG}rect")
        if node.get("rx") == "10"
    ]
    assert len(cards) == min(len(shown), 12)
    for at, (x, y, wide, high) in enumerate(cards):
        assert x + wide <= float(root.get("width", "")), shown
        assert y + high <= float(root.get("height", "")), shown
        for x2, y2, wide2, high2 in cards[at + 1 :]:
            assert x + wide <= x2 or x2 + wide2 <= x or y + high <= y2 or y2 + high2 <= y, shown


@given(st.lists(some, min_size=1, max_size=15), st.integers(40, 200))
def test_a_box_is_drawn_only_where_it_fits(shown: list[Service], width: int) -> None:
    lines = network_lines(Network("x", "", (), (), tuple(shown)), width)[2:]
    boxed = lines[0][0][0] == "╭"
    assert not boxed or ({length(line) for line in lines} <= {length(lines[0])} and length(lines[0]) <= width)
