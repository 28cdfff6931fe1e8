"""What machine this is: figures without it mean nothing."""

from __future__ import annotations

import os
import platform
import re
import sysconfig
from pathlib import Path
from typing import Any

import emunet


def describe() -> dict[str, Any]:
    """Processor, cores, memory, kernel, interpreter, emunet's version."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "virtual": is_virtual(),
        "memory_gib": round(memory / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "system": system(),
        "interpreter": interpreter(),
        "emunet": emunet.__version__,
    }


def processor() -> str:
    """The processor's name for itself."""
    found = re.search(r"^model name\s*: (.*)$", _text("/proc/cpuinfo"), re.MULTILINE)
    return found.group(1) if found else platform.machine()


def is_virtual() -> bool:
    """Whether this is a virtual machine, where neighbours are felt."""
    return " hypervisor" in _text("/proc/cpuinfo")


def system() -> str:
    """The distribution."""
    found = re.search(r'^PRETTY_NAME="(.*)"$', _text("/etc/os-release"), re.MULTILINE)
    return found.group(1) if found else platform.platform()


def interpreter() -> str:
    """This Python, and how it was configured: with profiles (PGO) it is a quarter faster."""
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    flags = sysconfig.get_config_var("PY_CFLAGS") or ""
    levels = re.findall(r"-O\d", flags)
    built = ["--enable-optimizations" if "--enable-optimizations" in options else "no --enable-optimizations"]
    if "--with-lto" in options:
        built.append("--with-lto")
    built.append(levels[-1] if levels else "-O?")
    built.append(platform.python_compiler())
    return f"{platform.python_implementation()} {platform.python_version()} ({', '.join(built)})"


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
