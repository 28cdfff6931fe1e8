"""One container of an engine, as a client asked for it and as it is.

Rule of this file: it reads what clients send and keeps it as they sent it; what a field means for the
network is said in `cluster.docker.containers`.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import Any

from emunet.cluster.docker.containers import Container, Place, PortWish
from emunet.cluster.docker.networks import Refused
from emunet.cluster.docker.values import WantedContainer
from emunet.daemon.docker.process import Log, Process
from emunet.packet.address import format_ip, parse_ip, parse_mac

Body = dict[str, Any]

PROGRAMS = {"busybox": "sh", "alpine": "sh", "debian": "bash", "ubuntu": "bash", "python": "python3"}
"""What images run that say nothing else, as far as machines have it. Others are placeholders."""

_NAME_OF_IMAGE = re.compile(r"^(?:docker\.io/)?(?:library/)?")


@dataclass(slots=True)
class Record:
    """A container: `network` is its part in the networks, `body` what the client sent, `sandbox` where it runs.

    state is created, running, paused, exited, restarting, removing or dead.
    """

    network: Container
    body: Body
    image: str
    created: int
    log: Log
    state: str = "created"
    started: int = 0
    finished: int = 0
    code: int = 0
    error: str = ""
    process: Process | None = None
    sandbox: str = ""
    own_sandbox: bool = False
    attached: Process | None = None
    """What clients are attached to before it has begun: it becomes the process."""
    exits: list[asyncio.Future[int]] = field(default_factory=list)
    removals: list[asyncio.Future[int]] = field(default_factory=list)
    restarts: int = 0
    stopping: bool = False
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when its last run has ended and its network is gone."""
    execs: dict[str, Exec] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """64 hex digits."""
        return self.network.id

    @property
    def name(self) -> str:
        """As people call it, without a slash."""
        return self.network.name

    @property
    def host_config(self) -> Body:
        """What is said of where it runs, not of what."""
        found: Body = self.body.get("HostConfig") or {}
        return found

    @property
    def terminal(self) -> bool:
        """Whether its program has a terminal."""
        return bool(self.body.get("Tty"))

    @property
    def is_running(self) -> bool:
        """Paused counts: it holds what it has."""
        return self.state in ("running", "paused")

    @property
    def argv(self) -> list[str]:
        """What it runs; empty for a placeholder."""
        given = [*words(self.body.get("Entrypoint")), *words(self.body.get("Cmd"))]
        if given:
            return given
        default = PROGRAMS.get(self.image.partition(":")[0])
        return [default] if default else []

    @property
    def hostname(self) -> str:
        """As its programs see it."""
        return self.body.get("Hostname") or self.id[:12]

    @property
    def environment(self) -> dict[str, str]:
        """Its variables, in the order in which they were given."""
        rows = [str(one).partition("=") for one in self.body.get("Env") or ()]
        return {name: value for name, _, value in rows}


@dataclass(slots=True)
class Exec:
    """A program that is run in a container beside its own."""

    id: str
    body: Body
    container: str
    process: Process
    begun: bool = False

    @property
    def terminal(self) -> bool:
        """Whether it has a terminal."""
        return bool(self.body.get("Tty"))


def body_of(wanted: WantedContainer, ports: list[PortWish]) -> Body:
    """A container of a topology, as a client would ask for it."""
    mode, *more = wanted.networks
    bindings: dict[str, list[Body]] = {}
    for one in ports:
        row = {
            "HostIp": format_ip(one.host_address) if one.host_address else "",
            "HostPort": str(one.port) if one.port else "",
        }
        bindings.setdefault(f"{one.target}/{one.protocol}", []).append(row)
    endpoints: dict[str, Body] = {word: {} for word in more} | (
        {mode: {"Aliases": list(wanted.aliases)}} if wanted.aliases else {}
    )
    return {
        "Image": wanted.image,
        "Cmd": list(wanted.command),
        "Env": [f"{name}={text}" for name, text in wanted.environment],
        "ExposedPorts": {key: {} for key in bindings},
        "HostConfig": {"NetworkMode": mode, "PortBindings": bindings},
        "NetworkingConfig": {"EndpointsConfig": endpoints},
    }


def words(value: Any) -> list[str]:
    """A command as clients send it: a list, a text, or nothing."""
    if not value:
        return []
    return [value] if isinstance(value, str) else [str(one) for one in value]


def short_image(name: str) -> str:
    """`docker.io/library/nginx` -> `nginx:latest`, as people know it."""
    name = _NAME_OF_IMAGE.sub("", name)
    return name if ":" in name.rpartition("/")[2] or "@" in name else f"{name}:latest"


def network_mode(body: Body) -> str:
    """How a container is joined: the mode as `Containers.add` takes it."""
    mode = str((body.get("HostConfig") or {}).get("NetworkMode") or "default")
    return "bridge" if mode == "default" else mode


def places(body: Body) -> dict[str, Place]:
    """How a container wants to be on each network that its create body names."""
    config = (body.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
    found = {("bridge" if name == "default" else name): place(value or {}) for name, value in config.items()}
    mac = body.get("MacAddress")
    mode = network_mode(body)
    if mac and ":" not in mode and mode not in ("none", "host"):
        known = found.get(mode, Place())
        found[mode] = Place(known.addresses, known.mac or _mac(mac), known.aliases)
    return found


def place(endpoint: Body) -> Place:
    """How a container wants to be on one network."""
    wish = endpoint.get("IPAMConfig") or {}
    texts = [wish.get("IPv4Address"), wish.get("IPv6Address")]
    mac = endpoint.get("MacAddress")
    return Place(
        tuple(_address(text) for text in texts if text),
        _mac(mac) if mac else b"",
        tuple(dict.fromkeys(endpoint.get("Aliases") or ())),
    )


def port_wishes(body: Body) -> list[PortWish]:
    """The ports to publish."""
    found = []
    for key, rows in ((body.get("HostConfig") or {}).get("PortBindings") or {}).items():
        target, protocol = port_key(key)
        for row in rows or [{}]:
            text = str(row.get("HostPort") or "0").partition("-")[0]
            if not text.isdigit() or int(text) > 65_535:
                raise Refused(400, f"invalid port specification: {text!r}")
            address = _address(row["HostIp"]) if row.get("HostIp") else b""
            found.append(PortWish(target, protocol, int(text), address if any(address) else b""))
    return found


def exposed(body: Body) -> list[tuple[int, str]]:
    """The ports that are said to be listened on."""
    return [port_key(key) for key in body.get("ExposedPorts") or {}]


def port_key(key: str) -> tuple[int, str]:
    """`80/tcp` -> (80, "tcp")."""
    number, _, protocol = key.partition("/")
    protocol = protocol or "tcp"
    if not number.isdigit() or not 0 < int(number) <= 65_535 or protocol not in ("tcp", "udp"):
        raise Refused(400, f"invalid port {key!r}: a number of 1 to 65535, tcp or udp")
    return int(number), protocol


def _address(text: str) -> bytes:
    try:
        return parse_ip(text)
    except ValueError:
        raise Refused(400, f"invalid IP address: {text}") from None


def _mac(text: str) -> bytes:
    try:
        return parse_mac(text)
    except ValueError:
        raise Refused(400, f"invalid MAC address: {text}") from None
