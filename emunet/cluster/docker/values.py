"""What a World needs to know of the container engine of one host: networks, attachments, published ports.

Rule of this file: values only; who has which address is decided in `networks`.
"""

from __future__ import annotations

from dataclasses import dataclass

from emunet.packet.address import InterfaceAddress, Prefix

Pairs = tuple[tuple[str, str], ...]

DEFAULT_BRIDGE = "bridge"
"""The name of the network that a container is on which names none."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Addresses of a network: of `subnet`, those of `range` (None: all) are given out.

    `gateway` is the host's own address there; `reserved` are kept for others, by a name that means nothing here.
    """

    subnet: Prefix
    gateway: bytes
    range: Prefix | None = None
    reserved: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Network:
    """One network of an engine. `driver` is bridge, host or null; the latter two have nothing else.

    interface   the bridge's own, on the host, with `mac`
    masquerade  what goes outside comes from the host (com.docker.network.bridge.enable_ip_masquerade)
    stations    its containers may speak with each other (…enable_icc)
    host_binding  the host's address where ports are published that name none (…host_binding_ipv4), or empty: all
    """

    id: str
    name: str
    driver: str = "bridge"
    pools: tuple[Pool, ...] = ()
    interface: str = ""
    mac: bytes = b""
    mtu: int = 1500
    internal: bool = False
    masquerade: bool = True
    stations: bool = True
    host_binding: bytes = b""
    attachable: bool = False
    options: Pairs = ()
    labels: Pairs = ()
    created: int = 0

    @property
    def is_default(self) -> bool:
        """Whether it is the network of those that name none: without names, with fixed settings."""
        return self.name == DEFAULT_BRIDGE

    @property
    def is_predefined(self) -> bool:
        """Whether the engine has made it by itself."""
        return self.name in (DEFAULT_BRIDGE, "host", "none")

    @property
    def has_ipv6(self) -> bool:
        """Whether it gives out IPv6 addresses."""
        return any(len(pool.gateway) == 16 for pool in self.pools)


@dataclass(frozen=True, slots=True)
class Attachment:
    """A container's interface on a network: what the engine calls an endpoint.

    port       the global name of its port in the World (`host1/web`, `host1/web:eth1`)
    gateways   its default next hops; empty where another interface has them, or the network is internal
    names      by which others of a user-defined network find it
    """

    id: str
    network: str
    container: str
    port: str
    interface: str
    mac: bytes
    addresses: tuple[InterfaceAddress, ...]
    gateways: tuple[bytes, ...] = ()
    names: tuple[str, ...] = ()

    def address(self, family: int) -> bytes | None:
        """Its address of a family (4 or 16 bytes), or None."""
        return next((one.address for one in self.addresses if len(one.address) == family), None)


@dataclass(frozen=True, slots=True)
class Binding:
    """A published port: `protocol` is tcp or udp, `host_address` empty for all that the host has.

    `port` is the host's, `target` the container's port on the network whose bridge is `interface`.
    """

    container: str
    protocol: str
    host_address: bytes
    port: int
    target: int
    addresses: tuple[bytes, ...] = ()
    interface: str = ""


@dataclass(frozen=True, slots=True)
class WantedNetwork:
    """A network that a topology asks for."""

    name: str
    subnet: Prefix | None = None
    gateway: bytes | None = None
    internal: bool = False
    ipv6: bool = False


@dataclass(frozen=True, slots=True)
class WantedContainer:
    """A container that a topology asks for. `ports` are as `docker run -p` takes them; no `command`: a placeholder.

    `networks`: the first is its mode (`bridge`, `none`, `host`, `container:NAME`, a network), the others further ones.
    """

    name: str
    image: str
    command: tuple[str, ...] = ()
    networks: tuple[str, ...] = (DEFAULT_BRIDGE,)
    ports: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    environment: Pairs = ()


@dataclass(frozen=True, slots=True)
class Furniture:
    """What a host's engine has from the beginning."""

    networks: tuple[WantedNetwork, ...] = ()
    containers: tuple[WantedContainer, ...] = ()


EMPTY = Furniture()


@dataclass(frozen=True, slots=True)
class Engine:
    """The engine of one host, as far as frames are concerned. Only networks that are in the World are here.

    `proxy`: published ports are served to the host's own containers and to localhost by a program on the host
    (Docker's default, `userland-proxy`); without it, by hairpin translation.
    """

    host: str
    networks: tuple[Network, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    bindings: tuple[Binding, ...] = ()
    proxy: bool = True

    @property
    def name(self) -> str:
        """Its host."""
        return self.host
