"""TapEdge: a pod's or a host's kernel as an end of the World.

Rule of this file: never block. A frame that the TAP does not take is refused, and
the World counts it as a drop with its reason.
"""

from __future__ import annotations

import os

from emunet.packet.address import InterfaceAddress
from emunet.packet.offload import NO_OFFLOAD, Offload, split
from emunet.plane.table import NEVER

READ_SIZE = 65536 + 128


class TapEdge:
    """An end whose stack is a kernel behind a TAP with a virtio-net header."""

    keeps_time = False

    def __init__(
        self,
        name: str,
        device: str,
        entry: str,
        fd: int,
        mac: bytes,
        addresses: tuple[InterfaceAddress, ...],
        gateways: tuple[bytes, ...],
        mtu: int,
    ) -> None:
        self.name = name
        self.device = device
        self.entry = entry
        self.fd = fd
        self.mac = mac
        self.addresses = addresses
        self.gateways = gateways
        self.mtu = mtu

    def deliver(self, frame: bytes, offload: Offload | None, now: int) -> tuple[bytes, ...] | None:
        """Give a frame to the kernel; None when it is not taken."""
        try:
            os.writev(self.fd, [NO_OFFLOAD if offload is None else offload.pack(), frame])
        except BlockingIOError:
            return None
        except OSError:
            return self._in_pieces(frame, offload)
        return ()

    def _in_pieces(self, frame: bytes, offload: Offload | None) -> tuple[bytes, ...] | None:
        """The kernel refused the frame as it is (too short to be one, or an offload it does not know)."""
        try:
            for piece in split(frame, offload):
                os.writev(self.fd, [NO_OFFLOAD, piece])
        except OSError:
            return None
        return ()

    def due(self) -> int:
        """A kernel wakes itself."""
        return NEVER

    def wake(self, now: int) -> tuple[bytes, ...]:
        """Nothing to do."""
        return ()
