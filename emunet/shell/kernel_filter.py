"""A BPF filter, judged by the kernel: `sniff(iface="web-1", filter="icmp")`.

libpcap compiles the text. The program is attached to one end of a socket pair; a frame that
is sent into the other end comes out only if the filter takes it. Two system calls a frame,
no interpreter of ours, and exactly what the filter does on a real interface.

Rule of this file: it is asked about one frame at a time, and keeps none.
"""

from __future__ import annotations

import socket

from scapy.arch.linux import attach_filter
from scapy.error import Scapy_Exception
from scapy.interfaces import NetworkInterface


class KernelFilter:
    """Takes or refuses frames. Scapy_Exception where the text is no filter."""

    def __init__(self, text: str, interface: NetworkInterface) -> None:
        self._into, self._out = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._out.setblocking(False)
        try:
            attach_filter(self._out, text, interface)
        except (ImportError, Scapy_Exception) as error:
            self.close()
            raise Scapy_Exception(f"Cannot set filter: {error}") from None

    def takes(self, frame: bytes) -> bool:
        """What the filter says to a frame."""
        self._into.send(frame)
        try:
            return bool(self._out.recv(1))  # the rest of a message that was cut is gone with it
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Let both ends go."""
        self._into.close()
        self._out.close()
