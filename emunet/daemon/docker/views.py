"""Containers and networks of an engine as clients read them.

Rule of this file: values out, in the names and types that clients insist on (a moment is text in what is
inspected and a number in lists; a port is text in one place and a number in another).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

from emunet.cluster.docker.networks import identity
from emunet.cluster.docker.values import Attachment, Network
from emunet.daemon.docker.engine import Engine
from emunet.daemon.docker.record import Body, Record
from emunet.daemon.docker.volumes import read_binds, volume_folder
from emunet.packet.address import format_ip, format_mac

_HOST_CONFIG: Body = {
    "LogConfig": {"Type": "json-file", "Config": {}},
    "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
    "AutoRemove": False,
    "PortBindings": {},
    "PublishAllPorts": False,
}
"""What clients read that not all of them send."""

_NEVER = "0001-01-01T00:00:00Z"
_UNITS = ((86_400 * 7, "weeks"), (86_400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds"))


def moment(nanoseconds: int) -> str:
    """A moment as RFC 3339 has it."""
    if not nanoseconds:
        return _NEVER
    whole, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def ago(nanoseconds: int) -> str:
    """How long something has been so, in words."""
    seconds = max(0, (time.time_ns() - nanoseconds) // 10**9)
    for size, unit in _UNITS:
        if seconds >= size:
            number = seconds // size
            return (
                f"{number} {unit}"
                if number != 1
                else {"minutes": "About a minute", "hours": "About an hour"}.get(unit, f"1 {unit.rstrip('s')}")
            )
    return "Less than a second"


def status(found: Record) -> str:
    """What `docker ps` says of how it is."""
    match found.state:
        case "running":
            return f"Up {ago(found.started)}"
        case "paused":
            return f"Up {ago(found.started)} (Paused)"
        case "exited":
            return f"Exited ({found.code}) {ago(found.finished)} ago"
    return found.state.capitalize()


def row(engine: Engine, found: Record) -> Body:
    """One line of `docker ps`."""
    return {
        "Id": found.id,
        "Names": [f"/{found.name}"],
        "Image": str(found.body.get("Image")),
        "ImageID": image_id(found.image),
        "Command": " ".join(found.argv),
        "Created": found.created // 10**9,
        "State": found.state,
        "Status": status(found),
        "Ports": _ports_listed(found),
        "Labels": found.body.get("Labels") or {},
        "SizeRw": 0,
        "SizeRootFs": 0,
        "HostConfig": {"NetworkMode": found.host_config.get("NetworkMode") or "default"},
        "NetworkSettings": {"Networks": networks_of(engine, found)},
        "Mounts": [],
    }


def container(engine: Engine, found: Record) -> Body:
    """What `docker inspect` shows."""
    argv = found.argv
    networks = networks_of(engine, found)
    default = networks.get("bridge", {})
    config = {name: value for name, value in found.body.items() if name not in ("HostConfig", "NetworkingConfig")}
    mode = found.network.mode if found.network.shares else found.host_config.get("NetworkMode") or "default"
    state = found.state
    return {
        "Id": found.id,
        "Created": moment(found.created),
        "Path": argv[0] if argv else "",
        "Args": argv[1:],
        "State": {
            "Status": state,
            "Running": found.is_running,
            "Paused": state == "paused",
            "Restarting": False,
            "OOMKilled": False,
            "Dead": False,
            "Pid": found.process.pid if found.is_running and found.process is not None else 0,
            "ExitCode": found.code,
            "Error": found.error,
            "StartedAt": moment(found.started),
            "FinishedAt": moment(found.finished),
        },
        "Image": image_id(found.image),
        "Name": f"/{found.name}",
        "RestartCount": found.restarts,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": list(found.execs) or None,
        "HostConfig": {**_HOST_CONFIG, **_given(found.host_config), "NetworkMode": mode},
        "GraphDriver": {"Name": "overlay2", "Data": None},
        "Mounts": _mounts(engine, found),
        "Config": {**config, "Hostname": found.hostname, "Image": str(found.body.get("Image")), "Tty": found.terminal},
        "NetworkSettings": {
            "Bridge": "",
            "SandboxID": found.id,
            "SandboxKey": _sandbox_key(found, engine),
            "Ports": ports_of(found),
            "EndpointID": default.get("EndpointID", ""),
            "Gateway": default.get("Gateway", ""),
            "GlobalIPv6Address": default.get("GlobalIPv6Address", ""),
            "GlobalIPv6PrefixLen": default.get("GlobalIPv6PrefixLen", 0),
            "IPAddress": default.get("IPAddress", ""),
            "IPPrefixLen": default.get("IPPrefixLen", 0),
            "IPv6Gateway": default.get("IPv6Gateway", ""),
            "MacAddress": default.get("MacAddress", ""),
            "Networks": networks,
        },
    }


def ports_of(found: Record) -> Body:
    """The published ports as `docker port` reads them, and the exposed ones; none where it does not run."""
    if not found.is_running:
        return {}
    ports: Body = {f"{port}/{protocol}": None for port, protocol in found.network.exposed}
    for one in found.network.bindings:
        address = format_ip(one.host_address) if one.host_address else "0.0.0.0"
        entry = {"HostIp": address, "HostPort": str(one.port)}
        key = f"{one.target}/{one.protocol}"
        ports[key] = [*(ports.get(key) or ()), entry]
    return ports


def networks_of(engine: Engine, found: Record) -> Body:
    """How it is on each network, by the network's name."""
    rows: Body = {}
    for network in engine.networks:
        if engine.containers.is_member(found.network, network):
            rows[network.name] = endpoint(engine, found, network)
    return rows


def endpoint(engine: Engine, found: Record, network: Network) -> Body:
    """A container's interface on a network; without addresses while it does not run."""
    attachment = found.network.attachments.get(network.id)
    place = engine.containers.place_of(found.network, network)
    wanted = {f"IPv{4 if len(one) == 4 else 6}Address": format_ip(one) for one in place.addresses}
    v4 = _address(attachment, 4)
    v6 = _address(attachment, 16)
    gateways = {len(pool.gateway): format_ip(pool.gateway) for pool in network.pools} if attachment else {}
    return {
        "IPAMConfig": wanted or None,
        "Links": None,
        "Aliases": list(place.aliases) or None,
        "MacAddress": format_mac(attachment.mac) if attachment else "",
        "DriverOpts": None,
        "GwPriority": 0,
        "NetworkID": network.id,
        "EndpointID": attachment.id if attachment else "",
        "Gateway": "" if network.internal else gateways.get(4, ""),
        "IPAddress": v4[0],
        "IPPrefixLen": v4[1],
        "IPv6Gateway": "" if network.internal else gateways.get(16, ""),
        "GlobalIPv6Address": v6[0],
        "GlobalIPv6PrefixLen": v6[1],
        "DNSNames": list(attachment.names) or None if attachment else None,
    }


def network(engine: Engine, one: Network, *, whole: bool) -> Body:
    """A network; `whole` with who is on it."""
    containers: Body = {}
    if whole:
        for member, attachment in engine.containers.on(one):
            containers[member.id] = {
                "Name": member.name,
                "EndpointID": attachment.id,
                "MacAddress": format_mac(attachment.mac),
                "IPv4Address": _with_length(attachment, 4),
                "IPv6Address": _with_length(attachment, 16),
            }
    return {
        "Name": one.name,
        "Id": one.id,
        "Created": moment(one.created),
        "Scope": "local",
        "Driver": one.driver,
        "EnableIPv4": True,
        "EnableIPv6": one.has_ipv6,
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": [
                {
                    "Subnet": str(pool.subnet),
                    "Gateway": format_ip(pool.gateway),
                    **({"IPRange": str(pool.range)} if pool.range else {}),
                    **(
                        {"AuxiliaryAddresses": {name: format_ip(address) for name, address in pool.reserved}}
                        if pool.reserved
                        else {}
                    ),
                }
                for pool in one.pools
            ],
        },
        "Internal": one.internal,
        "Attachable": one.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": containers,
        "Options": dict(one.options),
        "Labels": dict(one.labels),
    }


def image_id(name: str) -> str:
    """What stands for an image that nobody has."""
    return f"sha256:{identity('image', name)}"


def _mounts(engine: Engine, found: Record) -> list[Body]:
    volumes = volume_folder(engine.folder, "")
    rows = []
    for one in read_binds(engine.folder, found.host_config):
        path = Path(one.source)
        row: Body = {"Type": "bind", "Source": one.source, "Destination": one.target, "Mode": "", "Propagation": ""}
        if path.parent == volumes:
            row |= {"Type": "volume", "Name": path.name, "Driver": "local"}
        rows.append(row | {"RW": not one.read_only})
    return rows


def _given(config: Body) -> Body:
    """What a client has sent that says something: the CLI sends empty values for what it was not asked for."""
    empty = {"LogConfig": {"Type": "", "Config": {}}, "RestartPolicy": {"Name": "", "MaximumRetryCount": 0}}
    return {name: value for name, value in config.items() if value is not None and value != empty.get(name)}


def _ports_listed(found: Record) -> list[Body]:
    if not found.is_running:
        return []
    rows: list[Body] = [
        {
            "IP": format_ip(one.host_address) if one.host_address else "0.0.0.0",
            "PrivatePort": one.target,
            "PublicPort": one.port,
            "Type": one.protocol,
        }
        for one in found.network.bindings
    ]
    published = {(one.target, one.protocol) for one in found.network.bindings}
    rows += [
        {"PrivatePort": port, "Type": protocol}
        for port, protocol in found.network.exposed
        if (port, protocol) not in published
    ]
    return rows


def _address(attachment: Attachment | None, family: int) -> tuple[str, int]:
    for one in attachment.addresses if attachment else ():
        if len(one.address) == family:
            return format_ip(one.address), one.length
    return "", 0


def _with_length(attachment: Attachment, family: int) -> str:
    address, length = _address(attachment, family)
    return f"{address}/{length}" if address else ""


def _sandbox_key(found: Record, engine: Engine) -> str:
    sandbox = engine.ground.lab.sandboxes.get(found.sandbox)
    return f"/proc/{sandbox.pid}/ns/net" if found.is_running and sandbox is not None else ""
