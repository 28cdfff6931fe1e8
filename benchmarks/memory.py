"""Memory wires and ns-3: each run is a process of its own, that ends with its figure.

Rule of this file: both run the same path with the same frames, and count what arrives.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.lab import ROOT
from benchmarks.pods import BenchError
from benchmarks.programs.build import compiled

_LIBRARIES = ("applications", "bridge", "csma", "internet", "network", "core")
_HEADER = Path("/usr/include/ns3/csma-module.h")
_PATIENCE = 300


def missing_ns3() -> str:
    """Why ns-3 is skipped, or ""."""
    return "" if _HEADER.exists() else "not installed: apt-get install ns3 libns3-dev libgsl-dev g++"


def ns3_program() -> Path:
    """The compiled program."""
    return compiled("leaf_spine.cc", *(f"-lns3-{name}" for name in _LIBRARIES))


def ns3_version() -> str:
    """The version of the library, as the distribution names it."""
    found = sorted(Path("/usr/lib").glob("*/libns3.*-core*.so*")) + sorted(Path("/usr/lib").glob("*/libns3-core.so*"))
    names = {path.resolve().name for path in found}
    package = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Version}", "libns3-dev"], capture_output=True, text=True, check=False
    )
    return f"ns-3 {package.stdout}" if not package.returncode else f"ns-3 ({', '.join(sorted(names))})"


def ns3(kind: str, count: int) -> Callable[[], tuple[float]]:
    """Delivered packets a wall second in ns-3."""
    program = ns3_program()

    def measure() -> tuple[float]:
        delivered, took = _run([str(program), kind, str(count)]).split()
        return (int(delivered) / float(took),)

    return measure


def emunet(kind: str, count: int) -> dict[str, Any]:
    """What the memory program says; see there."""
    result: dict[str, Any] = json.loads(_run([sys.executable, "-m", "benchmarks.programs.memory", kind, str(count)]))
    return result


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, cwd=ROOT, check=False)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{' '.join(command)} did not end within {_PATIENCE} s") from None
    if done.returncode:
        raise BenchError(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
    return done.stdout
