"""emunet: a packet-level virtual network emulator.

Start with ARCHITECTURE.md, then `emunet.plane`. To drive a lab from Python, see
`emunet.testing`.

Rule of this file: it imports nothing, because every process of a lab, the keeper
included, passes through it.
"""

__version__ = "0.1.0"
