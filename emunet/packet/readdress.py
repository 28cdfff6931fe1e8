"""Other addresses in a frame: what a capture of elsewhere needs to make sense here.

Checksums are corrected by the difference (RFC 1624): a right one stays right, a wrong one wrong, and
a frame that was cut when it was captured needs no bytes that are not there.

Rule of this file: any bytes give bytes of the same length; what is not understood is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from emunet.packet.checksum import update

_ARP_HEAD = bytes.fromhex("000108000604")
_TAGS = (b"\x81\x00", b"\x88\xa8")
_CHECKSUMS = {6: 16, 17: 6, 58: 2}
"""Where transport headers have a checksum that covers addresses."""

_QUOTING = (3, 4, 5, 11, 12)
_EXTENSIONS = (0, 43, 60)


def source_of(frame: bytes) -> tuple[bytes, bytes] | None:
    """The IP addresses (source, destination) of a frame, or those of an ARP message; None where it has none."""
    at = _network(frame)
    if frame[at - 2 : at] == b"\x08\x00" and len(frame) >= at + 20:
        return frame[at + 12 : at + 16], frame[at + 16 : at + 20]
    if frame[at - 2 : at] == b"\x86\xdd" and len(frame) >= at + 40:
        return frame[at + 8 : at + 24], frame[at + 24 : at + 40]
    if frame[at - 2 : at] == b"\x08\x06" and len(frame) >= at + 28 and frame[at : at + 6] == _ARP_HEAD[:6]:
        return frame[at + 14 : at + 18], frame[at + 24 : at + 28]
    return None


def readdress(frame: bytes, addresses: Mapping[bytes, bytes], macs: Mapping[bytes, bytes]) -> bytes:
    """The frame with other addresses and MACs, wherever old ones stand in its headers, ARP and quoted headers."""
    if len(frame) < 14:
        return frame
    data = bytearray(frame)
    for start in (0, 6):
        data[start : start + 6] = macs.get(bytes(data[start : start + 6]), data[start : start + 6])
    at = _network(frame)
    ethertype = frame[at - 2 : at]
    if ethertype == b"\x08\x06" and len(frame) >= at + 28 and frame[at : at + 6] == _ARP_HEAD[:6]:
        for start, table, size in ((8, macs, 6), (14, addresses, 4), (18, macs, 6), (24, addresses, 4)):
            old = bytes(data[at + start : at + start + size])
            data[at + start : at + start + size] = table.get(old, old)
    elif ethertype == b"\x08\x00" and len(frame) >= at + 20:
        _ipv4(data, at, addresses)
    elif ethertype == b"\x86\xdd" and len(frame) >= at + 40:
        _ipv6(data, at, addresses)
    return bytes(data)


def _network(frame: bytes) -> int:
    at = 14
    while frame[at - 2 : at] in _TAGS and len(frame) >= at + 4:
        at += 4
    return at


def _ipv4(data: bytearray, at: int, addresses: Mapping[bytes, bytes]) -> None:
    header = _ipv4_header(data, at, addresses)
    is_first = not (data[at + 6] << 8 | data[at + 7]) & 0x1FFF
    if (
        is_first
        and data[at + 9] == 1
        and len(data) >= header + 28
        and data[header] in _QUOTING
        and data[header + 8] >> 4 == 4
    ):
        end = header + (len(data) - header & ~1)
        quoted = bytes(data[header + 8 : end])
        _ipv4_header(data, header + 8, addresses)
        _correct(data, header + 2, quoted, bytes(data[header + 8 : end]))


def _ipv4_header(data: bytearray, at: int, addresses: Mapping[bytes, bytes]) -> int:
    """Change a header and what of its transport's checksum is there; where the transport begins."""
    old, new = _replace(data, at + 12, 4, addresses)
    if old != new:
        _correct(data, at + 10, old, new)
    header = at + (data[at] & 15) * 4
    if not (data[at + 6] << 8 | data[at + 7]) & 0x1FFF:
        _transport(data, header, data[at + 9], old, new)
    return header


def _ipv6(data: bytearray, at: int, addresses: Mapping[bytes, bytes]) -> None:
    old, new = _replace(data, at + 8, 16, addresses)
    protocol, header = data[at + 6], at + 40
    while protocol in _EXTENSIONS and len(data) >= header + 8:
        protocol, header = data[header], header + (data[header + 1] + 1) * 8
    _transport(data, header, protocol, old, new)


def _replace(data: bytearray, start: int, size: int, addresses: Mapping[bytes, bytes]) -> tuple[bytes, bytes]:
    """Both addresses of a header: what they were, and are now."""
    old = bytes(data[start : start + 2 * size])
    new = b"".join(addresses.get(one, one) for one in (old[:size], old[size:]))
    data[start : start + 2 * size] = new
    return old, new


def _transport(data: bytearray, header: int, protocol: int, old: bytes, new: bytes) -> None:
    place = _CHECKSUMS.get(protocol)
    if place is None or old == new or len(data) < header + place + 2:
        return
    if protocol == 17 and not data[header + place] | data[header + place + 1]:
        return  # none (RFC 768)
    _correct(data, header + place, old, new)
    if protocol == 17 and not data[header + place] | data[header + place + 1]:
        data[header + place : header + place + 2] = b"\xff\xff"


def _correct(data: bytearray, place: int, old: bytes, new: bytes) -> None:
    value = update(data[place] << 8 | data[place + 1], old, new)
    data[place : place + 2] = value.to_bytes(2, "big")
