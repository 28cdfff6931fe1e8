"""Links, addresses, routes and neighbours of a network namespace, by our own rtnetlink.

A pod needs about six changes. Here they go to the kernel in one send on one socket:
0.15 ms a pod. pyroute2's documented way (NetNS, link, addr, route) costs 14 ms a pod
and its import 160-190 ms, in a process that every pod begins as a fork of; its
encoders alone (IPBatch) 1.1 ms (all measured). So pyroute2 is not used here.

Rule of this file: a change waits in the batch until `commit`, which raises OSError
with the sentence of the first change that the kernel refused, and the kernel's own
words where it gives any. Addresses are bytes (4 or 16), MACs 6 bytes, interfaces
their index. Message formats: rtnetlink(7), linux/rtnetlink.h, linux/if_link.h.
"""

from __future__ import annotations

import os
import socket
import struct
from types import TracebackType

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBi")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOR = struct.Struct("=BxxxiHBB")

_NLMSG_ERROR = 2
_RTM_NEWLINK, _RTM_NEWADDR, _RTM_NEWROUTE, _RTM_NEWNEIGH = 16, 20, 24, 28
_REQUEST_ACK, _REPLACE, _EXCLUSIVE, _CREATE = 0x005, 0x100, 0x200, 0x400
_CAPPED, _ACK_TLVS = 0x100, 0x200

_IFF_UP, _IFF_NOARP = 0x1, 0x80
_IFLA_ADDRESS, _IFLA_MTU, _IFLA_TXQLEN, _IFLA_AF_SPEC, _IFLA_GSO_MAX_SIZE = 1, 4, 13, 26, 41
_IFLA_INET6_ADDR_GEN_MODE, _ADDR_GEN_MODE_NONE = 8, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_F_NODAD = 1, 2, 4, 0x02
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_VIA = 1, 4, 5, 6, 7, 18
_RT_TABLE_MAIN, _RTPROT_BOOT, _RTN_UNICAST, _RTNH_F_ONLINK = 254, 3, 1, 4
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_NDA_DST, _NDA_LLADDR, _NUD_PERMANENT = 1, 2, 0x80

_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 10, 11
_BATCH = 100
"""Messages a send: the answers to one batch must fit the socket's receive buffer (some 270 of them)."""


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _family(address: bytes) -> int:
    return socket.AF_INET if len(address) == 4 else socket.AF_INET6


def _text(address: bytes) -> str:
    return socket.inet_ntop(_family(address), address)


class Rtnetlink:
    """One socket in the network namespace of the thread that makes it, and the changes not yet sent.

    A context manager: leaving it closes the socket, and changes not committed are forgotten.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.bind((0, 0))
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._messages: list[tuple[bytes, str]] = []

    def __enter__(self) -> Rtnetlink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def link(
        self,
        index: int,
        *,
        up: bool | None = None,
        arp: bool | None = None,
        mac: bytes | None = None,
        mtu: int | None = None,
        queue_length: int | None = None,
        gso_max_size: int | None = None,
        generate_addresses: bool | None = None,
    ) -> None:
        """Change an interface; what is None stays.

        `arp=False` sets NOARP: the kernel then resolves no neighbours there, by ARP or by ND.
        `queue_length` is in frames, `gso_max_size` in bytes. `generate_addresses=False`: no link-local
        IPv6 address by itself.
        """
        flags = (_IFF_UP if up else 0) | (_IFF_NOARP if arp is False else 0)
        mask = (_IFF_UP if up is not None else 0) | (_IFF_NOARP if arp is not None else 0)
        body = _LINK.pack(socket.AF_UNSPEC, 0, index, flags, mask)
        if mac is not None:
            body += _attribute(_IFLA_ADDRESS, mac)
        if mtu is not None:
            body += _attribute(_IFLA_MTU, struct.pack("=I", mtu))
        if queue_length is not None:
            body += _attribute(_IFLA_TXQLEN, struct.pack("=I", queue_length))
        if gso_max_size is not None:
            body += _attribute(_IFLA_GSO_MAX_SIZE, struct.pack("=I", gso_max_size))
        if generate_addresses is False:
            mode = _attribute(_IFLA_INET6_ADDR_GEN_MODE, bytes((_ADDR_GEN_MODE_NONE,)))
            body += _attribute(_IFLA_AF_SPEC, _attribute(socket.AF_INET6, mode))
        self._add(_RTM_NEWLINK, 0, body, f"changing interface {index}")

    def address(self, index: int, address: bytes, length: int) -> None:
        """Give an interface an address of `length` prefix bits: IPv4 with its broadcast address, IPv6 without DAD."""
        body = _ADDRESS.pack(_family(address), length, 0 if len(address) == 4 else _IFA_F_NODAD, _SCOPE_UNIVERSE, index)
        body += _attribute(_IFA_LOCAL, address) + _attribute(_IFA_ADDRESS, address)
        if len(address) == 4 and length <= 30:
            last = int.from_bytes(address, "big") | ((1 << (32 - length)) - 1)
            body += _attribute(_IFA_BROADCAST, last.to_bytes(4, "big"))
        tried = f"giving the address {_text(address)}/{length} to interface {index}"
        self._add(_RTM_NEWADDR, _CREATE | _EXCLUSIVE, body, tried)

    def route(
        self,
        destination: bytes,
        length: int,
        *,
        via: bytes | None = None,
        index: int = 0,
        onlink: bool = False,
        metric: int = 0,
        source: bytes | None = None,
    ) -> None:
        """Add a route to the main table.

        `via` None means that the destination is on the link of interface `index`; `onlink`, that the
        next hop is, whatever the addresses say. `source` is the address that packets get by preference.
        """
        scope = _SCOPE_UNIVERSE if via is not None or len(destination) == 16 else _SCOPE_LINK
        body = _ROUTE.pack(
            _family(destination), length, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, scope, _RTN_UNICAST,
            _RTNH_F_ONLINK if onlink else 0,
        )  # fmt: skip
        if length:
            body += _attribute(_RTA_DST, destination)
        if via is not None and len(via) == len(destination):
            body += _attribute(_RTA_GATEWAY, via)
        elif via is not None:  # an IPv4 route by an IPv6 next hop
            body += _attribute(_RTA_VIA, struct.pack("=H", _family(via)) + via)
        if index:
            body += _attribute(_RTA_OIF, struct.pack("=i", index))
        if metric:
            body += _attribute(_RTA_PRIORITY, struct.pack("=I", metric))
        if source is not None:
            body += _attribute(_RTA_PREFSRC, source)
        tried = f"adding the route to {_text(destination)}/{length}" + (f" via {_text(via)}" if via else "")
        self._add(_RTM_NEWROUTE, _CREATE | _EXCLUSIVE, body, tried)

    def neighbor(self, index: int, address: bytes, mac: bytes) -> None:
        """Add a permanent neighbour: it never ages and is never asked for."""
        body = _NEIGHBOR.pack(_family(address), index, _NUD_PERMANENT, 0, 0)
        body += _attribute(_NDA_DST, address) + _attribute(_NDA_LLADDR, mac)
        self._add(_RTM_NEWNEIGH, _CREATE | _REPLACE, body, f"adding the neighbour {_text(address)}")

    def commit(self) -> None:
        """Send what waits; returns when the kernel has done all of it.

        OSError with a sentence for the first change refused; those after it were tried all the same.
        """
        waiting, self._messages = self._messages, []
        refused: OSError | None = None
        for start in range(0, len(waiting), _BATCH):
            refused = self._send(waiting[start : start + _BATCH]) or refused
        if refused is not None:
            raise refused

    def _add(self, kind: int, flags: int, body: bytes, tried: str) -> None:
        header = _HEADER.pack(_HEADER.size + len(body), kind, flags | _REQUEST_ACK, len(self._messages) % _BATCH, 0)
        self._messages.append((header + body, tried))

    def _send(self, batch: list[tuple[bytes, str]]) -> OSError | None:
        self._socket.send(b"".join(message for message, _ in batch))
        refused: OSError | None = None
        answers = 0
        while answers < len(batch):
            data = self._socket.recv(65536)
            offset = 0
            while offset < len(data):
                length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
                if kind == _NLMSG_ERROR:
                    answers += 1
                    number = -struct.unpack_from("=i", data, offset + _HEADER.size)[0]
                    if number and refused is None:
                        words = _kernel_words(data[offset : offset + length], flags)
                        refused = OSError(number, f"{batch[sequence][1]}: {words or os.strerror(number)}")
                offset += (length + 3) & ~3
        return refused


def _kernel_words(message: bytes, flags: int) -> str:
    """The text of an extended acknowledgement (NLMSGERR_ATTR_MSG), if there is one."""
    if not flags & _ACK_TLVS:
        return ""
    offset = _HEADER.size + 4
    refused_length = _HEADER.unpack_from(message, offset)[0]
    offset += _HEADER.size if flags & _CAPPED else (refused_length + 3) & ~3
    while offset + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, offset)
        if kind & 0x3FFF == 1:
            return message[offset + 4 : offset + length].rstrip(b"\0").decode(errors="replace")
        offset += max(4, (length + 3) & ~3)
    return ""
