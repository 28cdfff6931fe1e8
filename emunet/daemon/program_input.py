"""The standard input of a program of ours, as a pipe or as a terminal.

Rule of this file: it owns one descriptor, which is closed once, whoever asks for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import termios

_END_OF_INPUT = b"\x04"
"""What a person types at a terminal to say that no more will come."""


class Input:
    """The end of a pipe or of a terminal where what is written becomes a program's input."""

    def __init__(self, descriptor: int, *, terminal: bool) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor: int | None = descriptor
        self._terminal = terminal

    async def write(self, data: bytes) -> None:
        """Waits while the program does not read. OSError where it has closed its end."""
        loop = asyncio.get_running_loop()
        while data and self._descriptor is not None:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                room = asyncio.Event()
                loop.add_writer(self._descriptor, room.set)
                try:
                    await room.wait()
                finally:
                    if self._descriptor is not None:
                        loop.remove_writer(self._descriptor)

    def end(self) -> None:
        """No more will come."""
        if self._terminal and self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.write(self._descriptor, _END_OF_INPUT)
            return
        self.close()

    def resize(self, width: int, height: int) -> None:
        """The terminal has another size."""
        if self._terminal and self._descriptor is not None:
            size = struct.pack("HHHH", height & 0xFFFF, width & 0xFFFF, 0, 0)
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, size)

    def close(self) -> None:
        """Done with it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
