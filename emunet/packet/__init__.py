"""Formats: bytes <-> values; checksums; captures. Pure functions, no state, no clock.

Rule of this package: a parser given bad bytes raises `malformed.Malformed` and
nothing else; a builder given values out of range raises ValueError. Addresses
are bytes (`address.py`). Start with `ipv4.py`; every other format has its shape.
"""
