"""A Kubernetes node as the kernel makes it: a namespace with TAPs, a bridge with br_netfilter, nft's NAT.

Run as a program it is that node; it reads commands from its standard input and answers on
its standard output, and everything is gone when it ends. `KernelNode` starts it and
speaks with it. A frame that is written to a TAP is forwarded before the write returns, so
what the node does with it can be read at once: nothing waits, nothing is missed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

PORTS = ("pod1", "pod2", "eth0")
MACS = {"cni0": "02:00:00:00:01:01", "eth0": "02:00:00:00:01:02"}
STATIONS = {
    "pod1": ("02:00:00:00:00:02", "10.244.1.2", "fd00:244:1::2"),
    "pod2": ("02:00:00:00:00:03", "10.244.1.3", "fd00:244:1::3"),
    "eth0": ("02:00:00:00:00:99", "192.168.9.99", "fd00:9::99"),
}
"""Who stands at each port: MAC and addresses. A second address of `eth0`'s is 192.168.9.98."""

OUTSIDE = tuple(f"{network}20{number}" for network in ("192.168.9.", "fd00:9::") for number in range(1, 9))
"""Addresses of Services on the uplink's network: what the node does not take goes to the station there."""

CNI = ("10.244.1.1", "fd00:244:1::1")
NODE = ("192.168.9.11", "fd00:9::11")
VIP = ("10.96.0.50", "fd00:96::50")
SERVICE_PORT = 4080
"""Not below 1024: there the kernel chooses among 511 ports, and would meet it by chance now and then."""

BACKEND_PORT = 8080
PUBLISHED = 9999

# Windows are not followed (be_liberal), so that the kernel too judges by state alone; errors are not limited.
SETTINGS = {
    "net.ipv4.ip_forward": 1,
    "net.ipv6.conf.all.forwarding": 1,
    "net.ipv4.conf.all.rp_filter": 0,
    "net.ipv4.conf.eth0.rp_filter": 0,
    "net.ipv4.conf.cni0.rp_filter": 0,
    "net.ipv4.conf.all.send_redirects": 0,
    "net.ipv4.conf.eth0.send_redirects": 0,
    "net.ipv4.conf.cni0.send_redirects": 0,
    "net.bridge.bridge-nf-call-iptables": 1,
    "net.bridge.bridge-nf-call-ip6tables": 1,
    "net.netfilter.nf_conntrack_tcp_be_liberal": 1,
    "net.netfilter.nf_conntrack_tcp_ignore_invalid_rst": 1,
    "net.ipv4.icmp_ratelimit": 0,
    "net.ipv6.icmp.ratelimit": 0,
    "net.ipv6.auto_flowlabels": 0,
}

RULES = """
table {family} nat {{
  chain translate {{
    fib daddr type local {saddr} {subnet} meta l4proto {{ tcp, udp }} th dport {published} meta mark set 0x2000
    fib daddr type local tcp dport {published} dnat to {target}
    fib daddr type local udp dport {published} dnat to {target}
    {daddr} {vip} tcp dport {service} dnat to {target}
    {daddr} {vip} udp dport {service} dnat to {target}
  }}
  chain pre {{
    type nat hook prerouting priority -100;
    jump translate
  }}
  chain out {{
    type nat hook output priority -100;
    jump translate
  }}
  chain post {{
    type nat hook postrouting priority 100;
    meta mark 0x2000 masquerade
    {saddr} {range} {daddr} != {range} masquerade
  }}
}}
"""

# Nobody listens on the node: what is for itself ends behind conntrack's own last hook, unanswered. (Of two hooks
# of one priority the later goes first, so this is loaded before there is anything to track for.)
SILENCE = """
table inet last {
  chain input {
    type filter hook input priority 2147483647; policy drop;
  }
}
"""


def rules() -> str:
    """The nft rules of both families: published ports, a VIP, masquerade; portmap's and kube-proxy's shape."""
    return (
        RULES.format(
            family="ip", saddr="ip saddr", daddr="ip daddr", subnet="10.244.1.0/24", range="10.244.0.0/16", vip=VIP[0],
            service=SERVICE_PORT, published=PUBLISHED, target=f"{STATIONS['pod2'][1]}:{BACKEND_PORT}",
        )
        + RULES.format(
            family="ip6", saddr="ip6 saddr", daddr="ip6 daddr", subnet="fd00:244:1::/64", range="fd00:244::/32",
            vip=VIP[1], service=SERVICE_PORT, published=PUBLISHED, target=f"[{STATIONS['pod2'][2]}]:{BACKEND_PORT}",
        )
    )  # fmt: skip


def missing() -> str | None:
    """What this machine lacks, and the cure; None where it lacks nothing."""
    if shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
        return "nft is missing: apt-get install nftables"
    if not Path("/proc/sys/net/netfilter").is_dir():
        return "this kernel has no connection tracking built in or loaded: modprobe nf_conntrack"
    if not Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists():
        return "this kernel has no br_netfilter built in or loaded: modprobe br_netfilter"
    return None


class KernelNode:
    """The node, from outside."""

    def __init__(self, mtu: int = 1500, translation: str | None = None) -> None:
        """`translation`: other nft rules than those of `rules`."""
        command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, __file__, str(mtu)]
        command.append(rules() if translation is None else translation)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        assert self._answer() == [b"ready"], "the node could not be made: see its complaint above"

    def inject(self, port: str, frame: bytes) -> list[tuple[str, bytes]]:
        """A frame comes in by a port: what goes out, as (port, frame)."""
        self._say(b"i" + port.encode().ljust(8) + frame)
        return [(part[:8].decode().strip(), part[8:]) for part in self._answer()]

    def send(self, packet: bytes) -> list[tuple[str, bytes]]:
        """The node itself sends an IPv4 packet: what goes out."""
        self._say(b"l" + packet)
        return [(part[:8].decode().strip(), part[8:]) for part in self._answer()]

    def connections(self) -> list[str]:
        """The kernel's table, a line each (/proc/net/nf_conntrack)."""
        self._say(b"c")
        return self._answer()[0].decode().splitlines()

    def close(self) -> None:
        """End it; the namespace goes with it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def _say(self, message: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(struct.pack(">I", len(message)) + message)
        self._process.stdin.flush()

    def _answer(self) -> list[bytes]:
        stream = self._process.stdout
        assert stream is not None
        head = stream.read(4)
        assert len(head) == 4, "the node has ended: see its complaint above"
        parts = []
        for _ in range(struct.unpack(">I", head)[0]):
            length = struct.unpack(">I", stream.read(4))[0]
            parts.append(stream.read(length))
        return parts


# The program


def _run(*command: str, given: str = "") -> None:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    done = subprocess.run(
        command, input=given, text=True, capture_output=True, check=False, env={**os.environ, "PATH": path}
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")


def _make(mtu: int, translation: str) -> dict[str, int]:
    from emunet.linux.tap import open_tap

    taps = {name: open_tap(name) for name in PORTS}
    _run("ip", "link", "add", "cni0", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0", "stp_state", "0")
    lines = ["link set lo up"]
    for name in (*PORTS, "cni0"):
        lines.append(f"link set {name} addrgenmode none")
        lines.append(f"link set {name} mtu {mtu if name == 'eth0' else 1500}")
    for name, mac in MACS.items():
        lines.append(f"link set {name} address {mac}")
    for name in ("pod1", "pod2"):
        lines.append(f"link set {name} master cni0")
        lines.append(f"link set {name} type bridge_slave hairpin on")
    lines += [f"link set {name} up" for name in (*PORTS, "cni0")]
    lines += [f"address add {CNI[0]}/24 dev cni0", f"address add {CNI[1]}/64 dev cni0 nodad"]
    lines += [f"address add {NODE[0]}/24 dev eth0", f"address add {NODE[1]}/64 dev eth0 nodad"]
    lines += [f"route add default via {STATIONS['eth0'][1]}", f"route add ::/0 via {STATIONS['eth0'][2]}"]
    for name, (mac, *addresses) in STATIONS.items():
        device = "eth0" if name == "eth0" else "cni0"
        lines += [f"neighbour add {address} lladdr {mac} dev {device} nud permanent" for address in addresses]
    for address in ("192.168.9.98", *OUTSIDE):
        lines.append(f"neighbour add {address} lladdr {STATIONS['eth0'][0]} dev eth0 nud permanent")
    _run("ip", "-batch", "-", given="\n".join(lines) + "\n")
    for name, value in SETTINGS.items():
        Path("/proc/sys", *name.split(".")).write_text(str(value))
    for name in ("icmp_msgs_per_sec", "icmp_msgs_burst"):  # a thousand errors a second in all, of a namespace or of all
        path = Path("/proc/sys/net/ipv4", name)
        if path.exists():
            path.write_text("1000000")
    _run("nft", "-f", "-", given=SILENCE)
    _run("nft", "-f", "-", given=translation)
    return taps


def _drain(taps: dict[str, int]) -> list[bytes]:
    parts = []
    for name, descriptor in taps.items():
        while True:
            try:
                frame = os.read(descriptor, 70000)
            except BlockingIOError:
                break
            if frame[:2] != b"\x33\x33":  # the kernel reports the groups that it listens to, when it likes to
                parts.append(name.encode().ljust(8) + frame)
    return parts


def _speak(parts: list[bytes]) -> None:
    message = struct.pack(">I", len(parts)) + b"".join(struct.pack(">I", len(part)) + part for part in parts)
    sys.stdout.buffer.write(message)
    sys.stdout.buffer.flush()


def main() -> None:
    """Be the node until standard input ends."""
    taps = _make(int(sys.argv[1]), sys.argv[2])
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    _drain(taps)
    _speak([b"ready"])
    while True:
        head = sys.stdin.buffer.read(4)
        if len(head) < 4:
            return
        message = sys.stdin.buffer.read(struct.unpack(">I", head)[0])
        if message[:1] == b"i":
            os.write(taps[message[1:9].decode().strip()], message[9:])
            _speak(_drain(taps))
        elif message[:1] == b"l":
            with contextlib.suppress(PermissionError):  # a filter of its own output dropped it
                raw.sendto(message[1:], (socket.inet_ntoa(message[17:21]), 0))
            _speak(_drain(taps))
        else:
            _speak([Path("/proc/net/nf_conntrack").read_bytes()])


if __name__ == "__main__":
    main()
