"""For tests of applications and protocols: labs that speak Scapy, a pytest plugin, hypothesis strategies.

    from emunet.testing import Lab

    with Lab("topologies/two-hosts.yaml") as lab:
        reply = lab.pod("web-1").sr1(IP(dst=lab.pod("web-3").ip) / ICMP())

`Lab` is in this process, on memory wires; `TapLab` is a lab of real kernels and programs.
In pytest the fixture `lab` gives either. Scapy is imported only when a packet of its kind
is used; `emunet.testing.strategies` needs hypothesis.

Rule of this file: a name is loaded when it is asked for, because pytest imports this
package, for the plugin in it, wherever emunet is installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emunet.lab.rerun import Rerun, rerun
    from emunet.testing.assertions import assert_cannot_reach, assert_no_drops, assert_reaches
    from emunet.testing.explained import Answer, Explained
    from emunet.testing.lab import Lab, Pod
    from emunet.testing.taplab import TapLab

_HOMES = {
    "Answer": "emunet.testing.explained",
    "Explained": "emunet.testing.explained",
    "Lab": "emunet.testing.lab",
    "Pod": "emunet.testing.lab",
    "Rerun": "emunet.lab.rerun",
    "TapLab": "emunet.testing.taplab",
    "assert_cannot_reach": "emunet.testing.assertions",
    "assert_no_drops": "emunet.testing.assertions",
    "assert_reaches": "emunet.testing.assertions",
    "rerun": "emunet.lab.rerun",
}

__all__ = [
    "Answer", "Explained", "Lab", "Pod", "Rerun", "TapLab", "assert_cannot_reach", "assert_no_drops",
    "assert_reaches", "rerun",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """A public name, from its home."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
