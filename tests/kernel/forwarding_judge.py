"""The kernel's bridge, router and VXLAN device and ours, side by side: the same frames in, what comes out compared.

The kernel's half lives in network namespaces that the test makes (`in_own_network`): each
port is a TAP, so a frame written to its descriptor is received there and one read from it
was sent. A marker frame is written after each frame; when it has come out, so has all
that the frame caused, since one CPU takes frames in turn.

Allowed to differ, and nothing else (`comparable` takes it away):
- the identification of IPv4 packets that the node itself makes: each has its own counter;
- the clock in an IP timestamp option, and in an ICMP timestamp reply: the lab has its own time;
- IP options in what the node itself sends, and in the packets that it quotes: Linux repeats Record Route and
  Timestamp in errors and replies (ip_options_echo), which leaves less room for the quote, and quotes them as it
  has written them already; ours bears none and quotes what came (RFC 1812 4.3.2.3);
- which of a redirect and the packet that it is about goes first;
- the VXLAN source port, a hash that each makes in its own way, and with it the outer checksum (both must be right).

Rule of this file: it compares; what is sent is the test's choice.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from emunet.linux import tap
from emunet.packet import icmp, ipv4, udp
from emunet.packet.checksum import ones_sum

Out = dict[str, list[bytes]]
PATIENCE = 5.0
MARKER_TYPE = b"\x88\xb6"


def shell(lines: str) -> None:
    """Run lines of shell in this namespace; all must succeed."""
    done = subprocess.run(["/bin/sh", "-e", "-c", lines], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{lines}\n{done.stderr}"


def sysctl(**values: int) -> None:
    """Write settings; `__` in a name stands for a slash, as in `ipv4__ip_forward`."""
    for name, value in values.items():
        (Path("/proc/sys/net") / name.replace("__", "/")).write_text(str(value))


def alone_on_a_cpu() -> None:
    """So that the kernel takes our frames one after the other."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


class KernelNode:
    """TAPs of this namespace, by name."""

    def __init__(self, macs: Mapping[str, str], mtus: Mapping[str, int] | None = None) -> None:
        alone_on_a_cpu()
        sysctl(ipv6__conf__default__accept_dad=0, ipv6__conf__default__router_solicitations=0)
        self.descriptors = {name: tap.open_tap(name) for name in macs}
        self.names = {descriptor: name for name, descriptor in self.descriptors.items()}
        for name, mac in macs.items():
            shell(f"ip link set {name} address {mac} mtu {(mtus or {}).get(name, 1500)} txqueuelen 5000")

    def write(self, port: str, frame: bytes) -> None:
        """A frame comes in by a port. One shorter than a header is refused by the TAP itself."""
        os.write(self.descriptors[port], frame)

    def read(self, wait: float = 0.0) -> list[tuple[str, bytes]]:
        """What has been sent, waiting for the first at most some seconds."""
        found = []
        for descriptor in select.select(list(self.names), [], [], wait)[0]:
            try:
                while True:
                    found.append((self.names[descriptor], os.read(descriptor, 70_000)))
            except BlockingIOError:
                pass
        return found

    def quiet(self, seconds: float = 1.2) -> None:
        """Let the kernel say what it says by itself when interfaces come up, and forget it."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.read(left)

    def exchange(self, port: str, frame: bytes, mark: Callable[[int], tuple[str, bytes, str]], number: int) -> Out:
        """Everything that comes out because of a frame: read until its marker has come out."""
        self.write(port, frame)
        marker_in, marker, marker_out = mark(number)
        self.write(marker_in, marker)
        out: Out = {}
        deadline = time.monotonic() + PATIENCE
        tail = number.to_bytes(8, "big") + b"marker"
        while time.monotonic() < deadline:
            ended = False
            for name, sent in self.read(0.2):
                if sent.endswith(tail):
                    ended |= name == marker_out
                elif b"marker" not in sent[-10:] and sent[:6] not in MULTICAST_LISTENERS:
                    out.setdefault(name, []).append(sent)
            if ended:
                return out
        raise AssertionError(f"the marker after frame {number} did not come out: {frame.hex()}")

    def close(self) -> None:
        """Let the TAPs go."""
        tap.close_many(self.descriptors.values())


MULTICAST_LISTENERS = (bytes.fromhex("333300000016"), bytes.fromhex("01005e000016"))
"""Where a kernel reports the groups that it joins, when it pleases (TAP-06, TAP-07): not about any frame of ours."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One frame after which the two did not send the same."""

    number: int
    port: str
    frame: bytes
    kernel: Out
    ours: Out

    def short(self) -> str:
        """One line."""
        from scapy.all import Ether

        def words(out: Out) -> str:
            return "; ".join(f"{name}: {Ether(frame).summary()}" for name, frames in out.items() for frame in frames)

        return f"{self.number}: {Ether(self.frame).summary()} | {words(self.kernel)} | {words(self.ours)}"

    def __str__(self) -> str:
        from scapy.all import Ether

        lines = [f"frame {self.number} into {self.port}: {Ether(self.frame).summary()}", f"  {self.frame.hex()}"]
        for name in sorted(self.kernel.keys() | self.ours.keys()):
            for who, out in (("kernel", self.kernel), ("ours", self.ours)):
                for frame in out.get(name, []):
                    lines += [f"  {who:<6} sends by {name}: {Ether(frame).summary()}", f"         {frame.hex()}"]
                if not out.get(name):
                    lines.append(f"  {who:<6} sends nothing by {name}")
        return "\n".join(lines)


def comparable(out: Out, asked: bytes) -> Out:
    """What must be equal of what was sent about the frame `asked`."""
    return {
        name: sorted((_comparable(frame, asked) for frame in frames), key=lambda frame: frame[:1] != REDIRECT[:1])
        for name, frames in out.items()
        if frames
    }


REDIRECT = b"R"


def _comparable(frame: bytes, asked: bytes) -> bytes:
    if frame[12:14] == b"\x86\xdd":
        return (REDIRECT if frame[20] == 58 and frame[54] == 137 else b" ") + frame
    if frame[12:14] != b"\x08\x00" or len(frame) < 34:
        return b" " + frame
    length = (frame[14] & 15) * 4
    packet = frame[14:]
    assert ones_sum(packet[:length]) == 0xFFFF, f"the IP header checksum of {frame.hex()} is wrong"
    forwarded = packet[12:20] == asked[26:34] and packet[9] == asked[23] and packet[4:6] == asked[18:20]
    packet = without_times(packet, length)
    header, body = packet[:10] + packet[12:length], packet[length:]
    if forwarded:
        return b" " + frame[:14] + header + body
    header = header[:4] + bytes(2) + header[6:]
    is_error = header[9] == 1 and body[:1] and body[0] in icmp.ERRORS
    if asked[14] & 15 > 5:
        header = b"\x45" + header[1:2] + bytes(2) + header[4:18]
        if is_error:
            assert ones_sum(body) == 0xFFFF
            at = 8 + (body[8] & 15) * 4
            body = body[:2] + body[4:18] + body[20:28] + body[at : at + 300]
    return (REDIRECT if is_error and body[0] == icmp.REDIRECT else b" ") + frame[:14] + header + body


def without_times(packet: bytes, header: int) -> bytes:
    """Zeros for what a clock wrote: into a timestamp option, into an ICMP timestamp reply."""
    out = bytearray(packet)
    position = 20
    while position + 1 < header:
        kind, length = packet[position], packet[position + 1]
        if kind == 0:
            break
        if kind == 1:
            position += 1
            continue
        if length < 2 or position + length > header:
            break
        if kind == 68 and length >= 4:
            size = 4 if packet[position + 3] & 15 == 0 else 8
            for at in range(position + 4, position + length - size + 1, size):
                out[at + size - 4 : at + size] = bytes(4)
        position += length
    if packet[9] == 1 and len(packet) >= header + 20 and packet[header] == 14:
        out[header + 2 : header + 4] = bytes(2)
        out[header + 12 : header + 20] = bytes(8)
    return bytes(out)


def outer_comparable(frame: bytes) -> tuple[bytes, bytes, bytes]:
    """A VXLAN frame without its own identification and source port, both of whose checksums are right."""
    header, payload = ipv4.IPv4.parse(frame[14:])
    assert udp.checksum_valid(header.src, header.dst, payload), f"the outer UDP checksum of {frame.hex()} is wrong"
    fields = struct.pack(
        "!BBBB4s4s", header.ttl, header.tos, header.dont_fragment, header.protocol, header.src, header.dst
    )
    return frame[:14] + fields, payload[2:6], payload[8:]


def local_port_range() -> tuple[int, int]:
    """From which ports this kernel takes a VXLAN source port."""
    low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    return int(low), int(high)


def raw(name: str) -> socket.socket:
    """A packet socket on an interface, for frames that a TAP would not bring."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    made.bind((name, 0))
    return made
