"""Messages on their way to a process that may be slow to take them: they wait here, in order, and stop nobody.

Rule of this file: a descriptor that waits here is a copy, and is closed once it is sent or cannot be.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any

from emunet.linux import messages

_PAUSE_SECONDS = 0.005


class Outbox:
    """The sending half of a channel (`linux.messages`), for an event loop."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._unsent: deque[tuple[dict[str, Any], list[int]]] = deque()
        self._watching = False

    def send(self, body: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send now if there is room, else when there is. The descriptors may be closed at once: copies travel."""
        self._unsent.append((body, [os.dup(descriptor) for descriptor in descriptors]))
        self._flush()

    def close(self) -> None:
        """Send nothing more. The channel is the caller's to close, after this."""
        self._watch(False)
        while self._unsent:
            self._drop()

    def _flush(self) -> None:
        while self._unsent:
            body, descriptors = self._unsent[0]
            try:
                messages.send(self._channel, body, descriptors, socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._watch(True)
                return
            except OSError as error:
                # More descriptors under way than this user may have: some will be taken soon. Otherwise the other
                # side is gone, and whoever reads from it finds that out.
                if error.errno == errno.ETOOMANYREFS:
                    self._watch(False)
                    self._loop.call_later(_PAUSE_SECONDS, self._flush)
                    return
            self._drop()
        self._watch(False)

    def _drop(self) -> None:
        for descriptor in self._unsent.popleft()[1]:
            os.close(descriptor)

    def _watch(self, watching: bool) -> None:
        if watching and not self._watching:
            self._loop.add_writer(self._channel, self._flush)
        elif not watching and self._watching:
            self._loop.remove_writer(self._channel)
        self._watching = watching
