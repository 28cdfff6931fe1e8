"""The networks of one host's container engine, and which of their addresses are given out to whom.

Three are there from the beginning, as `docker network ls` shows them: bridge, host and none (fidelity
DK-01). A network without a range of its own gets the next free default pool: 172.17.0.0/16 to
172.31.0.0/16, then pieces of 192.168.0.0/16 of /20; what the host has a route to already is passed over
(DK-02). The lowest free address of a range is given first, so one that came free is the next. Engines of
different hosts know nothing of each other, and give out the same addresses: nobody outside sees them.

Rule of this file: what cannot be is `Refused`, with the status and the sense of the engine's own answer,
and then nothing has changed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from emunet.cluster.assign import derive_mac
from emunet.cluster.docker.values import DEFAULT_BRIDGE, Network, Pairs, Pool
from emunet.cluster.ranges import FAMILY, last_usable
from emunet.packet.address import Prefix, format_ip, parse_ip

POOLS = (
    *(Prefix.parse(f"172.{number}.0.0/16") for number in range(17, 32)),
    *(Prefix.parse(f"192.168.{number}.0/20") for number in range(0, 256, 16)),
)
"""Default address pools in the order in which they are given out (libnetwork, ipamutils)."""

BRIDGE_OPTIONS = "com.docker.network.bridge."
MTU_OPTION = "com.docker.network.driver.mtu"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_FALSE = ("", "0", "no", "false", "none", "f")


class Refused(Exception):
    """The engine refuses: its HTTP status and its sentence."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class PoolWish:
    """One range that somebody asks for; what is None is chosen."""

    subnet: Prefix | None = None
    gateway: bytes | None = None
    range: Prefix | None = None
    reserved: Pairs = ()


@dataclass(frozen=True, slots=True)
class NetworkWish:
    """A network that somebody asks for."""

    name: str
    driver: str = "bridge"
    pools: tuple[PoolWish, ...] = ()
    ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    options: Pairs = ()
    labels: Pairs = ()


def identity(*words: object) -> str:
    """64 hex digits that stand for one thing of an engine: a hash of what makes it this one."""
    return hashlib.sha256("/".join(map(str, words)).encode()).hexdigest()


class Networks:
    """What `docker network` shows and changes on one host."""

    def __init__(self, host: str, seed: int = 0, routed: Iterable[Prefix] = (), now: int = 0) -> None:
        """`routed` are ranges that the host has routes to; `now` when the engine began (ns since 1970)."""
        self.host = host
        self.items: dict[str, Network] = {}
        self.active: set[str] = set()
        """The networks that are in the World, by id: those that people made, and `bridge` once it was used."""
        self._seed = seed
        self._routed = tuple(routed)
        self._given: dict[str, dict[bytes, str]] = {}
        self._made = 0
        for name, driver in ((DEFAULT_BRIDGE, "bridge"), ("host", "host"), ("none", "null")):
            self._add(NetworkWish(name, driver), now)

    def __iter__(self) -> Iterator[Network]:
        return iter(sorted(self.items.values(), key=lambda one: one.name))

    def find(self, word: str) -> Network:
        """The network of that id, name, or beginning of an id. Refused where it is none, or any of several."""
        if word in self.items:
            return self.items[word]
        named = [one for one in self.items.values() if one.name == word]
        if named:
            return named[0]
        begins = [one for one in self.items.values() if word and one.id.startswith(word)]
        if len(begins) > 1:
            raise Refused(400, f"network {word} is ambiguous ({len(begins)} matches found on ID prefix)")
        if not begins:
            raise Refused(404, f"network {word} not found")
        return begins[0]

    def create(self, wish: NetworkWish, now: int = 0) -> Network:
        """Make a network. Its bridge is there from now on."""
        if not _NAME.fullmatch(wish.name):
            raise Refused(400, f"{wish.name!r} is no network name: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
        if wish.name in (DEFAULT_BRIDGE, "host", "none", "default"):
            message = f"operation is not permitted on predefined {wish.name} network"
            raise Refused(403, f"{message}: {wish.name} is a pre-defined network and cannot be created")
        if any(one.name == wish.name for one in self.items.values()):
            raise Refused(409, f"network with name {wish.name} already exists")
        if wish.driver != "bridge":
            message = f"could not find plugin {wish.driver} in v1 plugin registry: plugin not found"
            raise Refused(404, f"{message} (the hosts of a lab have the driver bridge)")
        network = self._add(wish, now)
        self.active.add(network.id)
        return network

    def remove(self, word: str, users: Iterable[str]) -> Network:
        """Take a network away. `users` are the names of containers that are attached to it."""
        network = self.find(word)
        if network.is_predefined:
            raise Refused(403, f"{network.name} is a pre-defined network and cannot be removed")
        names = sorted(users)
        if names:
            message = f"error while removing network: network {network.name} has active endpoints"
            raise Refused(403, f"{message} ({', '.join(names)})")
        del self.items[network.id], self._given[network.id]
        self.active.discard(network.id)
        return network

    # Addresses

    def take(self, network: Network, owner: str, wanted: Iterable[bytes] = ()) -> tuple[tuple[bytes, Pool], ...]:
        """One address of each pool's family for `owner`, the lowest that is free or the one that is wanted."""
        wishes = list(wanted)
        given = self._given[network.id]
        found: list[tuple[bytes, Pool]] = []
        for address in wishes:
            pool = next((one for one in network.pools if one.subnet.contains(address)), None)
            if pool is None:
                message = f"invalid config for network {network.name}: invalid endpoint settings"
                raise Refused(400, f"{message}: no configured subnet contains IP address {format_ip(address)}")
            if address in given or address == pool.gateway or not _usable(pool.subnet, address):
                raise Refused(403, "Address already in use")
            found.append((address, pool))
        for family in sorted({len(pool.gateway) for pool in network.pools} - {len(address) for address, _ in found}):
            pools = [pool for pool in network.pools if len(pool.gateway) == family]
            rows = ((address, pool) for pool in pools for address in _addresses(pool) if address not in given)
            free = next(rows, None)
            if free is None:
                message = f"no available {FAMILY[family]} addresses on this network's address pools"
                raise Refused(403, f"{message}: {network.name} ({network.id})")
            found.append(free)
        given |= dict.fromkeys((address for address, _ in found), owner)
        return tuple(sorted(found, key=lambda row: len(row[0])))

    def give_back(self, network: str, owner: str) -> None:
        """What `owner` had of a network is free again."""
        rows = self._given.get(network, {})
        for address in [address for address, name in rows.items() if name == owner]:
            del rows[address]

    # Within

    def _add(self, wish: NetworkWish, now: int) -> Network:
        self._made += 1
        number = identity(self._seed, self.host, "network", self._made, wish.name)
        options = dict(wish.options)
        pools: tuple[Pool, ...] = ()
        interface, mac = "", b""
        if wish.driver == "bridge":
            default = wish.name == DEFAULT_BRIDGE
            interface = options.get(f"{BRIDGE_OPTIONS}name") or ("docker0" if default else f"br-{number[:12]}")
            if any(one.interface == interface for one in self.items.values()) or len(interface) > 15:
                raise Refused(400, f"the bridge name {interface} is taken, or longer than 15 characters")
            mac = derive_mac(self._seed, f"{self.host}:{interface}")
            pools = self._pools(wish, number)
        if wish.name == DEFAULT_BRIDGE:
            options |= {
                f"{BRIDGE_OPTIONS}default_bridge": "true",
                f"{BRIDGE_OPTIONS}enable_icc": "true",
                f"{BRIDGE_OPTIONS}enable_ip_masquerade": "true",
                f"{BRIDGE_OPTIONS}host_binding_ipv4": "0.0.0.0",
                f"{BRIDGE_OPTIONS}name": "docker0",
                MTU_OPTION: "1500",
            }
        network = Network(
            number,
            wish.name,
            wish.driver,
            pools,
            interface,
            mac,
            _number(options, MTU_OPTION, 1500),
            wish.internal,
            _is_set(options, "enable_ip_masquerade"),
            _is_set(options, "enable_icc"),
            _binding(options),
            wish.attachable,
            tuple(sorted(options.items())),
            wish.labels,
            now,
        )
        self.items[number] = network
        self._given[number] = {}
        return network

    def _pools(self, wish: NetworkWish, number: str) -> tuple[Pool, ...]:
        given = [one for one in wish.pools if one.subnet is not None or one.gateway or one.range]
        pools: list[Pool] = []
        for one in given:
            if one.subnet is None:
                raise Refused(400, "bad request: every address pool needs a subnet of its own")
            pools.append(self._pool(one, one.subnet, pools))
        if not any(len(pool.gateway) == 4 for pool in pools):
            free = next((subnet for subnet in POOLS if not self._taken(subnet, pools)), None)
            if free is None:
                message = "all predefined address pools have been fully subnetted"
                raise Refused(403, f"{message}: remove a network, or name a subnet")
            pools.insert(0, self._pool(PoolWish(free), free, pools))
        if wish.ipv6 and not any(len(pool.gateway) == 16 for pool in pools):
            subnet = Prefix(bytes((0xFD,)) + bytes.fromhex(number[:14]) + bytes(8), 64)
            pools.append(self._pool(PoolWish(subnet), subnet, pools))
        if not wish.ipv6 and any(len(pool.gateway) == 16 for pool in pools):
            raise Refused(400, "an IPv6 subnet needs --ipv6")
        return tuple(sorted(pools, key=lambda pool: len(pool.gateway)))

    def _pool(self, wish: PoolWish, subnet: Prefix, others: Iterable[Pool]) -> Pool:
        if self._taken(subnet, others):
            raise Refused(403, f"Pool overlaps with other one on this address space: {subnet}")
        if last_usable(subnet) < 2:
            raise Refused(400, f"invalid network config: the subnet {subnet} has no address for a container")
        for what in (wish.gateway, None if wish.range is None else wish.range.address):
            if what is not None and not subnet.contains(what):
                raise Refused(400, f"invalid network config: {format_ip(what)} is not in the subnet {subnet}")
        first = subnet.nth(1) if wish.range is None else wish.range.nth(1 if wish.range == subnet else 0)
        gateway = wish.gateway or (subnet.nth(1) if not _usable(subnet, first) else first)
        reserved = tuple((name, _parse(text)) for name, text in wish.reserved)
        return Pool(subnet, gateway, wish.range, reserved)

    def _taken(self, subnet: Prefix, others: Iterable[Pool]) -> bool:
        there = (pool for one in self.items.values() for pool in one.pools)
        known = (*self._routed, *(pool.subnet for pool in (*there, *others)))
        return any(one.overlaps(subnet) for one in known)


def _usable(subnet: Prefix, address: bytes) -> bool:
    return address != subnet.address and address != subnet.broadcast


def _addresses(pool: Pool) -> Iterator[bytes]:
    """The addresses of a pool for containers, the lowest first."""
    kept = {pool.gateway, *(address for _, address in pool.reserved)}
    part = pool.range or pool.subnet
    for offset in range(min(part.size, 1 << 20)):
        address = part.nth(offset)
        if address not in kept and _usable(pool.subnet, address):
            yield address


def _is_set(options: dict[str, str], name: str) -> bool:
    return options.get(BRIDGE_OPTIONS + name, "true").lower() not in _FALSE


def _number(options: dict[str, str], name: str, default: int) -> int:
    text = options.get(name, str(default))
    if not text.isdigit() or not 68 <= int(text) <= 65_535:
        raise Refused(400, f"invalid value for option {name}: expected 68 to 65535 (got {text!r})")
    return int(text)


def _binding(options: dict[str, str]) -> bytes:
    address = _parse(options.get(f"{BRIDGE_OPTIONS}host_binding_ipv4", "0.0.0.0"))
    return address if any(address) else b""


def _parse(text: str) -> bytes:
    try:
        return parse_ip(text)
    except ValueError as error:
        raise Refused(400, f"invalid IP address: {error}") from None


__all__ = ["NetworkWish", "Networks", "PoolWish", "Refused", "identity"]
