"""The kernel itself: its bridge, and its paths between two hosts, routed and through VXLAN.

Rule of this file: set up as an administrator (or flannel) would, offloads as they come.
"""

from __future__ import annotations

import platform
from types import MappingProxyType

from benchmarks.peers.peer import NAMESPACES, End, NamespacePeer
from benchmarks.topologies import SERVICE_ADDRESS
from emunet.linux.specification import SandboxSpec

_VXLAN_PORT = 8472
_OVERHEAD = 50


class KernelBridge(NamespacePeer):
    """Two pods on one bridge, each by a veth pair."""

    name = "kernel bridge"
    title = "Linux bridge, veth"

    def build(self) -> None:
        self.make_bare_pods()
        self.site.make(SandboxSpec("switch", "switch"))
        self.ip("switch", "link add br0 type bridge", "link set br0 up")
        for end in (self.a, self.b):
            self.join_by_veth("switch", f"to-{end.pod}", end)
            self.ip("switch", f"link set to-{end.pod} master br0")
            self.give_address(end)

    def version(self) -> str:
        return f"Linux {platform.release()}"


class KernelRouted(NamespacePeer):
    """Two hosts with a bridge each, routing to each other over a bridge between them."""

    name = "kernel routed"
    title = "Linux, two hosts, routed"
    mtu = 1500

    a = End("a", "10.244.1.2")
    b = End("b", "10.244.2.2")

    def build(self) -> None:
        self.make_bare_pods()
        hosts = ("host1", "host2")
        self.site.make(
            SandboxSpec("underlay", "underlay"), *(SandboxSpec(name, name, forwarding=True) for name in hosts)
        )
        self.ip("underlay", "link add br0 type bridge", "link set br0 up")
        for number, (host, end) in enumerate(zip(hosts, (self.a, self.b), strict=True), 1):
            target = self.site.network(host)
            self.ip(
                "underlay",
                f"link add to-{host} type veth peer name up0 netns {target}",
                f"link set to-{host} master br0 up",
            )
            self.ip(
                host, f"address add 192.0.2.{number}/24 dev up0", "link set up0 up", "link add cni0 type bridge",
                "link set cni0 up", f"address add 10.244.{number}.1/24 dev cni0",
            )  # fmt: skip
            self.join_by_veth(host, "pod", end)
            self.ip(host, "link set pod master cni0")
            self.give_address(end, mtu=self.mtu, gateway=f"10.244.{number}.1")
        for number, host in enumerate(hosts, 1):
            self.join(host, number, 3 - number)

    def join(self, host: str, here: int, there: int) -> None:
        """Let one host find the other's pods."""
        self.ip(host, f"route add 10.244.{there}.0/24 via 192.0.2.{there}")

    def version(self) -> str:
        return f"Linux {platform.release()}"


class KernelNft(KernelRouted):
    """As KernelRouted, with an address that host1 translates to b's, as kube-proxy would let it."""

    name = "kernel nft"
    title = "Linux, two hosts, routed, nft DNAT"
    service = SERVICE_ADDRESS
    needs = MappingProxyType({**NAMESPACES, "nft": "nftables"})

    def build(self) -> None:
        super().build()
        for line in (
            "add table ip kube",
            "add chain ip kube services { type nat hook prerouting priority dstnat ; }",
            f"add rule ip kube services ip daddr {self.service} tcp dport 7002 dnat to {self.b.address}:7002",
        ):
            self.site.outside("host1", "nft", *line.split())


class KernelVxlan(KernelRouted):
    """As KernelRouted, with flannel's VXLAN device in between."""

    name = "kernel VXLAN"
    title = "Linux, two hosts, VXLAN"
    mtu = 1500 - _OVERHEAD

    def join(self, host: str, here: int, there: int) -> None:
        self.ip(
            host,
            f"link add flannel.1 type vxlan id 1 dstport {_VXLAN_PORT} local 192.0.2.{here} dev up0 nolearning",
            f"link set flannel.1 address 02:00:00:00:00:{here:02x} up",
            f"address add 10.244.{here}.0/32 dev flannel.1",
            f"route add 10.244.{there}.0/24 via 10.244.{there}.0 dev flannel.1 onlink",
            f"neighbor add 10.244.{there}.0 lladdr 02:00:00:00:00:{there:02x} dev flannel.1",
        )
        entry = f"fdb append 02:00:00:00:00:{there:02x} dev flannel.1 dst 192.0.2.{there}"
        self.site.outside(host, "bridge", *entry.split())
