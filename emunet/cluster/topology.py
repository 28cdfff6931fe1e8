"""`kind: Topology`: the machines, cables and address ranges of a lab, as a file states them.

The short forms (a host as its bare name, a link as `host1 -- switch1`, an overlay as
`vxlan`, masquerade as `true`, one range instead of a list) are the same models as the long ones. Defaults
that depend on other fields are computed here, so that every reader sees the same.

Rule of this file: it says what one field may hold. Whether fields fit together is
`check`'s concern, and what they mean is `build`'s.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AliasChoices, Field, model_validator

from emunet.cluster.impairments import Direction, Troubled
from emunet.cluster.schema import (
    Address,
    Addresses,
    DnsLabel,
    DnsSubdomain,
    LabelKey,
    LabelValue,
    Model,
    Network,
    Networks,
    PortNumber,
    whole,
)
from emunet.packet.address import Prefix, parse_ip

API_VERSION = "emunet/v1"

VXLAN_PORT = 4789
"""UDP port of RFC 7348; Wireshark dissects it. flannel's own (the kernel's old default) is 8472."""

DEFAULT_PODS = Prefix.parse("10.244.0.0/16")
DEFAULT_SERVICES = {4: Prefix.parse("10.96.0.0/16"), 16: Prefix.parse("fd00:10:96::/112")}
DEFAULT_UNDERLAY = {4: Prefix.parse("192.168.9.0/24"), 16: Prefix.parse("fd00:192:168:9::/64")}
"""Default ranges; by the length of an address in bytes where the pods' families decide which are used."""

DEFAULT_SWITCH = "switch1"
DEFAULT_DOMAIN = "cluster.local"

_SHORT_LINK = re.compile(r"\s*(\S+)\s+--\s+(\S+)\s*")

Mtu = Annotated[int, whole(68, 65535)]
"""RFC 791 3.2: every link carries 68 bytes; a length field of 16 bits ends at 65535."""


class Named(Model):
    """Something with a name, whose bare name is the short form."""

    name: DnsLabel

    @model_validator(mode="before")
    @classmethod
    def _short(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data


class Metadata(Model):
    """A topology's name, which is also its lab's."""

    called: ClassVar[str] = "a topology's metadata"
    name: DnsLabel


class NodeMasks(Model):
    """Prefix lengths of the part of the pod range that each host gets."""

    called: ClassVar[str] = "nodeMasks"
    ipv4: Annotated[int, whole(1, 30)] = Field(24, alias="IPv4")
    ipv6: Annotated[int, whole(1, 126)] = Field(64, alias="IPv6")

    def of(self, prefix: Prefix) -> int:
        """The mask for the family of a range."""
        return self.ipv4 if len(prefix.address) == 4 else self.ipv6


class Underlay(Model):
    """The network that joins the hosts' eth0. `underlay: 192.168.9.0/24` is the short form."""

    called: ClassVar[str] = "the underlay"
    cidrs: Annotated[Networks, Field(min_length=1)] | None = Field(None, validation_alias=AliasChoices("cidrs", "cidr"))
    mtu: Mtu = 1500

    @model_validator(mode="before")
    @classmethod
    def _short(cls, data: Any) -> Any:
        return {"cidrs": data} if isinstance(data, str | list) else data


class Overlay(Model):
    """How pod packets cross the underlay. `overlay: vxlan` is the short form.

    `directRouting`: between hosts on one network the pods' packets go as they are, as with host-gw.
    """

    called: ClassVar[str] = "an overlay"
    kind: Literal["host-gw", "vxlan"] = "vxlan"
    direct_routing: bool = False
    port: PortNumber = VXLAN_PORT
    vni: Annotated[int, whole(1, 16777215)] = 1

    @model_validator(mode="before")
    @classmethod
    def _short(cls, data: Any) -> Any:
        return {"kind": data} if isinstance(data, str) else data


class Masquerade(Model):
    """Whether what pods send to outside the cluster comes from their host. `masquerade: true` is the short form.

    `except` are destinations beside the cluster's own ranges that see the pods' addresses.
    """

    called: ClassVar[str] = "masquerade"
    enabled: bool = True
    exceptions: Networks = Field([], validation_alias=AliasChoices("except"))

    @model_validator(mode="before")
    @classmethod
    def _short(cls, data: Any) -> Any:
        if not isinstance(data, bool | dict):
            raise ValueError("expected true, false, or a mapping with except")
        return {"enabled": data} if isinstance(data, bool) else data


class Dns(Model):
    """The cluster's name server. `dns: true`, `dns: false` and `dns: auto` are short forms.

    `auto`: it is there from the first Service on. `forward` are the addresses of the servers that it asks for
    names outside of `domain`; it asks nobody else.
    """

    called: ClassVar[str] = "dns"
    enabled: bool | Literal["auto"] = "auto"
    domain: DnsSubdomain = DEFAULT_DOMAIN
    forward: Addresses = []

    @model_validator(mode="before")
    @classmethod
    def _short(cls, data: Any) -> Any:
        if not isinstance(data, bool | dict) and data != "auto":
            raise ValueError("expected true, false, auto, or a mapping with enabled, domain or forward")
        return data if isinstance(data, dict) else {"enabled": data}


class Publish(Model):
    """A port of a host that leads to one of its pods. `pod` is a name, or namespace/name."""

    called: ClassVar[str] = "a published port"
    port: PortNumber
    pod: str
    protocol: Literal["TCP", "UDP"] = "TCP"
    target_port: PortNumber | None = None
    host_ip: Address | None = Field(None, validation_alias=AliasChoices("hostIP"))


class DockerNetwork(Named):
    """A network of a host's container engine. Its bare name is the short form."""

    called: ClassVar[str] = "a Docker network"
    name: str
    subnet: Network | None = None
    gateway: Address | None = None
    internal: bool = False
    ipv6: bool = False


class DockerContainer(Model):
    """A container of a host's engine. `network` and `ports` are as `docker run` takes them; the image is the name."""

    called: ClassVar[str] = "a container"
    name: str
    image: str = ""
    command: list[str] = []
    network: str = "bridge"
    networks: list[str] = []
    ports: list[str] = []
    aliases: list[str] = []
    env: dict[str, str] = {}


class Docker(Model):
    """What a host's container engine has from the beginning."""

    called: ClassVar[str] = "a host's docker"
    networks: list[DockerNetwork] = []
    containers: list[DockerContainer] = []


class Host(Named):
    """A machine that runs pods; with `node: false` one that is no part of the cluster: a caller from outside."""

    called: ClassVar[str] = "a host"
    node: bool = True
    addresses: Addresses = Field([], validation_alias=AliasChoices("address", "addresses"))
    pod_cidrs: Networks = Field([], validation_alias=AliasChoices("podCIDR", "podCIDRs"))
    labels: dict[LabelKey, LabelValue] = {}
    publish: list[Publish] = []
    docker: Docker = Docker()

    @model_validator(mode="after")
    def _outside_of_the_cluster(self) -> Self:
        if not self.node:
            for name, given in (("podCIDR", self.pod_cidrs), ("publish", self.publish), ("labels", self.labels)):
                if given:
                    raise ValueError(f"{name} belongs to a node: with node: false a host runs no pods")
            if self.docker.networks or self.docker.containers:
                raise ValueError("docker belongs to a node: with node: false a host has no container engine")
        return self


class Outside(Model):
    """A wire from a switch out of the lab: to a socket file (`listen`: it is ours), or from UDP address to address."""

    called: ClassVar[str] = "an outside wire"
    name: DnsLabel
    unix: str | None = None
    listen: bool = False
    udp: str | None = None
    to: str | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.unix is None) == (self.udp is None):
            raise ValueError("expected either unix (a socket file) or udp (an address and port)")
        if self.unix is not None and (not self.unix.startswith("/") or len(self.unix.encode()) > 107):
            raise ValueError(f"unix: expected an absolute path of at most 107 bytes (got {self.unix!r})")
        if self.udp is not None and (self.to is None or self.listen):
            raise ValueError("udp goes from an address and port `to` another, and listens by itself")
        if self.unix is not None and self.to is not None:
            raise ValueError("to belongs to udp")
        for text in (self.udp, self.to):
            if text is not None:
                address, _, port = text.rpartition(":")
                if not port.isdigit() or not 0 < int(port) < 65536 or not _is_ip(address):
                    raise ValueError(f"expected an address and a port like 127.0.0.1:7001 or [::1]:7001 (got {text!r})")
        if self.udp is not None and self.to is not None and self.udp.startswith("[") != self.to.startswith("["):
            raise ValueError("udp and to are of different families")
        return self


def _is_ip(text: str) -> bool:
    try:
        family = len(parse_ip(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        return False
    return text.startswith("[") == (family == 16)


class Switch(Named):
    """A plain Ethernet switch."""

    called: ClassVar[str] = "a switch"
    outside: list[Outside] = []

    @model_validator(mode="after")
    def _ports_have_names_of_their_own(self) -> Self:
        names = [one.name for one in self.outside]
        twice = sorted({name for name in names if names.count(name) > 1 or name.isdigit()})
        if twice:
            raise ValueError(f"outside wires need names of their own that are no numbers (got {', '.join(twice)})")
        return self


class Link(Troubled):
    """A cable, and what goes wrong on it. `host1 -- switch1` is the short form."""

    called: ClassVar[str] = "a link"
    name: DnsLabel | None = None
    mtu: Mtu | None = None
    one_way: dict[str, Direction] = Field({}, alias="from")

    def directions(self) -> dict[str, Direction]:
        """What `from` says."""
        return self.one_way

    @model_validator(mode="before")
    @classmethod
    def _short(cls, data: Any) -> Any:
        if not isinstance(data, str):
            return data
        ends = _SHORT_LINK.fullmatch(data)
        if ends is None:
            raise ValueError("expected a link like host1 -- switch1, or a mapping with a and b")
        return {"a": ends[1], "b": ends[2]}

    @property
    def called_by(self) -> str:
        """Its name: the one given, or one made of its ends."""
        return self.name or f"{self.a}--{self.b}"


class Spec(Model):
    """Ranges, overlay, machines and cables."""

    called: ClassVar[str] = "a topology's spec"
    pod_cidrs: Annotated[Networks, Field(min_length=1)] = Field(
        [DEFAULT_PODS], validation_alias=AliasChoices("podCIDRs", "podCIDR")
    )
    node_masks: NodeMasks = NodeMasks()
    service_cidrs: Annotated[Networks, Field(min_length=1)] | None = Field(
        None, validation_alias=AliasChoices("serviceCIDRs", "serviceCIDR")
    )
    underlay: Underlay = Underlay()
    load_balancer_pool: Networks = Field([], alias="loadBalancerPool")
    """Parts of the underlay, of which Services of type LoadBalancer get their addresses."""
    overlay: Overlay = Overlay()
    pod_links: Literal["bridge", "routed"] = "bridge"
    """How pods are joined to their host: on a bridge of their own (flannel), or each by a routed link (Calico)."""
    masquerade: Masquerade = Masquerade(enabled=False)
    dns: Dns = Dns()
    network_policy: Literal["connection", "packet"] | None = None
    """What a NetworkPolicy that changes means for open connections: `connection`: one that was permitted and
    answered goes on; `packet`: each packet is judged by the policies of now. Either makes hosts track connections
    from the beginning; without a word it is `connection`, and they begin with the first policy.
    """
    hosts: Annotated[list[Host], Field(min_length=1)]
    switches: list[Switch] | None = None
    links: list[Link] | None = None

    @model_validator(mode="after")
    def _some_node(self) -> Self:
        if not any(host.node for host in self.hosts):
            raise ValueError("hosts: expected a node at least: all of them say node: false")
        return self

    @property
    def nodes(self) -> list[Host]:
        """The hosts that run pods."""
        return [host for host in self.hosts if host.node]

    @property
    def services(self) -> list[Prefix]:
        """The service ranges: those given, or the defaults for the pods' families."""
        return self.service_cidrs or [DEFAULT_SERVICES[len(pods.address)] for pods in self.pod_cidrs]

    @property
    def underlays(self) -> list[Prefix]:
        """The underlay's ranges: those given, or the defaults for the pods' families."""
        return self.underlay.cidrs or [DEFAULT_UNDERLAY[len(pods.address)] for pods in self.pod_cidrs]

    @property
    def all_switches(self) -> list[Switch]:
        """The switches given; `switch1` where neither switches nor links are."""
        if self.switches is None and self.links is None:
            return [Switch(name=DEFAULT_SWITCH)]
        return self.switches or []

    @property
    def all_links(self) -> list[Link]:
        """The links given; every host to `switch1` where neither switches nor links are."""
        if self.switches is None and self.links is None:
            return [Link(a=host.name, b=DEFAULT_SWITCH) for host in self.hosts]
        return self.links or []


class Topology(Model):
    """One lab's machines and ranges. The `emunet up` of several files takes exactly one."""

    called: ClassVar[str] = "a Topology"
    api_version: Literal["emunet/v1"]
    kind: Literal["Topology"]
    metadata: Metadata
    spec: Spec
