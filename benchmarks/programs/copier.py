"""The bare copier: what any forwarder in Python costs at least, between two TAPs that are given by descriptor.

    python -m benchmarks.programs.copier DESCRIPTOR DESCRIPTOR

A frame is read into one buffer, looked up once by its addresses and ports, and written to
the other side. It decides, rewrites, counts and checks nothing.
"""

from __future__ import annotations

import os
import select
import sys

BATCH = 64


def main() -> None:
    """Copy for ever."""
    first, second = int(sys.argv[1]), int(sys.argv[2])
    other = {first: second, second: first}
    poller = select.epoll()
    for descriptor in other:
        poller.register(descriptor, select.EPOLLIN)
    buffer = bytearray(1 << 17)
    view = memoryview(buffer)
    buffers = [buffer]
    readv, write = os.readv, os.write
    known: dict[tuple[int, bytes], int] = {}
    while True:
        for descriptor, _ in poller.poll():
            try:
                for _ in range(BATCH):
                    length = readv(descriptor, buffers)
                    key = (descriptor, bytes(view[10:48]))
                    out = known.get(key)
                    if out is None:
                        out = known[key] = other[descriptor]
                        if len(known) > 65536:
                            known.clear()
                    write(out, view[:length])
            except BlockingIOError:
                pass


if __name__ == "__main__":
    main()
