"""Compiles the benchmarks' own C and C++ programs, once for each version of their source."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from benchmarks.pods import BenchError
from benchmarks.programs.find import find

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "benchmarks"


def compiled(source: str, *options: str) -> Path:
    """The program that a source of this folder gives, compiled where it has changed. BenchError where it does not."""
    path = HERE / source
    compiler = "g++" if path.suffix == ".cc" else "gcc"
    if find(compiler) is None:
        raise BenchError(f"{compiler} is not installed: apt-get install {compiler}")
    digest = hashlib.sha256(path.read_bytes() + " ".join(options).encode()).hexdigest()[:12]
    program = BUILD / f"{path.stem}-{digest}"
    if not program.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        unfinished = program.with_suffix(".new")
        command = [compiler, "-O2", "-Wall", "-o", str(unfinished), str(path), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"{' '.join(command)}: {done.stderr.strip()}")
        os.replace(unfinished, program)
    return program
