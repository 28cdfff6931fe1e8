"""`lab` at the prompt: the running lab, asked over its API, with answers that print well.

An answer is a dict (or a list) as the API gives it, for programs; shown at the prompt it is
the text that people read.

Rule of this file: it asks and shows; what a packet means is Scapy's business (`routing`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from scapy.layers.l2 import Ether
from scapy.packet import Packet

from emunet.daemon.client import LabClient
from emunet.packet.address import parse_ip
from emunet.shell.ports import Ports
from emunet.shell.routing import mark


def addresses_of_services(client: LabClient) -> Callable[[str, int], str | None]:
    """A way to look up the address that the name of a Service means, of a family (4 or 6)."""

    def lookup(name: str, family: int) -> str | None:
        try:
            parse_ip(name)
        except ValueError:
            found = client.get("names").get(name.removeprefix("default/"), {"addresses": ()})
            return next((one for one in found["addresses"] if (":" in one) == (family == 6)), None)
        return None

    return lookup


class Answer(dict[str, Any]):
    """What the lab answered; `print` and the prompt show it as text."""

    def __init__(self, value: dict[str, Any], show: Callable[[dict[str, Any]], str]) -> None:
        super().__init__(value)
        self._show = show

    def __repr__(self) -> str:
        return self._show(self)


class Lab:
    """The running lab.

    lab.ports                            every port, with its MAC and addresses
    lab.status()                         hosts, pods, frame counters
    lab.ping("web-1", "web-3")           echo between two, or all pairs without names
    lab.trace("web-1", IP(...)/ICMP())   what becomes of a packet, step by step; live=True really sends it
    lab.counters(), lab.tables("host1")  what is counted, and what was learned
    """

    def __init__(self, client: LabClient, ports: Ports) -> None:
        self._client = client
        self._ports = ports

    def __repr__(self) -> str:
        return f"<lab {self._client.name}, {len(self._ports.by_name)} ports>"

    @property
    def name(self) -> str:
        """The lab's name."""
        return self._client.name

    @property
    def ports(self) -> Answer:
        """Every port that can be watched, by name."""
        self._ports.refresh()
        return Answer(dict(self._ports.by_name), _show_ports)

    def status(self) -> Answer:
        """Hosts, pods and frame counters."""
        return Answer(self._client.get("status"), _show_status)

    def ping(self, source: str | None = None, target: str | None = None, count: int = 1, **wishes: Any) -> Answer:
        """Echo from one pod to another, or between all pairs of pods."""
        ends = {name: value for name, value in (("from", source), ("to", target)) if value is not None}
        return Answer(self._client.post("ping", count=count, **ends, **wishes), _show_ping)

    def trace(self, port: str, packet: Any, live: bool = False) -> Answer:
        """Follow a packet from a pod. With an Ether in front it is that frame, else sent as the pod would send it."""
        if isinstance(packet, Packet):
            mark(packet, port)
        is_frame = isinstance(packet, Ether) or not isinstance(packet, Packet)
        data = bytes(packet).hex()
        return Answer(self._client.post("trace", port=port, data=data, is_frame=is_frame, live=live), _show_trace)

    def counters(self) -> Answer:
        """The ledgers of the World and of each device."""
        return Answer(self._client.get("counters"), _show_counters)

    def tables(self, device: str) -> Answer:
        """Every table of a device: what was learned, and until when."""
        return Answer(self._client.get("tables", device), _show_tables)


def _columns(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))] if rows else []
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def _show_ports(ports: dict[str, Any]) -> str:
    rows = [(port.name, port.kind, port.device, port.mac, ", ".join(port.addresses)) for port in ports.values()]
    return _columns([("port", "kind", "device", "MAC", "addresses"), *rows])


def _show_status(status: dict[str, Any]) -> str:
    frames = status["frames"]
    rows = [("host", "addresses", "on", "ready")]
    rows += [(one["name"], ", ".join(one["ips"]), "", "yes" if one["ready"] else "no") for one in status["hosts"]]
    rows += [("pod", "addresses", "on", "ready")]
    for one in status["pods"]:
        name = one["name"] if one["namespace"] == "default" else f"{one['namespace']}/{one['name']}"
        rows.append((name, ", ".join(one["ips"]), one["host"], "yes" if one["ready"] else "no"))
    counted = ", ".join(f"{frames[name]} {name}" for name in ("received", "delivered", "consumed", "dropped", "queued"))
    head = f"lab {status['lab']}, {status['wires']} wires, {status['timing']}"
    return f"{head}\n{_columns(rows)}\nframes: {counted}"


def _show_ping(answer: dict[str, Any]) -> str:
    rows = [("from", "to", "address", "answered", "ms")]
    for pair in answer["pairs"]:
        times = [one for one in pair["rtt_ms"] if one is not None]
        told = ", ".join(f"{one:.2f}" for one in times) or pair.get("why", "no answer")
        rows.append((pair["from"], pair["to"], pair["address"], f"{pair['received']} of {pair['sent']}", told))
    return _columns(rows)


def _show_trace(trace: dict[str, Any]) -> str:
    return str(trace["text"])


def _show_counters(counters: dict[str, Any]) -> str:
    rows = [("", *[name for name in counters["world"] if name != "reasons"])]
    for name, ledger in (("world", counters["world"]), *counters["devices"].items()):
        rows.append((name, *[str(value) for key, value in ledger.items() if key != "reasons"]))
    reasons = [f"  {count} {reason}" for reason, count in counters["world"]["reasons"].items()]
    return "\n".join([_columns(rows), *reasons])


def _show_tables(tables: dict[str, Any]) -> str:
    parts = []
    for name, rows in tables.items():
        parts.append("\n".join([name, *(f"  {' '.join(row)}" for row in rows or [["(empty)"]])]))
    return "\n".join(parts)
