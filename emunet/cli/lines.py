"""Frames as lines on a terminal, or as objects of JSON: what `emunet capture` prints.

Rule of this file: a Watcher like any other (`watching`); what a line says of a frame is `frame_line`'s business.
"""

from __future__ import annotations

import json
import os
import time
from typing import TextIO

from emunet.daemon.capture_filter import CaptureFilter
from emunet.daemon.frame_channel import FrameChannel
from emunet.daemon.frame_format import INBOUND, NOTICE, FrameRecord
from emunet.packet.summary import frame_line, summarize

_RED = "\x1b[31m"
_PLAIN = "\x1b[0m"
_MESSAGES_A_TURN = 64


class Lines:
    """Prints a line for each frame, and one for each drop; or an object of JSON for each frame."""

    def __init__(
        self,
        channel: FrameChannel,
        out: TextIO,
        *,
        limit: int | None = None,
        filter: CaptureFilter | None = None,
        as_json: bool = False,
    ) -> None:
        self.written = 0
        self.lost = 0
        self.notices: list[str] = []
        self.failure = ""
        self._channel = channel
        self._out = out
        self._limit = limit
        self._filter = filter
        self._as_json = as_json
        self._names = [port.name for port in channel.ports]
        self._width = max(len(name) for name in self._names)
        self._colored = out.isatty() and "NO_COLOR" not in os.environ
        self._second = -1
        self._clock = ""
        self._stopped = False
        self._closing = False

    def fileno(self) -> int:
        """The channel's."""
        return self._channel.fileno()

    def read(self) -> bool:
        """Print what has come."""
        return self._read(0)

    def close(self) -> None:
        """Print what passed until now, and end."""
        self._closing = True
        self._channel.end()
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline and self._read(1):
            pass
        self._channel.close()

    def _read(self, timeout: float) -> bool:
        more = not (self._stopped or self._full)
        try:
            for _ in range(_MESSAGES_A_TURN):
                records = self._channel.receive(timeout) if more else []
                if not records:
                    break
                more = all(self._take(record) for record in records)
            self._out.flush()
        except EOFError:
            more = False
            if not self._closing:
                self.notices.append("the lab has ended")
        except OSError as error:
            self._stopped = True
            if not isinstance(error, BrokenPipeError):
                self.failure = f"cannot print: {error.strerror or error}"
            more = False
        return more

    @property
    def _full(self) -> bool:
        return self._limit is not None and self.written >= self._limit

    def _take(self, record: FrameRecord) -> bool:
        self.lost += record.lost
        if record.direction == NOTICE:
            self.notices += record.comments
            return True
        if self._filter is not None and not self._filter.takes(record.frame):
            return True
        self._out.write(self._json(record) if self._as_json else self._text(record))
        self.written += 1
        return not self._full

    def _text(self, record: FrameRecord) -> str:
        second, fraction = divmod(record.at, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._clock = time.strftime("%H:%M:%S", time.localtime(second))
        way = "in " if record.direction == INBOUND else "out"
        head = f"{self._clock}.{fraction // 1000:06d} {self._names[record.port]:<{self._width}} {way}"
        summary = summarize(record.frame)
        lines = [f"{head} {summary.line}{f'  {summary.said}' if summary.said else ''}"]
        for comment in record.comments:
            text = f"{' ' * len(head)}   {comment}"
            lines.append(f"{_RED}{text}{_PLAIN}" if self._colored else text)
        return "\n".join(lines) + "\n"

    def _json(self, record: FrameRecord) -> str:
        fields = {
            "time_ns": record.at,
            "port": self._names[record.port],
            "packet_id": record.identity,
            "direction": "in" if record.direction == INBOUND else "out",
            "length": len(record.frame),
            "summary": frame_line(record.frame),
            "comments": record.comments,
            "hex": record.frame.hex(),
        }
        return json.dumps(fields) + "\n"
