"""Who speaks: `with pod("web-1"): ...` and everything of Scapy that names no interface is said by that pod.

`send`, `sr1`, `traceroute`, `arping` and their like leave by `conf.iface`; automata and what else
opens `conf.L3socket` and its like by itself does so too, once those know of the lab's ports.

Rule of this file: what was before is again afterwards, also after an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scapy.config import conf
from scapy.interfaces import network_name

from emunet.shell.ports import Ports

_SOCKETS = ("L2socket", "L2listen", "L3socket", "L3socket6")


class NoSuchPort(ValueError):
    """The lab has no port of that name: a sentence."""


def make_pod(ports: Ports) -> Any:
    """The function `pod` of the prompt, for the ports of a lab."""

    @contextmanager
    def pod(name: str) -> Iterator[str]:
        """Within it, whatever names no interface is said by this pod (or any other port of the lab)."""
        port = name.removeprefix("default/")
        if port not in ports.by_name:
            ports.refresh()
        if port not in ports.by_name and f"{port}:eth0" in ports.by_name:
            port = f"{port}:eth0"
        if port not in ports.by_name:
            raise NoSuchPort(f"there is no pod or port {name}; there are: {', '.join(ports.by_name)}")
        before = conf.iface
        conf.iface = port
        try:
            yield port
        finally:
            conf.iface = before

    return pod


def choose_sockets(ports: Ports, ours: dict[str, type]) -> None:
    """Have `conf.L3socket` and its like open ports of the lab where the interface is one, and else the machine's."""
    for name in _SOCKETS:
        setattr(conf, name, _choosing(ports, ours[name], getattr(conf, name)))


def _choosing(ports: Ports, ours: type, theirs: Any) -> type:
    base: Any = theirs if isinstance(theirs, type) else object  # one of them is a partial

    class Choosing(base):  # type: ignore[misc]
        """Makes one of two kinds of sockets: what it gives is none of its own kind, so nothing is begun twice."""

        def __new__(cls, iface: Any = None, *args: Any, **options: Any) -> Any:
            is_ours = network_name(iface or conf.iface) in ports.by_name
            return (ours if is_ours else theirs)(iface, *args, **options)

    return Choosing
