"""What people call things in a lab, and what is meant: `web-1`, `blue/web-1`, `host1`, a Service, an address.

Rule of this file: a name that means nothing is answered with the names that do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from emunet.cluster.plan import State
from emunet.daemon.sandboxes import container_sandbox, pod_sandbox
from emunet.fabric.sources import host_source
from emunet.packet.address import InterfaceAddress, format_ip, format_mac, parse_ip

_NAMES_TOLD = 20


class UnknownName(Exception):
    """Nothing in the lab is called so: a sentence that lists what is."""


@dataclass(frozen=True, slots=True)
class Place:
    """A pod, a host, or a container of a host's engine, with its port's name.

    Further the sandbox its programs live in, its MAC and addresses, IPv4 first.

    A host's are those of its uplink, as are those of a pod that lives in its host's network.
    """

    kind: Literal["pod", "host", "container"]
    name: str
    sandbox: str
    addresses: tuple[InterfaceAddress, ...]
    host: str
    mac: bytes
    in_host: bool = False
    """Its network is its host's: it is the host, or a pod with hostNetwork."""

    @property
    def sender(self) -> str:
        """The name of the port that what it sends leaves by."""
        return self.host if self.in_host else self.name

    def address(self, family: int) -> bytes | None:
        """Its first address of a family (4 or 16 bytes), or None."""
        return next((one.address for one in self.addresses if len(one.address) == family), None)


Services = Callable[[], Mapping[str, Sequence[bytes]]]
"""The addresses of each Service by its name (`web`, `blue/web`), as they are at the moment."""


class Names:
    """The names of one state of a lab. A pod or host is meant before a Service of the same name."""

    def __init__(self, state: State, services: Services = dict) -> None:
        self._services = services
        self._hosts = {host.name: host for host in state.world.hosts}
        hosts = {
            host.name: Place("host", host.name, host.name, uplink.addresses, host.name, uplink.mac, True)
            for host in state.hosts
            for uplink in host.interfaces[:1]
        }
        self.pods: list[Place] = []
        """The pods that have a network of their own, in the order of the state."""
        guests = []
        for pod in state.pods:
            if pod.edge is not None:
                sandbox, edge = pod_sandbox(pod.name), pod.edge
                self.pods.append(Place("pod", pod.name, sandbox, edge.addresses, pod.pod.host, edge.mac))
            else:
                guest = replace(hosts[pod.pod.host], kind="pod", name=pod.name, sandbox=pod_sandbox(pod.name))
                guests.append(guest)
        # No pod of the default namespace has the name of a host: `cluster.check` sees to that.
        containers: dict[str, Place] = {}
        for engine in state.engines:
            for one in sorted(engine.attachments, key=lambda row: row.interface):
                name, sandbox = one.port.partition(":")[0], container_sandbox(engine.host, one.container)
                containers.setdefault(name, Place("container", name, sandbox, one.addresses, engine.host, one.mac))
        self.places = {place.name: place for place in (*containers.values(), *self.pods, *guests, *hosts.values())}

    def find(self, name: str) -> Place:
        """The pod or host of that name. UnknownName where there is none."""
        found = self.places.get(name.removeprefix("default/"))
        if found is None:
            if name.removeprefix("default/") in self._services():
                raise UnknownName(f"{name} is a Service: it is nobody's machine, and only an address to send to")
            known = sorted(self.places, key=lambda one: (self.places[one].kind, len(one), one))
            more = f" and {len(known) - _NAMES_TOLD} more" if len(known) > _NAMES_TOLD else ""
            raise UnknownName(f"there is no pod or host {name}; there are: {', '.join(known[:_NAMES_TOLD])}{more}")
        return found

    def addresses(self, name: str) -> list[bytes]:
        """The addresses of the pod or host of that name; none where there is none."""
        place = self.places.get(name.removeprefix("default/"))
        return [one.address for one in place.addresses] if place is not None else []

    def target(self, name: str, source: Place) -> bytes:
        """The address that `name` (or an address as text) means to `source`: of a family that both have."""
        try:
            return parse_ip(name)
        except ValueError:
            found = self.addresses(name) or self._services().get(name.removeprefix("default/"), ())
            if not found:
                self.find(name)
        for one in found:
            if source.address(len(one)) is not None:
                return one
        raise UnknownName(f"{source.name} and {name} have no address family in common")

    def source(self, place: Place, target: bytes) -> bytes | None:
        """The address that a pod or host sends from to reach `target`; None where it has none of that family."""
        if place.in_host:
            way = host_source(self._hosts[place.host], target)
            return way[1] if way is not None else place.address(len(target))
        return place.address(len(target))

    def described(self) -> dict[str, dict[str, Any]]:
        """Every name with its MAC and addresses as text: what `emunet trace` may say for an address.

        A Service has no MAC.
        """
        services: dict[str, dict[str, Any]] = {
            name: {"mac": None, "addresses": list(map(format_ip, found))} for name, found in self._services().items()
        }
        return services | {
            name: {"mac": format_mac(place.mac), "addresses": [format_ip(one.address) for one in place.addresses]}
            for name, place in self.places.items()
        }
