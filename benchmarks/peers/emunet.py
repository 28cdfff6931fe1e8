"""emunet: pods of one host, and of two, with and without an overlay.

Rule of this file: nothing is tuned here. What is measured is what `emunet up` gives.
"""

from __future__ import annotations

from typing import ClassVar

from benchmarks.lab import Lab, own_name
from benchmarks.machine import interpreter
from benchmarks.peers.peer import End, Peer
from benchmarks.programs.build import compiled
from benchmarks.topologies import ONE_HOST, SERVICE_ADDRESS, TWO_HOSTS_ROUTED, TWO_HOSTS_SERVICE, TWO_HOSTS_VXLAN


class EmunetBridge(Peer):
    """Two pods of one host."""

    name = "emunet"
    title = "emunet, one host"
    topology: ClassVar[str] = ONE_HOST
    options: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        name = own_name(type(self).__name__.lower().removeprefix("emunet"))
        self.lab = Lab(name, self.topology, compiled("traffic.c"), *self.options)
        self.pods = self.lab
        self.a, self.b = (End(pod, self.lab.address(pod)) for pod in ("a", "b"))

    def build(self) -> None:
        """It is there since `emunet up`."""

    def version(self) -> str:
        return interpreter()


class EmunetWithoutOffload(EmunetBridge):
    """As EmunetBridge, with every TCP segment a frame of its own."""

    name = "emunet without offload"
    title = "emunet, one host, no offload"
    options = ("--offload", "off")


class EmunetRouted(EmunetBridge):
    """A pod on each of two hosts, which route to each other."""

    name = "emunet routed"
    title = "emunet, two hosts, routed"
    topology = TWO_HOSTS_ROUTED


class EmunetService(EmunetRouted):
    """As EmunetRouted, with a Service whose only endpoint is b."""

    name = "emunet Service"
    title = "emunet, two hosts, routed, a Service"
    topology = TWO_HOSTS_SERVICE
    service = SERVICE_ADDRESS


class EmunetVxlan(EmunetBridge):
    """A pod on each of two hosts, through VXLAN."""

    name = "emunet VXLAN"
    title = "emunet, two hosts, VXLAN"
    topology = TWO_HOSTS_VXLAN
