"""`emunet top`: what is busy in a lab, live: devices, ports, links, flows, drops.

On a terminal it fills the screen and listens to keys; elsewhere it prints one look.

Rule of this file: it looks, waits and listens; what a look shows is `top_view`'s.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from emunet.cli.interrupt import until_interrupted
from emunet.cli.options import lab_option, output_option, print_json, the_lab
from emunet.daemon.client import LabClient

_LONGEST, _SHORTEST = 60.0, 0.1


@click.command()
@click.option(
    "-d", "delay", type=click.FloatRange(_SHORTEST, _LONGEST), default=1.0, metavar="S", help="Seconds between looks."
)
@click.option("-n", "looks", type=click.IntRange(min=1), metavar="N", help="Look N times, then end.")
@lab_option
@output_option
def top(delay: float, looks: int | None, lab: str | None, output: str) -> None:
    """Show what is busy, live: devices, ports, links, flows, and drops by reason.

    Keys: Tab or 1-5 another view, space halts, + and - look more or less often, q ends.
    """
    from emunet.cli.render import console
    from emunet.cli.top_view import Look, picture

    client = the_lab(lab)
    if output == "json":
        print_json(_look(client)._asdict())
        return
    out = console()
    if not sys.stdout.isatty() or not sys.stdin.isatty():
        before = _look(client)
        for _ in range(looks or 1):
            time.sleep(delay)
            now = _look(client)
            out.print(picture(client.name, before, now, "all", None))
            before = now
        return
    with _screen() as keys:
        Screen(client, console(whole=True), keys, delay, looks, Look).run()


class Screen:
    """The live picture, and what keys do to it."""

    def __init__(self, client: LabClient, out: Any, keys: Keys, delay: float, looks: int | None, look: Any) -> None:
        self._client = client
        self._out = out
        self._keys = keys
        self._delay = delay
        self._left = looks
        self._view = 0
        self._halted = False
        self._before = self._now = _look(client)

    def run(self) -> None:
        """Look again and again until somebody has seen enough."""
        from rich.live import Live

        with Live(self._picture(), console=self._out, auto_refresh=False, screen=True) as live:
            due = time.monotonic() + min(self._delay, 0.3)  # nobody wants to look at zeros for long
            while True:
                key = self._keys.wait(max(0.0, due - time.monotonic()))
                if key in ("q", "Q", "end"):
                    return
                if key:
                    self._press(key)
                elif not self._halted:
                    self._before, self._now = self._now, _look(self._client)
                    if self._left is not None:
                        self._left -= 1
                if time.monotonic() >= due:
                    due = time.monotonic() + self._delay
                live.update(self._picture(), refresh=True)
                if self._left == 0:
                    return

    def _press(self, key: str) -> None:
        from emunet.cli.top_view import VIEWS

        if key == "\t":
            self._view = (self._view + 1) % len(VIEWS)
        elif key.isdigit() and 1 <= int(key) <= len(VIEWS):
            self._view = int(key) - 1
        elif key == " ":
            self._halted = not self._halted
        elif key == "+":
            self._delay = max(_SHORTEST, self._delay / 2)
        elif key == "-":
            self._delay = min(_LONGEST, self._delay * 2)

    def _picture(self) -> Any:
        from emunet.cli.top_view import VIEWS, footer, picture

        view = VIEWS[self._view]
        width, height = self._out.size
        below = footer(view, self._delay, halted=self._halted, width=width)
        return picture(self._client.name, self._before, self._now, view, height - 1, below, width=width)


def _look(client: LabClient) -> Any:
    from emunet.cli.top_view import Look

    return Look(time.monotonic(), client.get("counters"), client.get("traffic"), client.get("wires"))


class Keys:
    """Keys of a terminal, one at a time. Ctrl-C is `end`, another size of the window is `size`."""

    def __init__(self, signals: int) -> None:
        self._signals = signals

    def wait(self, seconds: float) -> str:
        """The next key, or "" after so many seconds."""
        ready = select.select([sys.stdin.fileno(), self._signals], [], [], seconds)[0]
        if self._signals in ready:  # it holds the numbers of signals that came
            came = os.read(self._signals, 64)
            return "size" if set(came) <= {signal.SIGWINCH} else "end"
        if not ready:
            return ""
        return os.read(sys.stdin.fileno(), 1).decode("ascii", "replace") or "end"


@contextmanager
def _screen() -> Iterator[Keys]:
    """A terminal whose keys come at once and unseen, and as it was afterwards."""
    before = termios.tcgetattr(sys.stdin.fileno())
    handler = signal.signal(signal.SIGWINCH, lambda number, frame: None)  # a signal that is handled wakes us
    try:
        tty.setcbreak(sys.stdin.fileno())
        with until_interrupted() as signals:
            yield Keys(signals)
    finally:
        signal.signal(signal.SIGWINCH, handler)
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)
