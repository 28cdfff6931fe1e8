"""Open vSwitch in user space: its netdev datapath, with a TAP for each pod.

Its database and daemon run in a private folder, as the distribution builds them, with
their default settings (user-space TSO is off by default and needs DPDK).

Rule of this file: nothing of the machine's own Open vSwitch, if there is one, is touched.
"""

from __future__ import annotations

from types import MappingProxyType

from benchmarks.peers.peer import NAMESPACES, NamespacePeer, first_line
from benchmarks.site import wait_for
from emunet.linux.specification import DEFAULT_ENVIRONMENT, SandboxSpec


class OpenVSwitch(NamespacePeer):
    """A bridge of Open vSwitch with two ports."""

    name = "ovs"
    title = "Open vSwitch, user space"
    needs = MappingProxyType(
        NAMESPACES
        | {
            "ovs-vswitchd": "openvswitch-switch",
            "ovsdb-server": "openvswitch-switch",
            "ovsdb-tool": "openvswitch-switch",
        }
    )

    def build(self) -> None:
        self.make_bare_pods()
        self.site.make(SandboxSpec("switch", "switch"))
        folder = str(self.site.folder)
        places = {f"OVS_{name}DIR": folder for name in ("RUN", "LOG", "DB", "SYSCONF")}
        self.site.environment = {**DEFAULT_ENVIRONMENT, **places}
        database, socket = f"{folder}/conf.db", f"{folder}/db.sock"
        self.site.run("switch", "ovsdb-tool", "create", database)
        self.site.start("switch", "ovsdb-server", f"--remote=punix:{socket}", "--no-chdir", database)
        wait_for(self.site.folder / "db.sock", "ovsdb-server")
        control = ["ovs-vsctl", f"--db=unix:{socket}", "--timeout=10"]
        self.site.run("switch", *control, "--no-wait", "init")
        self.site.start("switch", "ovs-vswitchd", "--disable-system", f"unix:{socket}")
        ports = [f"to-{end.pod}" for end in (self.a, self.b)]
        internal = [
            word
            for port in ports
            for word in ("--", "add-port", "br0", port, "--", "set", "interface", port, "type=internal")
        ]
        bridge = ["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"]
        self.site.run("switch", *control, *bridge, *internal)
        for port, end in zip(ports, (self.a, self.b), strict=True):
            self.ip("switch", f"link set {port} netns {self.site.network(end.pod)}")
            self.ip(end.pod, f"link set {port} name eth0")
            self.give_address(end)

    def version(self) -> str:
        return first_line("ovs-vswitchd", "--version")
