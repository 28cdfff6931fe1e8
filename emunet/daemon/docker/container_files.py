"""The files that an engine writes for each container: /etc/hosts, /etc/hostname, /etc/resolv.conf.

Rule of this file: values in, texts out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emunet.daemon.docker.record import Record
from emunet.packet.address import format_ip

if TYPE_CHECKING:
    from emunet.daemon.docker.engine import Engine

RESOLVER = "127.0.0.11"
"""Where containers of user-defined networks find each other's names (DK-15)."""

_LOCAL = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
"""
_NAME_SERVICES = """passwd: files
group: files
hosts: files dns
networks: files
"""


def files_of(engine: Engine, found: Record) -> dict[str, str]:
    """The files of a container that has its addresses."""
    lines = [_LOCAL.rstrip("\n")]
    gateway = next((one for row in found.network.attachments.values() for one in row.gateways), None)
    for text in found.host_config.get("ExtraHosts") or ():
        name, _, address = str(text).replace("=", ":", 1).partition(":")
        if address == "host-gateway" and gateway is not None:
            address = format_ip(gateway)
        lines.append(f"{address}\t{name}")
    domain = found.body.get("Domainname")
    names = f"{found.hostname}.{domain} {found.hostname}" if domain else found.hostname
    for row in found.network.attachments.values():
        lines += [f"{format_ip(one.address)}\t{names}" for one in row.addresses]
    return {
        "/etc/hosts": "\n".join(lines) + "\n",
        "/etc/hostname": f"{found.hostname}\n",
        "/etc/resolv.conf": resolver(engine, found),
        "/etc/nsswitch.conf": _NAME_SERVICES,
    }


def resolver(engine: Engine, found: Record) -> str:
    """Whom a container asks for names: the engine's resolver on a network of people's own, else whom it was told."""
    config = found.host_config
    lines = []
    if config.get("DnsSearch"):
        lines.append("search " + " ".join(config["DnsSearch"]))
    options = list(config.get("DnsOptions") or ())
    if has_names(engine, found):
        lines.append(f"nameserver {RESOLVER}")
        options = options or ["ndots:0"]
    else:
        lines += [f"nameserver {one}" for one in config.get("Dns") or ()]
    if options:
        lines.append("options " + " ".join(options))
    return "\n".join(lines) + "\n" if lines else "# nobody to ask: a lab has no name server beside its clusters' own\n"


def has_names(engine: Engine, found: Record) -> bool:
    """Whether a container is on a network where names are known."""
    return any(not engine.networks.items[number].is_default for number in found.network.attachments)
