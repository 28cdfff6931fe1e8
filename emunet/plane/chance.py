"""Chance that repeats: a choice is a hash of what it is about, never a draw from a stream.

So a dry run or a cache miss changes nothing, and the same seed gives the same world
on every machine and under every hash seed of Python.
"""

from __future__ import annotations

from hashlib import blake2b
from zlib import crc32


def chance(*about: object) -> int:
    """A 64-bit number for these values (bytes, text, numbers): equal values, equal number."""
    digest = blake2b(digest_size=8)
    for value in about:
        part = value if isinstance(value, bytes) else str(value).encode()
        digest.update(len(part).to_bytes(4, "big") + part)
    return int.from_bytes(digest.digest(), "big")


def flow_hash(seed: int, place: str, source: bytes, destination: bytes, protocol: int, ports: tuple[int, int]) -> int:
    """A 32-bit number for a flow at a place: all its packets get the same."""
    text = b"%d/%b/%d/%d/%d" % (seed, place.encode(), protocol, *ports)
    return crc32(source + destination, crc32(text))
