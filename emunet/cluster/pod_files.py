"""The files of a pod by which its programs find names: /etc/resolv.conf and /etc/hosts, as a kubelet writes them.

    dnsPolicy    ClusterFirst (default)    the cluster's name server and search list, ndots:5
                 with hostNetwork          as Default, unless it is ClusterFirstWithHostNet
                 Default                   what its host has; a host of a lab knows no name server
                 None                      nothing
    dnsConfig    is added to that; of options the later ones win

Rule of this file: values in, text out. Where the cluster has no name server there is nothing to write into
resolv.conf, and the lab's own names go into /etc/hosts instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from emunet.cluster.store import Object, meta

NAMESERVERS_MAX, SEARCHES_MAX, SEARCH_CHARACTERS_MAX = 3, 32, 2048
"""What a kubelet writes at most (its validation has the same limits)."""

HOST_NAME_MAX = 64
"""Bytes of the name of a machine (Linux, sethostname(2))."""

NO_SERVER = "# This lab has no name server: `dns: true` in the topology, or a Service, would bring one.\n"

HOST_HEAD = "# Kubernetes-managed hosts file (host network).\n"
"""Above the lines of its host, in the /etc/hosts of a pod that lives in its host's network."""

_LOOPBACK = """# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """What a pod's /etc/resolv.conf says; an option without a value has None."""

    servers: tuple[str, ...]
    searches: tuple[str, ...]
    options: tuple[tuple[str, str | None], ...]

    @property
    def ndots(self) -> int:
        """From how many dots on a name is tried as it is first; 1 where nothing else is said (resolv.conf(5))."""
        value = dict(self.options).get("ndots") or ""
        return min(int(value), 15) if value.isascii() and value.isdigit() else 1

    def as_text(self) -> str:
        """As a file."""
        lines = [f"nameserver {one}" for one in self.servers]
        if self.searches:
            lines.append(f"search {' '.join(self.searches)}")
        if self.options:
            words = [name if value is None else f"{name}:{value}" for name, value in self.options]
            lines.append(f"options {' '.join(words)}")
        return ("" if self.servers else NO_SERVER) + "".join(f"{line}\n" for line in lines)


def resolv_conf(pod: Object, server: str | None, domain: str) -> ResolvConf:
    """How a pod looks names up. `server` is the address of the cluster's name server, None where it has none."""
    spec, config = pod["spec"], pod["spec"].get("dnsConfig") or {}
    policy = spec.get("dnsPolicy", "ClusterFirst")
    servers: list[str] = []
    searches: list[str] = []
    options: dict[str, str | None] = {}
    with_host = spec.get("hostNetwork") and policy == "ClusterFirst"
    if server is not None and policy in ("ClusterFirst", "ClusterFirstWithHostNet") and not with_host:
        servers = [server]
        searches = [f"{meta(pod)['namespace']}.svc.{domain}", f"svc.{domain}", domain]
        options = {"ndots": "5"}
    servers = list(dict.fromkeys([*servers, *config.get("nameservers", ())]))[:NAMESERVERS_MAX]
    searches = list(_within(dict.fromkeys([*searches, *config.get("searches", ())])))
    for option in config.get("options", ()):
        options[option.get("name", "")] = option.get("value")
    return ResolvConf(tuple(servers), tuple(searches), tuple(options.items()))


def hosts_file(pod: Object, addresses: Iterable[str], domain: str, others: Iterable[tuple[str, str]] = ()) -> str:
    """A pod's /etc/hosts. `others` are addresses and names of a lab without a name server."""
    names = f"{host_name(pod)}\n"
    full = full_name(pod, domain)
    if full is not None:
        names = f"{full}\t{names}"
    own = "".join(f"{address}\t{names}" for address in addresses)
    lab = "".join(f"{address}\t{name}\n" for address, name in others)
    if lab:
        lab = f"\n# Names of this lab, which has no name server.\n{lab}"
    return _LOOPBACK + own + lab + aliases_of(pod)


def aliases_of(pod: Object) -> str:
    """The end of its /etc/hosts: the names that its spec gives to addresses."""
    lines = ["\t".join((one["ip"], *one.get("hostnames", ()))) + "\n" for one in pod["spec"].get("hostAliases", ())]
    return "\n# Entries added by HostAliases.\n" + "".join(lines) if lines else ""


def host_name(pod: Object) -> str:
    """The short name of a pod's machine."""
    return str(pod["spec"].get("hostname") or meta(pod)["name"][:63].rstrip("-."))


def full_name(pod: Object, domain: str) -> str | None:
    """The name of a pod in the domain of its subdomain; None where it has none."""
    subdomain = pod["spec"].get("subdomain")
    return f"{host_name(pod)}.{subdomain}.{meta(pod)['namespace']}.svc.{domain}" if subdomain else None


def machine_name(pod: Object, domain: str) -> str:
    """The full name of a pod as that of its machine; empty where it has none, or Linux does not take one so long."""
    full = full_name(pod, domain) or ""
    return full if len(full) <= HOST_NAME_MAX else ""


def _within(searches: Iterable[str]) -> Iterable[str]:
    length = 0
    for number, search in enumerate(searches):
        length += len(search) + (number > 0)
        if number >= SEARCHES_MAX or length > SEARCH_CHARACTERS_MAX:
            return
        yield search
