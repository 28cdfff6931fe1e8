"""What takes part in the networks of one host's engine: containers, the ways they are joined, their ports.

A container is joined in one of four ways (fidelity DK-12 to DK-14): to networks, each by an interface of
its own (`bridge` where it names none); to nothing but its own loopback (`none`); to its host's network
(`host`); to the network of another container (`container:NAME`), with which it shares addresses, ports
and localhost. It has addresses while it runs, and none before and after.

Rule of this file: it knows no processes; `join` and `leave` are called when they begin and have ended.
What cannot be is `Refused`, and then nothing has changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from emunet.cluster.docker.networks import Networks, Refused, identity
from emunet.cluster.docker.values import DEFAULT_BRIDGE, Attachment, Binding, Engine, Network
from emunet.packet.address import InterfaceAddress, format_ip

FIRST_PORT, LAST_PORT = 32_768, 60_999
"""Host ports that are given out where none is named (ip_local_port_range)."""

SHORT = 12
"""How many digits of an id people see."""

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_OTHER = "container:"


@dataclass(frozen=True, slots=True)
class Place:
    """How a container wants to be on one network: its addresses and MAC where it names them, its other names."""

    addresses: tuple[bytes, ...] = ()
    mac: bytes = b""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PortWish:
    """A port to publish; `port` 0: any that is free."""

    target: int
    protocol: str = "tcp"
    port: int = 0
    host_address: bytes = b""


@dataclass(slots=True)
class Container:
    """One container, running or not. `mode` is a network's name, `none`, `host`, or `container:ID`.

    places       how it is on each network, by the network's name or id as it was given
    attachments  its interfaces while it runs, by the network's id
    bindings     its published ports while it runs
    """

    id: str
    name: str
    mode: str = DEFAULT_BRIDGE
    places: dict[str, Place] = field(default_factory=dict)
    ports: tuple[PortWish, ...] = ()
    exposed: tuple[tuple[int, str], ...] = ()
    publish_all: bool = False
    running: bool = False
    attachments: dict[str, Attachment] = field(default_factory=dict)
    bindings: list[Binding] = field(default_factory=list)

    @property
    def shares(self) -> str:
        """The id of the container whose network it is in, or empty."""
        return self.mode.removeprefix(_OTHER) if self.mode.startswith(_OTHER) else ""

    @property
    def has_networks(self) -> bool:
        """Whether it is joined to networks: neither to its host's, nor to another container's."""
        return self.mode != "host" and not self.shares


class Containers:
    """The containers of one host."""

    def __init__(self, networks: Networks, published: Iterable[tuple[str, int]] = (), *, proxy: bool = True) -> None:
        """`published` are ports (tcp or udp, number) of the host that lead elsewhere already."""
        self.networks = networks
        self.items: dict[str, Container] = {}
        self.proxy = proxy
        self._published = frozenset(published)
        self._made = 0

    def find(self, word: str) -> Container:
        """The container of that id, name, or beginning of an id. Refused where it is none, or any of several."""
        if word in self.items:
            return self.items[word]
        name = word.removeprefix("/")
        found = [one for one in self.items.values() if one.name == name]
        found = found or [one for one in self.items.values() if word and one.id.startswith(word)]
        if len(found) > 1:
            raise Refused(400, f"multiple IDs found with provided prefix: {word}")
        if not found:
            raise Refused(404, f"No such container: {word}")
        return found[0]

    def check_name(self, name: str) -> None:
        """Whether a container may be called so. Refused."""
        if not _NAME.fullmatch(name):
            message = f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            raise Refused(400, f"{message}, two characters at least")
        for one in self.items.values():
            if one.name == name:
                message = f'Conflict. The container name "/{name}" is already in use by container "{one.id}"'
                raise Refused(409, f"{message}. You have to remove (or rename) that container to be able to reuse it.")

    def add(
        self, name: str = "", mode: str = DEFAULT_BRIDGE, places: dict[str, Place] | None = None,
        ports: Iterable[PortWish] = (), exposed: Iterable[tuple[int, str]] = (), *, publish_all: bool = False,
    ) -> Container:  # fmt: skip
        """A container that does not run yet."""
        places, ports, exposed = dict(places or {}), tuple(ports), tuple(exposed)
        number = identity(self.networks.host, "container", self._made + 1, name)
        name = name or f"container_{number[:6]}"
        self.check_name(name)
        if mode.startswith(_OTHER):
            mode = _OTHER + self._shared(mode.removeprefix(_OTHER))
            if ports or publish_all or exposed:
                raise Refused(400, "conflicting options: port publishing and the container type network mode")
        elif mode in ("none", "host"):
            if set(places) - {mode}:
                raise Refused(
                    400, f"container cannot be connected to multiple networks with one of them in {mode} mode"
                )
            places = {mode: Place()}
        else:
            if "none" in places or "host" in places:
                raise Refused(400, "container cannot be connected to multiple networks with one of the networks in "
                              "private (none) or host mode")  # fmt: skip
            places.setdefault(mode, Place())
        for word, place in places.items():
            self._check_default(word, place)
        self._made += 1
        if mode == "host":
            ports, publish_all = (), False
        container = Container(number, name, mode, places if not mode.startswith(_OTHER) else {}, ports, exposed,
                              publish_all)  # fmt: skip
        self.items[number] = container
        return container

    def remove(self, container: Container) -> None:
        """Forget a container that does not run."""
        assert not container.running
        del self.items[container.id]

    def rename(self, container: Container, name: str) -> None:
        """Call it otherwise."""
        self.check_name(name)
        container.name = name

    # Networks

    def join(self, container: Container) -> None:
        """It begins to run: give it its addresses and ports. Refused, and then it has none."""
        if container.shares:
            other = self.items.get(container.shares)
            if other is None:
                message = "joining network namespace of container: No such container"
                raise Refused(500, f"{message}: {container.shares[:SHORT]}")
            if not other.running:
                message = "cannot join network namespace of a non running container"
                raise Refused(409, f"{message}: {other.name} is not running")
        elif container.mode not in ("none", "host"):
            rows = sorted(((self.networks.find(word), place) for word, place in container.places.items()),
                          key=lambda row: row[0].name)  # fmt: skip
            try:
                for network, place in rows:
                    self._attach(container, network, place)
                self._bind(container)
            except Refused:
                self.leave(container)
                raise
        container.running = True

    def leave(self, container: Container) -> None:
        """It has ended: its addresses and ports are free again."""
        container.running = False
        for number in container.attachments:
            self.networks.give_back(number, container.id)
        container.attachments.clear()
        container.bindings.clear()

    def connect(self, container: Container, word: str, place: Place) -> Network:
        """Join it to one more network, now if it runs."""
        network = self.networks.find(word)
        if network.driver == "host":
            raise Refused(
                400, "cannot connect container to host network - container must be created in host network mode"
            )
        if container.mode == "host":
            raise Refused(400, f"cannot connect the container {container.name} to {network.name}: it is in host mode")
        if container.shares:
            message = "container sharing network namespace with another container or host cannot be connected to any"
            raise Refused(400, f"{message} other network")
        if network.driver == "null" or "none" in container.places:
            message = (
                "container cannot be connected to multiple networks with one of the networks in private (none) mode"
            )
            if container.places:
                raise Refused(400, message)
        if self._key(container, network) is not None:
            raise Refused(403, f"endpoint with name {container.name} already exists in network {network.name}")
        self._check_default(network.name, place)
        if container.running:
            self._attach(container, network, place)
            try:
                self._bind(container)
            except Refused:
                del container.attachments[network.id]
                self.networks.give_back(network.id, container.id)
                raise
        container.places[network.name] = place
        return network

    def disconnect(self, container: Container, word: str, *, force: bool = False) -> Network:
        """Take it off a network; its interface and its names there are gone at once (DK-19)."""
        network = self.networks.find(word)
        key = self._key(container, network)
        if network.driver == "host":
            raise Refused(400, "container cannot be disconnected from host network or connected to hostnetwork")
        if key is None:
            raise Refused(500, f"container {container.id} is not connected to the network {network.name}")
        del container.places[key]
        if container.attachments.pop(network.id, None) is not None:
            self.networks.give_back(network.id, container.id)
            container.bindings = [one for one in container.bindings if one.interface != network.interface]
            self._bind(container)
        return network

    def on(self, network: Network) -> Iterator[tuple[Container, Attachment]]:
        """Who is on a network now."""
        for container in self.items.values():
            if network.id in container.attachments:
                yield container, container.attachments[network.id]

    def members(self, network: Network) -> list[Container]:
        """Who would be on a network, running or not."""
        return [one for one in self.items.values() if self._key(one, network) is not None]

    def is_member(self, container: Container, network: Network) -> bool:
        """Whether it is on a network, or would be if it ran."""
        return self._key(container, network) is not None

    def place_of(self, container: Container, network: Network) -> Place:
        """How it wants to be on a network that it is on."""
        return container.places[self._key(container, network) or network.name]

    def resolve(self, network: Network, name: str) -> list[Attachment]:
        """Who has that name on a network: container name, alias, short id. Case makes no difference."""
        wanted = name.lower()
        return [one for _, one in self.on(network) if wanted in (known.lower() for known in one.names)]

    def engine(self) -> Engine:
        """What the World needs to know."""
        networks = tuple(one for one in self.networks if one.id in self.networks.active)
        containers = [one for one in self.items.values() if one.running]
        return Engine(
            self.networks.host,
            networks,
            tuple(attachment for one in containers for attachment in one.attachments.values()),
            tuple(binding for one in containers for binding in one.bindings),
            self.proxy,
        )

    # Within

    def _shared(self, word: str) -> str:
        """The id of the container whose network is to be shared; as it is, where there is none (yet)."""
        try:
            other = self.find(word)
        except Refused:
            return word
        return other.shares or other.id

    def _check_default(self, word: str, place: Place) -> None:
        if word != DEFAULT_BRIDGE:
            return
        if place.addresses:
            message = "invalid config for network bridge: invalid endpoint settings"
            raise Refused(400, f"{message}: user-specified IP address is supported on user-defined networks only")
        if place.aliases:
            message = "invalid config for network bridge: invalid endpoint settings"
            raise Refused(400, f"{message}: network-scoped aliases are only supported for user-defined networks")

    def _key(self, container: Container, network: Network) -> str | None:
        """By which word of its `places` a container is on a network."""
        words = (network.name, network.id)
        return next((word for word in container.places if word in words or network.id.startswith(word)), None)

    def _attach(self, container: Container, network: Network, place: Place) -> None:
        rows = self.networks.take(network, container.id, place.addresses)
        addresses = tuple(InterfaceAddress(address, pool.subnet.length) for address, pool in rows)
        used = {one.interface for one in container.attachments.values()}
        interface = next(f"eth{number}" for number in range(100) if f"eth{number}" not in used)
        # The interface that comes first and leads outside has the default routes (DK-18).
        routed = {len(gateway) for one in container.attachments.values() for gateway in one.gateways}
        gateways = (
            () if network.internal else tuple(pool.gateway for _, pool in rows if len(pool.gateway) not in routed)
        )
        base = f"{self.networks.host}/{container.name}"
        port = base if interface == "eth0" else f"{base}:{interface}"
        mac = place.mac or b"\x02\x42" + rows[0][0][:4]
        names = () if network.is_default else (container.name, *place.aliases, container.id[:SHORT])
        self.networks.active.add(network.id)
        container.attachments[network.id] = Attachment(
            identity(container.id, network.id), network.id, container.id, port, interface, mac, addresses, gateways,
            tuple(dict.fromkeys(names)),
        )  # fmt: skip

    def _bind(self, container: Container) -> None:
        """Publish its ports on the network that has its default route, if they are not."""
        attachment = next((one for one in container.attachments.values() if one.gateways), None)
        if attachment is None or container.bindings:
            return
        network = self.networks.items[attachment.network]
        wishes = list(container.ports)
        if container.publish_all:
            there = {(one.target, one.protocol) for one in wishes}
            wishes += [
                PortWish(port, protocol) for port, protocol in container.exposed if (port, protocol) not in there
            ]
        bindings: list[Binding] = []
        for wish in wishes:
            host_address = wish.host_address or network.host_binding
            port = wish.port or self._free_port(wish.protocol, host_address, bindings)
            if self._is_bound(wish.protocol, host_address, port, bindings):
                shown = format_ip(host_address) if host_address else "0.0.0.0"
                message = f"failed to bind host port {shown}:{port}/{wish.protocol}: address already in use"
                raise Refused(500, f"driver failed programming external connectivity on endpoint {container.name}: "
                              f"{message}")  # fmt: skip
            addresses = tuple(one.address for one in attachment.addresses)
            bindings.append(Binding(container.id, wish.protocol, host_address, port, wish.target, addresses,
                                    network.interface))  # fmt: skip
        container.bindings = bindings

    def _is_bound(self, protocol: str, address: bytes, port: int, more: Iterable[Binding]) -> bool:
        if (protocol, port) in self._published:
            return True
        known = (binding for one in self.items.values() for binding in one.bindings)
        return any(
            (one.protocol, one.port) == (protocol, port) and (not address or one.host_address in (b"", address))
            for one in (*known, *more)
        )

    def _free_port(self, protocol: str, address: bytes, more: list[Binding]) -> int:
        for port in range(FIRST_PORT, LAST_PORT + 1):
            if not self._is_bound(protocol, address, port, more):
                return port
        raise Refused(500, "all allocated ports are in use")


__all__ = ["Container", "Containers", "Place", "PortWish", "Refused"]
