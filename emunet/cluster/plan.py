"""What must be done to get from what is to what is wanted, as a list of actions.

`target` says what a lab is to be, `plan` compares it with what it is, `after` says what it
will be once some actions are carried out. Each action carries all that its executor needs
and one sentence of reason.

The order is safe to carry out one by one: sandboxes that go are removed first, then the
World takes its new configuration, then sandboxes are made on ports that exist.

Rule of this file: it compares values and touches nothing. Planning again after carrying
everything out finds nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Protocol, TypeVar

from emunet.cluster.assign import Allocation
from emunet.cluster.compile import compile as compile_world
from emunet.cluster.desired import Desired, Pod
from emunet.cluster.docker.values import Engine
from emunet.cluster.policing import Policing
from emunet.cluster.ranges import natural
from emunet.fabric.config import HostConfig, Interface, PodEdge, WorldConfig
from emunet.packet.address import format_ip, format_mac


@dataclass(frozen=True, slots=True)
class PodState:
    """A pod's sandbox and what runs in it. `edge` is None for a pod in its host's network."""

    pod: Pod
    edge: PodEdge | None = None

    @property
    def name(self) -> str:
        """The pod's global port name."""
        return self.pod.port


@dataclass(frozen=True, slots=True)
class HostState:
    """A host's own sandbox: where its sockets live, one edge per interface."""

    name: str
    interfaces: tuple[Interface, ...]


@dataclass(frozen=True, slots=True)
class State:
    """A lab, as it is or as it is to be: the World, and the sandboxes that are joined to it. Empty to begin with."""

    world: WorldConfig = field(default_factory=WorldConfig)
    hosts: tuple[HostState, ...] = ()
    pods: tuple[PodState, ...] = ()
    engines: tuple[Engine, ...] = field(default=(), compare=False)
    """What containers there are beside pods: whoever started them has made their sandboxes, no plan does."""


@dataclass(frozen=True, slots=True)
class RemovePod:
    """End a pod's programs and its sandbox."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class RemoveHost:
    """End a host's sandbox."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Configure:
    """Give the World this configuration; what it learned stays where the configuration did."""

    world: WorldConfig
    reason: str


@dataclass(frozen=True, slots=True)
class AddHost:
    """Make a host's sandbox and join it to the host's edges."""

    host: HostState
    reason: str


@dataclass(frozen=True, slots=True)
class ReplaceHost:
    """Make a host's sandbox anew."""

    host: HostState
    reason: str


@dataclass(frozen=True, slots=True)
class AddPod:
    """Make a pod's sandbox, join it to its edge, start its containers."""

    pod: PodState
    reason: str


@dataclass(frozen=True, slots=True)
class ReplacePod:
    """Make a pod's sandbox anew: the old one ends, with its programs."""

    pod: PodState
    reason: str


@dataclass(frozen=True, slots=True)
class UpdatePod:
    """Keep a pod's sandbox, take its new description; the containers named are restarted, started or ended."""

    pod: PodState
    containers: tuple[str, ...]
    reason: str


Action = RemovePod | RemoveHost | Configure | AddHost | ReplaceHost | AddPod | ReplacePod | UpdatePod


class _Named(Protocol):
    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=_Named)


def target(desired: Desired, allocation: Allocation, seed: int = 0, policing: Policing | None = None) -> State:
    """The lab that carries what is wanted. `allocation` comes from `assign` for the same `desired`."""
    world = compile_world(desired, allocation, seed, policing)
    edges = {edge.name: edge for edge in world.pods}
    bridges = {(one.host, network.interface) for one in desired.engines for network in one.networks}

    def is_of_sandbox(host: HostConfig, interface: Interface) -> bool:
        # Pods' own links have no socket of the host's; bridges of engines come and go without a new sandbox.
        return interface.has_sockets and (host.name, interface.name) not in bridges

    return State(
        world,
        tuple(HostState(host.name, tuple(one for one in host.interfaces if is_of_sandbox(host, one)))
              for host in world.hosts),
        tuple(PodState(pod, edges.get(pod.port)) for pod in desired.pods),
        desired.engines,
    )  # fmt: skip


def plan(actual: State, wanted: State) -> list[Action]:
    """The actions that make `actual` into `wanted`, in an order in which they can be carried out."""
    hosts_now, hosts_then = _by_name(actual.hosts), _by_name(wanted.hosts)
    pods_now, pods_then = _by_name(actual.pods), _by_name(wanted.pods)
    renewed = {name for name, host in hosts_then.items() if name in hosts_now and hosts_now[name] != host}
    actions: list[Action] = []
    for name in sorted(pods_now.keys() - pods_then.keys(), key=natural):
        actions.append(RemovePod(name, f"the pod {name} is no longer wanted"))
    for name in sorted(hosts_now.keys() - hosts_then.keys(), key=natural):
        actions.append(RemoveHost(name, f"the host {name} is no longer wanted"))
    if actual.world != wanted.world:
        actions.append(Configure(wanted.world, _world_reason(actual.world, wanted.world)))
    for name, host in hosts_then.items():
        if name not in hosts_now:
            actions.append(AddHost(host, f"the host {name} is wanted and is not there"))
        elif name in renewed:
            actions.append(ReplaceHost(host, f"{name}: {_interface_reason(hosts_now[name], host)}"))
    for name, pod in pods_then.items():
        if name not in pods_now:
            actions.append(AddPod(pod, f"the pod {name} is wanted on {pod.pod.host} and is not there"))
        else:
            actions += _pod_actions(pods_now[name], pod, renewed)
    return actions


def after(state: State, actions: Iterable[Action]) -> State:
    """The state once the actions are carried out, in their order."""
    for action in actions:
        match action:
            case RemovePod(name):
                state = replace(state, pods=_without(state.pods, name))
            case RemoveHost(name):
                state = replace(state, hosts=_without(state.hosts, name))
            case Configure(world):
                state = replace(state, world=world)
            case AddHost(host) | ReplaceHost(host):
                state = replace(state, hosts=(*_without(state.hosts, host.name), host))
            case AddPod(pod) | ReplacePod(pod) | UpdatePod(pod):
                state = replace(state, pods=(*_without(state.pods, pod.name), pod))
    return state


def _by_name(things: Iterable[N]) -> dict[str, N]:
    return {thing.name: thing for thing in things}


def _without(things: Iterable[N], name: str) -> tuple[N, ...]:
    return tuple(thing for thing in things if thing.name != name)


# Reasons


def _pod_actions(now: PodState, then: PodState, renewed_hosts: set[str]) -> list[Action]:
    changes = _sandbox_changes(now, then)
    if then.edge is None and not changes and then.pod.host in renewed_hosts:
        changes = [f"the network of {then.pod.host}, which it lives in, is made anew"]
    if changes:
        return [ReplacePod(then, f"{then.name}: {'; '.join(changes)}")]
    if now == then:
        return []
    before, wanted = _by_name(now.pod.containers), _by_name(then.pod.containers)
    containers = tuple(name for name in dict.fromkeys([*before, *wanted]) if before.get(name) != wanted.get(name))
    changed = [item.name for item in fields(Pod) if item.compare and _differ(now.pod, then.pod, item.name)]
    told = ", ".join(name.replace("_", " ") for name in changed if name != "containers")
    parts = [f"its {told} changed"] if told else []
    if containers:
        parts.append(f"its containers changed ({', '.join(containers)})")
    return [UpdatePod(then, containers, f"{then.name}: {' and '.join(parts)}")]


def _differ(now: object, then: object, name: str) -> bool:
    return bool(getattr(now, name) != getattr(then, name))


def _sandbox_changes(now: PodState, then: PodState) -> list[str]:
    """What changed that a running sandbox cannot follow."""
    changes = []
    if now.pod.uid != then.pod.uid:
        changes.append("it is another pod of that name")
    if now.pod.host != then.pod.host:
        changes.append(f"it moves from {now.pod.host} to {then.pod.host}")
    if now.pod.hostname != then.pod.hostname:
        changes.append(f"its host name changes from {now.pod.hostname} to {then.pod.hostname}")
    if now.edge is None and then.edge is not None:
        changes.append("it gets a network of its own")
    elif now.edge is not None and then.edge is None:
        changes.append("it moves into the network of its host")
    elif now.edge is not None and then.edge is not None:
        changes += _edge_changes(now.edge, then.edge)
    return changes


def _edge_changes(now: PodEdge, then: PodEdge) -> list[str]:
    describe: dict[str, Callable[[PodEdge], str]] = {
        "MAC address": lambda edge: format_mac(edge.mac),
        "address": lambda edge: " ".join(map(str, edge.addresses)),
        "gateway": lambda edge: " ".join(map(format_ip, edge.gateways)),
        "MTU": lambda edge: str(edge.mtu),
    }
    return [
        f"its {what} changes from {text(now)} to {text(then)}"
        for what, text in describe.items()
        if text(now) != text(then)
    ]


def _interface_reason(now: HostState, then: HostState) -> str:
    before, wanted = _by_name(now.interfaces), _by_name(then.interfaces)
    names = [name for name in dict.fromkeys([*before, *wanted]) if before.get(name) != wanted.get(name)]
    return f"its interfaces change ({', '.join(names)})" if names else "the order of its interfaces changes"


def _world_reason(now: WorldConfig, then: WorldConfig) -> str:
    parts = []
    for what in ("hosts", "switches", "wires", "pods", "host_edges"):
        before: Mapping[str, object] = _by_name(getattr(now, what))
        wanted: Mapping[str, object] = _by_name(getattr(then, what))
        added = wanted.keys() - before.keys()
        gone = before.keys() - wanted.keys()
        changed = {name for name in wanted.keys() & before.keys() if wanted[name] != before[name]}
        for verb, names in (("add", added), ("remove", gone), ("change", changed)):
            if names:
                parts.append(f"{verb} {what.replace('_', ' ')} {_some(names)}")
    if now.services != then.services:
        before_rows = {row.key: row for row in now.services}
        wanted_rows = {row.key: row for row in then.services}
        keys = [key for key in {**before_rows, **wanted_rows} if before_rows.get(key) != wanted_rows.get(key)]
        if keys:
            parts.append(f"change Services {_some({name for name, _ in keys})}")
    if now.seed != then.seed:
        parts.append(f"seed {then.seed}")
    return "the World's configuration: " + ("; ".join(parts) or "another order")


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names, key=natural)
    more = f" and {len(ordered) - 8} more" if len(ordered) > 8 else ""
    return ", ".join(ordered[:8]) + more
