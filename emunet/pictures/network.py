"""A network as a picture sees it: machines, what is in them, the cables, and what is above what.

Switches and hosts form trees, since there is no spanning tree and a host has one uplink:
so a picture is a tree with its middle on top and the hosts at its foot.

Rule of this file: values, in an order that depends on nothing but the values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from emunet.packet.address import InterfaceAddress, Prefix, parse_ip

PODS_SHOWN = 24
"""Of one host; more are counted."""

SERVICES_SHOWN = 12
"""More are counted."""

BEHIND_SHOWN = 6
"""Of the pods behind one Service; more are counted."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod; `trouble` is empty, or a word like `frozen`. Without addresses it lives in its host's network."""

    name: str
    addresses: tuple[str, ...] = ()
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface of a host; `pods` are those that hang on it, where it is a bridge."""

    name: str
    addresses: tuple[str, ...] = ()
    mtu: int = 1500
    pods: tuple[Pod, ...] = ()

    @property
    def is_tunnel(self) -> bool:
        """Whether it wraps what it sends."""
        return self.name.startswith("flannel.")


@dataclass(frozen=True, slots=True)
class Machine:
    """A host or a switch.

    pods   those of no bridge: with a routed link of their own, or (without an address) in the host's network
    alone  containers without any network
    """

    name: str
    is_host: bool
    interfaces: tuple[Interface, ...] = ()
    pods: tuple[Pod, ...] = ()
    trouble: str = ""
    alone: tuple[Pod, ...] = ()

    @property
    def groups(self) -> tuple[tuple[str, tuple[Pod, ...]], ...]:
        """What is on no bridge, and in what way."""
        rows = {
            "a routed link to each": tuple(pod for pod in self.pods if pod.addresses),
            "in the host's own network": tuple(pod for pod in self.pods if not pod.addresses),
            "without a network": self.alone,
        }
        return tuple((said, pods) for said, pods in rows.items() if pods)

    @property
    def bridges(self) -> tuple[Interface, ...]:
        """The interfaces that pods hang on."""
        return tuple(one for one in self.interfaces if one.pods)


@dataclass(frozen=True, slots=True)
class Cable:
    """A link between two machines. `words` says for each direction what goes wrong: (from a, from b)."""

    name: str
    a: str
    b: str
    ports: tuple[str, str] = ("", "")
    words: tuple[str, str] = ("", "")
    up: bool = True
    flap: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        """What is to be said about it, a line each: nothing of a plain cable."""
        told = [] if self.up else ["down"]
        told += [f"flaps {self.flap}"] if self.flap else []
        if self.words[0] == self.words[1]:
            told += [self.words[0]] if self.words[0] else []
        else:
            told += [f"{self.a} → {self.b}: {self.words[0]}"] if self.words[0] else []
            told += [f"{self.b} → {self.a}: {self.words[1]}"] if self.words[1] else []
        return tuple(told)


@dataclass(frozen=True, slots=True)
class Service:
    """A Service: the addresses that lead there with what each is, and the pods `behind` it, whose addresses have ports.

    Where pods stand behind it by rights and none does, `nobody` says so.
    """

    name: str
    ways: tuple[tuple[str, str], ...]
    behind: tuple[Pod, ...] = ()
    nobody: str = ""

    @property
    def shown(self) -> tuple[Pod, ...]:
        """The pods that are drawn."""
        return self.behind[:BEHIND_SHOWN]

    @property
    def left_out(self) -> str:
        """What is said of the pods that are not; empty where all are."""
        rest = self.behind[BEHIND_SHOWN:]
        ill = sum(bool(pod.trouble) for pod in rest)
        return f"and {len(rest):,} more{f', {ill:,} of them not ready' if ill else ''}" if rest else ""


@dataclass(frozen=True, slots=True)
class Network:
    """All of it. `about` is one line below the title."""

    title: str
    about: str
    machines: tuple[Machine, ...]
    cables: tuple[Cable, ...]
    services: tuple[Service, ...] = ()

    def trees(self) -> list[Tree]:
        """The machines as trees: in each the one on top from which the farthest is nearest, hosts below."""
        near: dict[str, list[tuple[str, Cable]]] = {machine.name: [] for machine in self.machines}
        for cable in self.cables:
            near[cable.a].append((cable.b, cable))
            near[cable.b].append((cable.a, cable))
        order = {machine.name: number for number, machine in enumerate(self.machines)}
        known = {machine.name: machine for machine in self.machines}
        left, made = list(known), []
        while left:
            group = sorted(_reached(left[0], near), key=order.__getitem__)
            switches = [name for name in group if not known[name].is_host]
            top = min(switches or group, key=lambda name: (_height(name, near), order[name]))
            made.append(_tree(known, near, order, top, None))
            left = [name for name in left if name not in group]
        return made


@dataclass(frozen=True, slots=True)
class Tree:
    """A machine, the cable that leads up from it, and what hangs below."""

    machine: Machine
    cable: Cable | None
    below: tuple[Tree, ...] = field(default=())

    @property
    def depth(self) -> int:
        """How many levels there are, this one included."""
        return 1 + max((one.depth for one in self.below), default=0)

    def walk(self) -> Iterator[Tree]:
        """This and all below, each before what hangs on it."""
        yield self
        for one in self.below:
            yield from one.walk()


_Near = Mapping[str, Sequence[tuple[str, Cable]]]


def _reached(start: str, near: _Near) -> set[str]:
    found, todo = {start}, [start]
    while todo:
        for name, _ in near[todo.pop()]:
            if name not in found:
                found.add(name)
                todo.append(name)
    return found


def _height(start: str, near: _Near) -> int:
    """How far the farthest is."""
    found, level, height = {start}, [start], 0
    while level:
        level = [name for one in level for name, _ in near[one] if name not in found]
        found.update(level)
        height += bool(level)
    return height


def _tree(known: Mapping[str, Machine], near: _Near, order: Mapping[str, int], name: str, cable: Cable | None) -> Tree:
    below = sorted((one for one in near[name] if one[1] is not cable), key=lambda one: order[one[0]])
    return Tree(known[name], cable, tuple(_tree(known, near, order, other, by) for other, by in below))


# From what a lab tells


def network(
    title: str,
    about: str,
    ports: Sequence[Mapping[str, Any]],
    wires: Sequence[Mapping[str, Any]],
    *,
    off: Sequence[str] = (),
    troubled: Mapping[str, str] | None = None,
    in_hosts: Sequence[tuple[str, str]] = (),
    alone: Sequence[tuple[str, str]] = (),
    guests: Mapping[str, Sequence[str]] | None = None,
    services: Sequence[Service] = (),
) -> Network:
    """What a lab says of its ports (`name`, `kind`, `device`, `addresses`, `mtu`) and wires (`emunet link -o json`).

    `off` are machines without power, `troubled` what ails a pod, `in_hosts` (host, pod) of pods without
    a network of their own, `alone` the same of those without any; `guests` are in the network of a port's owner.
    `services` are drawn below all machines, since they are at none.
    """
    ails, living = troubled or {}, guests or {}
    interfaces: dict[str, list[Interface]] = {}
    pods: dict[str, list[Pod]] = {}
    kinds: dict[str, bool] = {}
    for port in ports:
        device, addresses = port["device"], tuple(port["addresses"])
        if port["kind"] == "pod":
            name = " + ".join((port["name"], *living.get(port["name"], ())))
            pods.setdefault(device, []).append(Pod(name, addresses, ails.get(port["name"], "")))
            continue
        kinds[device] = port["kind"] == "host"
        if port["kind"] == "host":
            interface = Interface(port["name"].rpartition(":")[2], addresses, port["mtu"])
            interfaces.setdefault(device, []).append(interface)
    for host, name in in_hosts:
        pods.setdefault(host, []).append(Pod(name, (), ails.get(name, "")))
    for wire in wires:
        for end in wire["ends"]:
            kinds.setdefault(end.partition(":")[0], False)
    machines = [
        replace(
            _machine(name, is_host, interfaces.get(name, []), pods.get(name, []), "no power" if name in off else ""),
            alone=tuple(Pod(one) for host, one in alone if host == name),
        )
        for name, is_host in kinds.items()
    ]
    return Network(title, about, tuple(machines), tuple(_cable(wire) for wire in wires), tuple(services))


def _machine(name: str, is_host: bool, interfaces: list[Interface], pods: list[Pod], trouble: str) -> Machine:
    taken: set[str] = set()
    rows = []
    for interface in interfaces:
        prefixes = [InterfaceAddress.parse(row).prefix for row in interface.addresses]
        own = [pod for pod in pods if pod.name not in taken and any(_within(row, prefixes) for row in pod.addresses)]
        taken.update(pod.name for pod in own)
        if interface.addresses:  # one without is the host's end of a pod's own link: the pod is shown
            rows.append(Interface(interface.name, interface.addresses, interface.mtu, tuple(own)))
    rest = tuple(pod for pod in pods if pod.name not in taken)
    return Machine(name, is_host, tuple(rows), rest, trouble)


def _within(address: str, prefixes: Sequence[Prefix]) -> bool:
    value = parse_ip(address.partition("/")[0])
    return any(len(one.address) == len(value) and one.contains(value) for one in prefixes)


def _cable(wire: Mapping[str, Any]) -> Cable:
    ends = [end.partition(":") for end in wire["ends"]]
    words = [", ".join(f"{name} {value}" for name, value in wire["from"][end[0]].items()) for end in ends]
    return Cable(
        wire["name"], ends[0][0], ends[1][0], (ends[0][2], ends[1][2]), (words[0], words[1]), wire["up"],
        wire["flap"] or "",
    )  # fmt: skip
