"""TAP devices: opened inside a namespace, read and written from outside it.

A TAP is an Ethernet interface whose other end is a file descriptor: what the kernel
sends on it is read there, what is written there the kernel receives. It must be
opened in the namespace where it is to live: moving it there later costs 20 ms
instead of 0.2 (measured; RCU grace periods).

python-pytun opens it where its wheel is (x86-64 only); elsewhere the same one ioctl
does. All else here is ioctls that python-pytun does not have.

Rule of this file: descriptors are plain integers, non-blocking and close-on-exec
(python-pytun gives neither); they are read and written with `os.readv` and `os.write`,
since python-pytun's own `read` raises an EAGAIN that is no BlockingIOError and its
`write` takes no memoryview.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Iterable

try:
    import pytun
except ImportError:  # no wheel for this machine, or not installed
    pytun = None

TUN_DEVICE = "/dev/net/tun"

# linux/if_tun.h
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
TUNSETIFF = 0x400454CA
TUNSETOFFLOAD = 0x400454D0
TUNSETVNETHDRSZ = 0x400454D8
OFFLOAD_CHECKSUM = 0x01
OFFLOAD_TSO4 = 0x02
OFFLOAD_TSO6 = 0x04
OFFLOAD_TSO_ECN = 0x08

OFFLOAD_ALL_TCP = OFFLOAD_CHECKSUM | OFFLOAD_TSO4 | OFFLOAD_TSO6 | OFFLOAD_TSO_ECN
"""What lets one read take up to 64 KB of TCP: checksums left to us, and segments uncut."""

VNET_HEADER_SIZE = 10
"""Bytes of `struct virtio_net_hdr` before each frame of a TAP opened with `vnet_header` (virtio 1.2, 5.1.6)."""

# linux/ethtool.h, linux/sockios.h
_SIOCETHTOOL = 0x8946
_ETHTOOL_SSET = 0x00000002
_ETHTOOL_COMMAND = "IIIHBBBBBBIIHBBI2I"
_DUPLEX_FULL = 1

_CLOSERS = 64


def open_tap(name: str, vnet_header: bool = False, offload: int = 0) -> int:
    """Create the TAP `name` in this thread's network namespace; gives its descriptor.

    `offload` is a mask of OFFLOAD_ bits and needs `vnet_header`. The device lives as long as the
    descriptor, or copies of it, are open. OSError says what was refused.

    TUNSETSNDBUF is left alone: its default (INT_MAX) never makes a write wait.
    """
    flags = IFF_TAP | IFF_NO_PI | (IFF_VNET_HDR if vnet_header else 0)
    descriptor = _open_with_pytun(name, flags) if pytun is not None else _open_by_ioctl(name, flags)
    try:
        if vnet_header:
            fcntl.ioctl(descriptor, TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER_SIZE))
            fcntl.ioctl(descriptor, TUNSETOFFLOAD, offload)
    except OSError as error:
        os.close(descriptor)
        raise OSError(error.errno, f"setting offloads {offload:#x} of {name}: {error.strerror}") from None
    return descriptor


def _open_with_pytun(name: str, flags: int) -> int:
    try:
        device = pytun.TunTapDevice(name=name, flags=flags, dev=TUN_DEVICE)
    except OSError as error:  # pytun.Error is one
        raise OSError(error.errno, f"opening the TAP {name} through {TUN_DEVICE}: {error.strerror}") from None
    # The device object would close its descriptor when it is collected; the copy is ours.
    descriptor = fcntl.fcntl(device.fileno(), fcntl.F_DUPFD_CLOEXEC, 0)
    device.close()
    os.set_blocking(descriptor, False)
    return descriptor


def _open_by_ioctl(name: str, flags: int) -> int:
    encoded = name.encode()
    if len(encoded) > 15:
        raise ValueError(f"{name!r} is too long for an interface: 15 bytes at most")
    try:
        descriptor = os.open(TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise OSError(error.errno, f"opening {TUN_DEVICE}: {error.strerror}") from None
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", encoded, flags))
    except OSError as error:
        os.close(descriptor)
        raise OSError(error.errno, f"opening the TAP {name} through {TUN_DEVICE}: {error.strerror}") from None
    return descriptor


def set_link_speed(name: str, speed: int) -> None:
    """Say that the link of `name` runs at `speed` Mbit/s, full duplex.

    It changes nothing but what `ethtool NAME` and `/sys/class/net/NAME/speed` answer (a TAP says
    10 by itself, and programs that share a link by its speed believe it).
    """
    # struct ethtool_cmd. The kernel turns this old form into ETHTOOL_SLINKSETTINGS itself, which would
    # need a second call to agree on the length of its bit masks.
    low, high = speed & 0xFFFF, speed >> 16
    command = struct.pack(_ETHTOOL_COMMAND, _ETHTOOL_SSET, 0, 0, low, _DUPLEX_FULL, *[0] * 7, high, 0, 0, 0, 0, 0)
    buffer = ctypes.create_string_buffer(command)
    request = struct.pack("16sP16x", name.encode(), ctypes.addressof(buffer))  # struct ifreq, pointing to the command
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        try:
            fcntl.ioctl(asker.fileno(), _SIOCETHTOOL, request)
        except OSError as error:
            raise OSError(error.errno, f"setting the speed of {name} to {speed} Mbit/s: {error.strerror}") from None


def open_tx_dropped(name: str) -> int:
    """A descriptor of the drop counter of `name`, good for `read_tx_dropped` from any namespace.

    Needs /sys of this network namespace. It does not keep the device alive.
    """
    return os.open(f"/sys/class/net/{name}/statistics/tx_dropped", os.O_RDONLY | os.O_CLOEXEC)


def read_tx_dropped(descriptor: int) -> int:
    """How many frames the kernel could not hand to the TAP's reader since the device was made.

    Its queue (1000 frames by default) was full: they were lost before anybody could see them. Costs
    about 2 us. OSError (ENODEV) once the device is gone.
    """
    return int(os.pread(descriptor, 32, 0))


def close_many(descriptors: Iterable[int]) -> None:
    """Close TAPs side by side; returns when all are closed.

    Closing one waits about 30 ms for the whole kernel (rcu_barrier): 6 s for 200 one by one, 0.2 s
    this way (measured).
    """
    waiting = list(descriptors)

    def close_some() -> None:
        while True:
            try:
                descriptor = waiting.pop()
            except IndexError:
                return
            os.close(descriptor)

    threads = [threading.Thread(target=close_some) for _ in range(min(_CLOSERS, len(waiting)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
