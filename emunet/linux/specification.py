"""What a sandbox is to be, and what its processes are to be: values, and how they travel to the keeper.

A sandbox is the set of namespaces that a pod's (or a host's) processes live in.

Rule of this file: everything is frozen; `encode` checks all text (ValueError, with a
sentence) and gives what JSON can carry, so that the keeper trusts what it reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from emunet.packet.address import InterfaceAddress, Prefix, format_ip, parse_ip, parse_mac

Root = Literal["shared", "isolated"]


@dataclass(frozen=True, slots=True)
class InterfaceSpec:
    """One TAP of a sandbox.

    `addresses` are like `10.244.1.2/24` or `fd00::2/64`. `arp=False` is for a host's interfaces,
    whose neighbours emunet resolves itself. `vnet_header` puts a virtio-net header before each
    frame, and `offload` is a mask of `tap.OFFLOAD_` bits that needs it. `speed` (Mbit/s) is only
    what ethtool shows. `queue_length` is how many frames wait for the TAP's reader before they are
    lost. `gso_max_size` bounds an offloaded TCP frame (bytes), to leave room for tunnel headers.
    """

    name: str
    mac: str
    addresses: tuple[str, ...] = ()
    mtu: int = 1500
    arp: bool = True
    vnet_header: bool = False
    offload: int = 0
    speed: int = 10_000
    queue_length: int = 1000
    gso_max_size: int | None = None

    def encode(self) -> dict[str, Any]:
        """As the keeper reads it."""
        if not 0 < len(self.name.encode()) <= 15 or "/" in self.name or self.name.split() != [self.name]:
            raise ValueError(f"{self.name!r} cannot name an interface: 1 to 15 bytes without spaces or slashes")
        if self.offload and not self.vnet_header:
            raise ValueError(f"{self.name}: offloads need vnet_header, which carries what was left undone")
        addresses = [InterfaceAddress.parse(text) for text in self.addresses]
        return {
            "name": self.name,
            "mac": parse_mac(self.mac).hex(),
            "addresses": [[format_ip(one.address), one.length] for one in addresses],
            "mtu": self.mtu,
            "arp": self.arp,
            "vnet_header": self.vnet_header,
            "offload": self.offload,
            "speed": self.speed,
            "queue_length": self.queue_length,
            "gso_max_size": self.gso_max_size,
        }


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """One route of a sandbox's main table.

    `destination` is a network, `0.0.0.0/0` or `::/0` for the default route. Without `via` the
    destination is on the link of `interface`. `onlink`: the next hop is on the link whatever its
    address says. `source`: the address that packets get by preference.
    """

    destination: str
    via: str | None = None
    interface: str = ""
    onlink: bool = False
    metric: int = 0
    source: str | None = None

    def encode(self) -> dict[str, Any]:
        """As the keeper reads it."""
        prefix = Prefix.parse(self.destination)
        if self.via is None and not self.interface:
            raise ValueError(f"the route to {self.destination} says neither via whom nor on which interface")
        return {
            "destination": format_ip(prefix.address),
            "length": prefix.length,
            "via": _canonical(self.via),
            "interface": self.interface,
            "onlink": self.onlink,
            "metric": self.metric,
            "source": _canonical(self.source),
        }


@dataclass(frozen=True, slots=True)
class NeighborSpec:
    """A permanent neighbour entry: it never ages and is never asked for."""

    interface: str
    address: str
    mac: str

    def encode(self) -> dict[str, Any]:
        """As the keeper reads it."""
        return {"interface": self.interface, "address": _canonical(self.address), "mac": parse_mac(self.mac).hex()}


@dataclass(frozen=True, slots=True)
class BindSpec:
    """A folder or file of the machine (`source`) that programs of an isolated root see at `target`.

    With `within`, that folder of the machine is a file system of the lab's own, in memory, which ends with the lab;
    `source` is a path in there, a folder or an (empty) `file` that is made where it is missing. With `volume` it is
    a path in a folder of that name in the memory of the root itself, which may be bound to several targets; files
    that the sandbox is given are in it, whether or not its own programs can only read it.
    """

    source: str
    target: str
    read_only: bool = False
    within: str = ""
    file: bool = False
    volume: str = ""

    def encode(self) -> list[Any]:
        """As the keeper reads it."""
        for path in (self.source, self.target):
            if not path.startswith("/") or ".." in path.split("/"):
                raise ValueError(f"{path!r} cannot be bound: an absolute path without .. is expected")
        if "/" in self.volume:
            raise ValueError(f"{self.volume!r} cannot be the name of a volume: it has a slash")
        return [self.source, self.target, self.read_only, self.within, self.file, self.volume]


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """A sandbox: its network, its name, its files.

    `id` is unique in the lab (`default/web-1`, `host1`). `files` (path -> text) are laid over
    /etc/hosts and the like; `modes` are those that are not 0644. Forwarding is off unless asked for, whatever the
    machine does.
    `sysctls` are by name (`net.ipv4.tcp_ecn`), for what belongs to a network namespace.

    With `network_of` it has no network and no name of its own: it lives in those of that sandbox, which is there.

    `root` "shared": its programs see the machine's files, with /proc, /sys and `files` of their own.
    "isolated": they see a copy of the machine's system folders that they may change without changing
    the machine, up to `root_size` bytes of memory; `emunet exec` can still ask for the shared view. What is
    in `binds` they see as it is on the machine, and what they write there stays.
    """

    id: str
    hostname: str
    interfaces: tuple[InterfaceSpec, ...] = ()
    routes: tuple[RouteSpec, ...] = ()
    neighbors: tuple[NeighborSpec, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    modes: Mapping[str, int] = field(default_factory=dict)
    forwarding: bool = False
    sysctls: Mapping[str, str] = field(default_factory=dict)
    root: Root = "shared"
    root_size: int = 256 << 20
    binds: tuple[BindSpec, ...] = ()
    network_of: str = ""

    def encode(self) -> dict[str, Any]:
        """As the keeper reads it."""
        if len(self.hostname.encode()) > 64:
            raise ValueError(f"the host name {self.hostname!r} is too long for Linux: 64 bytes at most")
        if self.network_of and (self.interfaces or self.routes or self.neighbors or self.sysctls):
            raise ValueError(f"{self.id} lives in the network of {self.network_of}, and cannot change it")
        for path in self.files:
            if not path.startswith("/") or ".." in path.split("/"):
                raise ValueError(f"{path!r} cannot be a file of a sandbox: an absolute path without .. is expected")
        return {
            "id": self.id,
            "hostname": self.hostname,
            **encode_network(self.interfaces, self.routes, self.neighbors),
            "files": dict(self.files),
            "modes": dict(self.modes),
            "forwarding": self.forwarding,
            "sysctls": dict(self.sysctls),
            "root": self.root,
            "root_size": self.root_size,
            "binds": [one.encode() for one in self.binds],
            "network_of": self.network_of,
        }


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """A program to run in a sandbox.

    `environment` None means nothing but a PATH. `terminal`: its standard input is a terminal, which
    becomes its controlling one. `own_processes`: it sees only itself and its children, and when it
    ends they all do (as a container's do); otherwise it lives among the sandbox's processes, and
    what it leaves behind lives on. `view` None is the sandbox's own root. `user` is (uid, gid).
    `capabilities` are numbers of those it may have (linux/capability.h); None means all in the shared view,
    and `roots.CONTAINER_CAPABILITIES` in an isolated root.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] | None = None
    directory: str = "/"
    terminal: bool = False
    own_processes: bool = False
    view: Root | None = None
    user: tuple[int, int] | None = None
    capabilities: frozenset[int] | None = None

    def encode(self) -> dict[str, Any]:
        """As the keeper reads it."""
        if not self.argv:
            raise ValueError("a program needs at least its name")
        return {
            "argv": list(self.argv),
            "environment": dict(DEFAULT_ENVIRONMENT if self.environment is None else self.environment),
            "directory": self.directory,
            "terminal": self.terminal,
            "own_processes": self.own_processes,
            "view": self.view,
            "user": list(self.user) if self.user else None,
            "capabilities": sorted(self.capabilities) if self.capabilities is not None else None,
        }


DEFAULT_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
"""What a container gets that says nothing of its environment (docker's and Kubernetes' own)."""


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """Echo requests to many targets at once.

    `count` requests to each, `interval` seconds apart, each answered within `timeout` seconds or
    lost; `size` bytes of data in each (at least 0, at most 65,507).
    """

    targets: tuple[str, ...]
    count: int = 1
    timeout: float = 1.0
    interval: float = 0.2
    size: int = 56

    def encode(self) -> dict[str, Any]:
        """As the keeper reads it."""
        if len(self.targets) * self.count > 65_536:
            raise ValueError("an echo probe numbers its requests with 16 bits: 65,536 of them at most")
        if not 0 <= self.size <= 65_507:
            raise ValueError(f"{self.size} bytes do not fit an echo request: 0 to 65,507")
        return {
            "targets": [_canonical(target) for target in self.targets],
            "count": self.count,
            "timeout": self.timeout,
            "interval": self.interval,
            "size": self.size,
        }


_INTERFACES_MAX = 120
"""Two descriptors come back for each, and a message carries 250 (`messages`)."""


def encode_network(
    interfaces: tuple[InterfaceSpec, ...], routes: tuple[RouteSpec, ...], neighbors: tuple[NeighborSpec, ...]
) -> dict[str, Any]:
    """The network part of a sandbox, as the keeper reads it."""
    if len(interfaces) > _INTERFACES_MAX:
        raise ValueError(f"{len(interfaces)} interfaces for one sandbox at once: {_INTERFACES_MAX} at most")
    return {
        "interfaces": [interface.encode() for interface in interfaces],
        "routes": [route.encode() for route in routes],
        "neighbors": [neighbor.encode() for neighbor in neighbors],
    }


def _canonical(address: str | None) -> str | None:
    return None if address is None else format_ip(parse_ip(address))
