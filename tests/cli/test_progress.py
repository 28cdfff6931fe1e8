"""Bars: on a terminal only, after a while only, and nothing of them stays."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

PROGRAM = """
import time
from emunet.cli.progress import bar
with bar("counting", 10) as shown:
    for number in range(10):
        shown.to(number)
        time.sleep({pause})
print("done")
"""


def at_a_terminal(pause: float) -> str:
    """What comes to a terminal that is standard error."""
    ours, theirs = pty.openpty()
    program = [sys.executable, "-c", PROGRAM.format(pause=pause)]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"}
    done = subprocess.run(
        program, stdout=subprocess.PIPE, stderr=theirs, env=environment, text=True, timeout=60, check=True
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # Linux says so at the end of what was written
            break
        if not piece:
            break
        seen += piece
    os.close(ours)
    assert done.stdout == "done\n"
    return seen.decode()


def test_what_takes_long_has_a_bar_that_goes_away() -> None:
    seen = at_a_terminal(0.12)
    assert "counting" in seen
    assert "%" in seen
    assert seen.rstrip("\r\n").endswith("\x1b[2K"), "the line is not wiped at the end"


def test_what_is_quick_has_none() -> None:
    assert at_a_terminal(0.001) == ""


@pytest.mark.parametrize("pause", [0.07])
def test_nothing_goes_into_a_pipe(pause: float) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(pause=pause)], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("done\n", "")
