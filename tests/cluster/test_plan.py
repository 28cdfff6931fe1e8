"""What is done to get from one lab to another: which actions, in which order, for which reason."""

from __future__ import annotations

import json
from typing import Any

from emunet.cluster.assign import Allocation, assign
from emunet.cluster.build import build
from emunet.cluster.desired import Desired
from emunet.cluster.load import load_text
from emunet.cluster.plan import (
    Action,
    AddHost,
    AddPod,
    Configure,
    RemoveHost,
    RemovePod,
    ReplaceHost,
    ReplacePod,
    State,
    UpdatePod,
    after,
    plan,
    target,
)


class Lab:
    """A lab on paper: wishes come in, a plan is made and carried out."""

    def __init__(self) -> None:
        self.state = State()
        self._desired: Desired | None = None
        self._allocation = Allocation()

    def wish(self, *pods: dict[str, Any], **spec: Any) -> list[Action]:
        """The actions for a cluster with these pods; afterwards they have been carried out."""
        topology = {"apiVersion": "emunet/v1", "kind": "Topology", "metadata": {"name": "lab"}, "spec": spec}
        self._desired = build(load_text("\n---\n".join(map(json.dumps, [topology, *pods]))), self._desired)
        self._allocation = assign(self._desired, self._allocation, seed=3)
        wanted = target(self._desired, self._allocation, seed=3)
        actions = plan(self.state, wanted)
        self.state = after(self.state, actions)
        assert plan(self.state, wanted) == []
        return actions


def pod(name: str, image: str = "busybox", **spec: Any) -> dict[str, Any]:
    """A pod with one container, `main`; `labels` and emunet annotations go to its metadata."""
    labels = spec.pop("labels", {})
    annotations = {key: spec.pop(key) for key in list(spec) if key.startswith("emunet/")}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
        "spec": {"containers": [{"name": "main", "image": image}], **spec},
    }


def names(actions: list[Action]) -> list[str]:
    """`AddPod web-1` for each action."""
    told = []
    for action in actions:
        match action:
            case RemovePod(name) | RemoveHost(name):
                told.append(f"{type(action).__name__} {name}")
            case AddHost(host) | ReplaceHost(host):
                told.append(f"{type(action).__name__} {host.name}")
            case AddPod(pod) | ReplacePod(pod) | UpdatePod(pod):
                told.append(f"{type(action).__name__} {pod.name}")
            case Configure():
                told.append("Configure")
    return told


def reasons(actions: list[Action]) -> list[str]:
    """Each action's reason."""
    return [action.reason for action in actions]


def test_the_first_plan_makes_everything() -> None:
    actions = Lab().wish(pod("a"), pod("b"), hosts=["host1", "host2"])
    assert names(actions) == ["Configure", "AddHost host1", "AddHost host2", "AddPod a", "AddPod b"]
    assert reasons(actions)[1:4] == [
        "the host host1 is wanted and is not there",
        "the host host2 is wanted and is not there",
        "the pod a is wanted on host1 and is not there",
    ]


def test_wishing_the_same_again_does_nothing() -> None:
    lab = Lab()
    lab.wish(pod("a"), hosts=["host1"])
    assert lab.wish(pod("a"), hosts=["host1"]) == []


def test_removals_come_first_and_additions_last() -> None:
    lab = Lab()
    lab.wish(pod("a"), pod("b"), hosts=["host1"])
    actions = lab.wish(pod("b"), pod("c"), hosts=["host1"])
    assert names(actions) == ["RemovePod a", "Configure", "AddPod c"]
    assert reasons(actions) == [
        "the pod a is no longer wanted",
        "the World's configuration: change hosts host1; add pods c; remove pods a",
        "the pod c is wanted on host1 and is not there",
    ]


def test_a_new_host_changes_the_others_routes_and_no_sandbox() -> None:
    lab = Lab()
    lab.wish(pod("a"), hosts=["host1"])
    actions = lab.wish(pod("a"), hosts=["host1", "host2"])
    assert names(actions) == ["Configure", "AddHost host2"]
    assert reasons(actions)[0] == (
        "the World's configuration: add hosts host2; change hosts host1; change switches switch1; "
        "add wires host2--switch1; add host edges host2:cni0, host2:eth0, host2:flannel.1"
    )


def test_a_host_that_goes_takes_its_pods_along() -> None:
    lab = Lab()
    lab.wish(pod("a", nodeName="host2"), pod("b"), hosts=["host1", "host2"])
    actions = lab.wish(pod("a"), pod("b"), hosts=["host1"])
    assert names(actions) == ["RemoveHost host2", "Configure", "ReplacePod a"]
    assert reasons(actions)[2] == (
        "a: it moves from host2 to host1; its address changes from 10.244.2.2/24 to 10.244.1.3/24; "
        "its gateway changes from 10.244.2.1 to 10.244.1.1"
    )


def test_what_a_sandbox_cannot_follow_replaces_it() -> None:
    lab = Lab()
    lab.wish(pod("a"), hosts=["host1"])
    moved = lab.wish(pod("a", **{"emunet/ip": "10.244.1.77", "emunet/mac": "02:00:00:00:00:01"}), hosts=["host1"])
    assert names(moved) == ["Configure", "ReplacePod a"]
    assert moved[1].reason.endswith("to 02:00:00:00:00:01; its address changes from 10.244.1.2/24 to 10.244.1.77/24")
    named = lab.wish(pod("a", hostname="other"), hosts=["host1"])
    assert reasons(named) == ["a: its host name changes from a to other"]
    inside = lab.wish(pod("a", hostname="other", hostNetwork=True), hosts=["host1"])
    assert reasons(inside)[-1] == "a: it moves into the network of its host"
    outside = lab.wish(pod("a", hostname="other"), hosts=["host1"])
    assert reasons(outside)[-1] == "a: it gets a network of its own"


def test_an_annotation_that_goes_leaves_the_address() -> None:
    lab = Lab()
    lab.wish(pod("a", **{"emunet/ip": "10.244.1.77"}), hosts=["host1"])
    assert reasons(lab.wish(pod("a"), hosts=["host1"])) == ["a: its annotations, addresses changed"]


def test_what_a_sandbox_can_follow_updates_it() -> None:
    lab = Lab()
    lab.wish(pod("a"), hosts=["host1"])
    labelled = lab.wish(pod("a", labels={"app": "web"}), hosts=["host1"])
    assert (names(labelled), reasons(labelled)) == (["UpdatePod a"], ["a: its labels changed"])
    assert isinstance(labelled[0], UpdatePod)
    assert labelled[0].containers == ()
    renewed = lab.wish(pod("a", image="nginx", restartPolicy="Never"), hosts=["host1"])
    assert reasons(renewed) == ["a: its restart policy, labels changed and its containers changed (main)"]
    assert isinstance(renewed[0], UpdatePod)
    assert renewed[0].containers == ("main",)


def test_another_overlay_makes_the_hosts_anew_and_what_lives_in_them() -> None:
    lab = Lab()
    pods = [pod("a"), pod("b", hostNetwork=True, nodeName="host1")]
    lab.wish(*pods, hosts=["host1"])
    actions = lab.wish(*pods, hosts=["host1"], overlay="host-gw")
    assert names(actions) == ["Configure", "ReplaceHost host1", "ReplacePod a", "ReplacePod b"]
    assert reasons(actions)[1:] == [
        "host1: its interfaces change (cni0, flannel.1)",
        "a: its MTU changes from 1450 to 1500",
        "b: the network of host1, which it lives in, is made anew",
    ]


def test_everything_can_go() -> None:
    lab = Lab()
    lab.wish(pod("a"), hosts=["host1"])
    actions = plan(lab.state, State())
    assert names(actions) == ["RemovePod a", "RemoveHost host1", "Configure"]
    assert plan(after(lab.state, actions), State()) == []


def test_a_reason_names_eight_things_at_most() -> None:
    actions = Lab().wish(hosts=[f"host{number}" for number in range(1, 11)])
    assert "add hosts host1, host2, host3, host4, host5, host6, host7, host8 and 2 more" in actions[0].reason
