"""A command that runs while something is watched: `emunet capture ... --while COMMAND`.

Rule of this file: it is the person's own shell command, with the terminal's own input and output.
"""

from __future__ import annotations

import os
import subprocess
import threading


class Meanwhile:
    """A shell command that runs from now on. `fileno` is readable once it has ended."""

    def __init__(self, command: str) -> None:
        """Start it."""
        self._reading, self._writing = os.pipe()
        self._process = subprocess.Popen(command, shell=True)
        self._waiter = threading.Thread(target=self._wait, daemon=True)
        self._waiter.start()

    def fileno(self) -> int:
        """Readable once the command has ended."""
        return self._reading

    def finish(self) -> int:
        """Wait for the command's end, if need be; its exit code, as a shell says it."""
        self._waiter.join()
        os.close(self._reading)
        code = self._process.returncode
        return code if code >= 0 else 128 - code

    def _wait(self) -> None:
        self._process.wait()
        os.close(self._writing)  # the reader sees the end of the pipe
