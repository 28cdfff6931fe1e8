"""A capture filter: pcap-filter(7), compiled and judged by libpcap itself, for every command that captures.

    udp port 53 and host web-1      names of pods, hosts and ports serve as addresses

libpcap is loaded when there is a filter, and never else. (What impairs a wire has a filter of its
own, `packet.filter`: that one is asked inside the World, on any machine.)

Rule of this file: what libpcap refuses is a BadFilter with libpcap's own words; what it takes
means what it means to tcpdump.
"""

from __future__ import annotations

import ctypes
import re
import weakref
from collections.abc import Iterable

from emunet.daemon.frame_format import PortInfo

_LIBRARIES = ("libpcap.so.0.8", "libpcap.so.1", "libpcap.so", "libpcap.dylib", "libpcap.A.dylib")
_ETHERNET = 1
_SNAP_LENGTH = 262144
_NO_NETMASK = 0xFFFFFFFF
_ANCILLARY = 0xFFFFF000
"""Loads from here on ask the kernel about the packet (linux/filter.h SKF_AD_OFF), not its bytes."""

_WORD = re.compile(r"[^\s()!&|=<>\[\]]+")
_WORDS_OF_LIBPCAP = frozenset((
    "and", "or", "not", "host", "net", "port", "portrange", "src", "dst", "ether", "ip", "ip6", "arp", "rarp",
    "tcp", "udp", "sctp", "icmp", "icmp6", "igmp", "igrp", "pim", "vrrp", "ah", "esp", "proto", "protochain",
    "gateway", "broadcast", "multicast", "less", "greater", "vlan", "mpls", "pppoed", "pppoes", "geneve",
    "vxlan", "inbound", "outbound", "ifname", "mask", "len", "link", "llc", "stp", "iso", "action", "type",
    "subtype",
))  # fmt: skip


class BadFilter(Exception):
    """The text is no filter, or nothing here can judge it: a sentence."""


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.POINTER(_Instruction)))


class CaptureFilter:
    """A compiled filter. `takes` is asked about any bytes and never raises."""

    def __init__(self, text: str) -> None:
        """Compile it. BadFilter."""
        library = _library()
        self._program = _Program()
        handle = library.pcap_open_dead(_ETHERNET, _SNAP_LENGTH)
        if not handle:
            raise MemoryError("libpcap has no memory left for a filter")
        try:
            if library.pcap_compile(handle, ctypes.byref(self._program), text.encode(), 1, _NO_NETMASK):
                said = library.pcap_geterr(handle).decode(errors="replace")
                raise BadFilter(f"{text!r} is no capture filter: libpcap says: {said} (the language is pcap-filter(7))")
        finally:
            library.pcap_close(handle)
        weakref.finalize(self, library.pcap_freecode, ctypes.byref(self._program))
        rows = self._program.instructions
        if any(rows[n].code & 7 == 0 and rows[n].k >= _ANCILLARY for n in range(self._program.length)):
            raise BadFilter(
                f"{text!r} asks what only a network card's driver knows (as `inbound` does): a port of a lab tells the"
                " direction of each frame in the capture itself (Wireshark: frame.packet_flags_direction)"
            )
        self._address = ctypes.cast(rows, ctypes.c_void_p).value
        self._judge = library.bpf_filter

    def takes(self, frame: bytes) -> bool:
        """Whether the filter lets a frame through."""
        length = len(frame)
        return bool(self._judge(self._address, frame, length, length))


def capture_filter(text: str, ports: Iterable[PortInfo] = ()) -> CaptureFilter:
    """Compile a filter in which names of these ports, and of their hosts, are addresses. BadFilter."""
    return CaptureFilter(with_addresses(text, addresses_by_name(ports)))


def addresses_by_name(ports: Iterable[PortInfo]) -> dict[str, list[str]]:
    """Every name that means addresses: a pod's (with and without `default/`), a port's, a host's (its uplink's)."""
    found: dict[str, list[str]] = {}
    for port in ports:
        addresses = [row.partition("/")[0] for row in port.addresses]
        if not addresses:
            continue
        found[port.name] = addresses
        if port.name == f"{port.device}:eth0":
            found[port.device] = addresses
        elif port.kind == "pod" and "/" not in port.name:
            found[f"default/{port.name}"] = addresses
    return found


def with_addresses(text: str, names: dict[str, list[str]]) -> str:
    """The text with an address for each name that it says; several addresses of one name as `(a or b)`."""

    def replaced(match: re.Match[str]) -> str:
        word = match.group()
        addresses = names.get(word) if word not in _WORDS_OF_LIBPCAP else None
        if not addresses:
            return word
        return addresses[0] if len(addresses) == 1 else f"({' or '.join(addresses)})"

    return _WORD.sub(replaced, text)


_loaded: list[ctypes.CDLL] = []


def _library() -> ctypes.CDLL:
    """libpcap, loaded once. BadFilter where this machine has none."""
    if _loaded:
        return _loaded[0]
    for name in _LIBRARIES:
        try:
            library = ctypes.CDLL(name)
            break
        except OSError:
            continue
    else:
        raise BadFilter(
            "a capture filter needs libpcap, which this machine does not have: apt-get install libpcap0.8"
            " (tshark and wireshark bring it)"
        )
    pointer = ctypes.c_void_p
    program = ctypes.POINTER(_Program)
    library.pcap_open_dead.restype, library.pcap_open_dead.argtypes = pointer, [ctypes.c_int, ctypes.c_int]
    library.pcap_close.restype, library.pcap_close.argtypes = None, [pointer]
    library.pcap_geterr.restype, library.pcap_geterr.argtypes = ctypes.c_char_p, [pointer]
    library.pcap_compile.argtypes = [pointer, program, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32]
    library.pcap_freecode.restype, library.pcap_freecode.argtypes = None, [program]
    library.bpf_filter.restype = ctypes.c_uint
    library.bpf_filter.argtypes = [pointer, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint]
    _loaded.append(library)
    return library
