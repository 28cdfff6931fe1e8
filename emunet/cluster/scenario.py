"""`kind: Scenario`: a timeline of trouble, and the flows that are watched meanwhile, as a file states them.

    apiVersion: emunet/v1
    kind: Scenario
    metadata: {name: power-cut}
    spec:
      topology: ../topologies/two-hosts.yaml
      duration: 60s
      flows:
        - {from: web-1, to: web-3, rate: 100/s, late: 50ms}
      events:
        - {at: 10s, link: host1--switch1, delay: 20ms, loss: 1%, from: host1}
        - {at: 20s, host: host2, power: off}
        - {at: 30s, host: host2, power: on}
        - {at: 40s, partition: [[host1], [host2]]}
        - {at: 50s, heal: true}
        - {at: 55s, dns: off}

Rule of this file: what is read here makes sense by itself, and (`check_names`) in its
topology; whether a wire can take a setting at that moment is the wire's to say.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path as FilePath
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PlainValidator

from emunet.cluster.check_pods import port_name
from emunet.cluster.desired import Desired
from emunet.cluster.impairments import Direction, Duration, check_settings
from emunet.cluster.load import BadInput, Document, Path, Problem, load_files
from emunet.cluster.schema import DnsLabel, Model, did_you_mean, read, whole
from emunet.fabric.impairment import parse_flap

SECOND = 1_000_000_000
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:/\s*s|pps)")


def _per_second(value: object) -> int:
    """`100/s` -> the ns between two."""
    match = _RATE.fullmatch(str(value).strip())
    if match is None or not 0 < Decimal(match[1]) <= 1_000_000:
        raise ValueError("expected datagrams a second, like 100/s")
    return int(SECOND / Decimal(match[1]))


class FlowModel(Model):
    """A flow that is sent and watched."""

    called: ClassVar[str] = "a flow"
    name: str | None = None
    source: str = Field(alias="from")
    target: str = Field(alias="to")
    rate: Annotated[int, PlainValidator(_per_second)] = SECOND // 100
    size: Annotated[int, whole(16, 65507)] = 64
    late: Duration = 100_000_000
    arrivals: Literal["even", "random"] = "even"


class EventModel(Direction):
    """Something that happens at a time. What it is about is said by one of `_ABOUT`."""

    called: ClassVar[str] = "an event"
    at: Duration
    link: str | None = None
    source: str | None = Field(None, alias="from")
    down: Literal[True] | None = None
    up: Literal[True] | None = None
    flap: Annotated[Any, PlainValidator(lambda value: (parse_flap(value), value)[1])] = None
    clear: Literal[True] | None = None
    host: str | None = None
    power: Literal["off", "on"] | None = None
    partition: list[list[str]] | None = None
    heal: Literal[True] | None = None
    freeze: str | None = None
    thaw: str | None = None
    dns: Literal["off", "on"] | None = None
    exhaust: str | None = None
    table: str | None = None
    to: Annotated[int, whole(1, 10**9)] | None = None


class ScenarioMetadata(Model):
    """A scenario's name."""

    called: ClassVar[str] = "a scenario's metadata"
    name: DnsLabel


class ScenarioSpec(Model):
    """Where, how long, what flows, and what goes wrong when."""

    called: ClassVar[str] = "a scenario's spec"
    topology: str | None = None
    seed: Annotated[int, whole(0, 2**63)] = 0
    duration: Duration
    flows: Annotated[list[FlowModel], Field(min_length=1)]
    events: list[EventModel] = []


class ScenarioModel(Model):
    """The whole document."""

    called: ClassVar[str] = "a Scenario"
    api_version: Literal["emunet/v1"]
    kind: Literal["Scenario"]
    metadata: ScenarioMetadata
    spec: ScenarioSpec


@dataclass(frozen=True, slots=True)
class Event:
    """At a time (ns from the beginning) something is done to `subject`: `act` says what.

    link       arguments are the fields of a change of a wire: set, from, up, flap
    power      arguments: on
    partition  arguments: groups (none: heal)
    freeze     arguments: frozen
    dns        arguments: on
    exhaust    arguments: table, capacity (None: as many as it holds)
    """

    at: int
    act: Literal["link", "power", "partition", "freeze", "dns", "exhaust"]
    subject: str
    arguments: Mapping[str, Any]
    place: str = ""

    @property
    def words(self) -> str:
        """What happens, for people."""
        said = self.arguments
        match self.act:
            case "link":
                parts = [f"{name} {value}" for name, value in said.get("set", {}).items()]
                if said.get("clear"):
                    parts = ["plain again"]
                parts += [{True: "up", False: "down"}[said["up"]]] if "up" in said else []
                parts += [f"flaps {_pair(said['flap'])}"] if "flap" in said else []
                way = f" from {said['from']}" if "from" in said else ""
                return f"{self.subject}{way}: {', '.join(parts)}"
            case "power":
                return f"{self.subject}: power {'on' if said['on'] else 'off'}"
            case "partition":
                groups = [",".join(group) for group in said["groups"]]
                return f"partition {' | '.join(groups)}" if groups else "the partition heals"
            case "freeze":
                return f"{self.subject} {'freezes' if said['frozen'] else 'goes on'}"
            case "dns":
                return f"the name servers {'begin again' if said['on'] else 'end'}"
            case "exhaust":
                most = "is full" if said["capacity"] is None else f"holds {said['capacity']}"
                return f"{self.subject}: {said['table']} {most}"


def _pair(value: Any) -> str:
    return value if isinstance(value, str) else ",".join(map(str, value))


@dataclass(frozen=True, slots=True)
class FlowWish:
    """A flow as asked for; times in ns."""

    name: str
    source: str
    target: str
    interval: int
    size: int
    late: int
    random: bool


@dataclass(frozen=True, slots=True)
class Scenario:
    """A timeline. `topology` is the path of a file, empty where none is named; events are in the order of time."""

    name: str
    topology: str
    seed: int
    duration: int
    flows: tuple[FlowWish, ...]
    events: tuple[Event, ...]
    document: Document = field(compare=False, repr=False)


def read_scenario(path: str | os.PathLike[str]) -> Scenario:
    """The scenario of a file. BadInput with everything that is wrong."""
    documents = load_files([path])
    if len(documents) != 1:
        first = documents[1] if documents else None
        message = f"expected one object of kind Scenario in this file (got {len(documents)})"
        raise BadInput([first.problem((), message) if first else Problem(os.fspath(path), 1, 1, "", message)])
    document = documents[0]
    if document.data.get("kind") != "Scenario":
        raise BadInput([document.problem(("kind",), "expected the kind Scenario (apiVersion: emunet/v1)")])
    model, problems = read(ScenarioModel, document)
    if model is None:
        raise BadInput(problems)
    problems = list(_check(document, model.spec))
    if problems:
        raise BadInput(problems)
    spec = model.spec
    named = spec.topology
    topology = "" if named is None else os.fspath(FilePath(path).parent / named)
    events = [_event(document, index, event) for index, event in enumerate(spec.events)]
    return Scenario(
        model.metadata.name,
        topology,
        spec.seed,
        spec.duration,
        tuple(
            FlowWish(name, flow.source, flow.target, flow.rate, flow.size, flow.late, flow.arrivals == "random")
            for name, flow in zip(_names(spec.flows), spec.flows, strict=True)
        ),
        tuple(sorted(events, key=lambda event: event.at)),
        document,
    )


def _names(flows: Iterable[FlowModel]) -> list[str]:
    names: list[str] = []
    for flow in flows:
        name = flow.name or f"{flow.source} to {flow.target}"
        while flow.name is None and name in names:
            name += "'"
        names.append(name)
    return names


_ABOUT = ("link", "host", "partition", "heal", "freeze", "thaw", "dns", "exhaust")
_BELONGS = {
    "from": "link", "down": "link", "up": "link", "flap": "link", "clear": "link", "power": "host",
    "table": "exhaust", "to": "exhaust",
}  # fmt: skip
_FIELDS = {"from": "source"}


def _check(document: Document, spec: ScenarioSpec) -> Iterator[Problem]:
    if spec.duration == 0:
        yield document.problem(("spec", "duration"), "expected a time of more than nothing")
    names = _names(spec.flows)
    for index, name in enumerate(names):
        if name in names[:index]:
            yield document.problem(("spec", "flows", index, "name"), f"the flow {name!r} is given twice")
    for index, event in enumerate(spec.events):
        yield from _check_event(document, ("spec", "events", index), event, spec.duration)


def _check_event(document: Document, path: Path, event: EventModel, duration: int) -> Iterator[Problem]:
    about = [name for name in _ABOUT if getattr(event, name) is not None]
    if event.at > duration:
        yield document.problem((*path, "at"), "this is after the end of the scenario")
    if len(about) != 1:
        said = f"got {' and '.join(about)}" if about else "got none"
        yield document.problem(path, f"expected one of {', '.join(_ABOUT[:-1])} or {_ABOUT[-1]} ({said})")
        return
    own = about[0]
    settings = event.settings()
    for name, owner in [*_BELONGS.items(), *((name, "link") for name in settings)]:
        given = name in settings or getattr(event, _FIELDS.get(name, name), None) is not None
        if given and owner != own:
            yield document.problem((*path, name), f"{name} belongs to the event {owner}, not to {own}", key=True)
    if own == "host" and event.power is None:
        yield document.problem(path, "say power: off or power: on")
    if own == "exhaust" and event.table is None:
        yield document.problem(path, f"say which table: `emunet exhaust {event.exhaust}` lists them")
    if own == "link":
        yield from _check_link(document, path, event, settings)


def _check_link(document: Document, path: Path, event: EventModel, settings: dict[str, Any]) -> Iterator[Problem]:
    whole_link = [name for name in ("down", "up", "flap", "clear") if getattr(event, name) is not None]
    if len(whole_link) > 1:
        yield document.problem(path, f"{whole_link[0]} and {whole_link[1]} exclude each other")
    if not whole_link and not settings:
        yield document.problem(path, "say what happens to the link: down, up, flap, clear, or a setting like loss: 1%")
    if event.source is not None and not settings and event.clear is None:
        yield document.problem((*path, "from"), "this says for which direction settings count: give one, like loss: 1%")
    problem = check_settings(settings)
    if problem:
        yield document.problem(path, problem)


def _event(document: Document, index: int, event: EventModel) -> Event:
    path: Path = ("spec", "events", index)
    place = document.place(path)
    where = f"{document.file}:{place.line}:{place.column}"
    if event.link is not None:
        return Event(
            event.at, "link", event.link, _link_arguments(document.data["spec"]["events"][index], event), where
        )
    if event.host is not None:
        return Event(event.at, "power", event.host, {"on": event.power == "on"}, where)
    if event.exhaust is not None:
        return Event(event.at, "exhaust", event.exhaust, {"table": event.table, "capacity": event.to}, where)
    if event.dns is not None:
        return Event(event.at, "dns", "", {"on": event.dns == "on"}, where)
    if event.freeze is not None or event.thaw is not None:
        pod = event.freeze or event.thaw or ""
        return Event(event.at, "freeze", pod, {"frozen": event.freeze is not None}, where)
    return Event(event.at, "partition", "", {"groups": event.partition or []}, where)


def _link_arguments(written: dict[str, Any], event: EventModel) -> dict[str, Any]:
    """The change of a wire, in the words that were written: it travels as text and is read once more there."""
    arguments: dict[str, Any] = {}
    settings = {name: _text(written[name]) for name in event.settings()}
    if event.clear:
        arguments["clear"] = True
        settings = CLEARED | settings
    if settings:
        arguments["set"] = settings
    if event.source is not None:
        arguments["from"] = event.source
    if event.up or event.down:
        arguments["up"] = bool(event.up)
    if event.flap is not None:
        arguments["flap"] = _text(event.flap)
    return arguments


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


CLEARED = {
    "delay": "0", "jitter": "0", "distribution": "uniform", "loss": "0", "burst": "off", "every": "0", "match": "off",
    "duplicate": "0", "reorder": "0", "corrupt": "0", "rate": "off", "queue": "1000", "mtu": "off",
}  # fmt: skip
"""The settings of a plain wire."""


def check_names(scenario: Scenario, desired: Desired) -> None:
    """BadInput where a scenario speaks of what its topology has not."""
    cluster = desired.cluster
    hosts, switches = [host.name for host in cluster.hosts], [switch.name for switch in cluster.switches]
    pods = [port_name(pod.namespace, pod.name) for pod in desired.pods if not pod.host_network]
    links = {link.name: (link.a, link.b) for link in cluster.links}
    document, problems = scenario.document, []

    def know(path: Path, name: str, known: Iterable[str], what: str) -> None:
        names = list(known)
        if name not in names:
            hint = did_you_mean(name, names) or f"; there are {', '.join(names[:8])}"
            problems.append(document.problem(path, f"there is no {what} {name!r}{hint}"))

    for index, row in enumerate(document.data["spec"]["flows"]):
        know(("spec", "flows", index, "from"), row["from"], pods, "pod")
    for index, row in enumerate(document.data["spec"].get("events") or []):
        path: Path = ("spec", "events", index)
        if "link" in row:
            know((*path, "link"), row["link"], links, "link")
            if "from" in row and row["link"] in links:
                know((*path, "from"), row["from"], links[row["link"]], "end of this link")
        for name, known, what in [
            ("host", [*hosts, *switches], "host or switch"),
            ("exhaust", [*hosts, *switches], "host or switch"),
            ("freeze", pods, "pod"),
            ("thaw", pods, "pod"),
        ]:
            if name in row:
                know((*path, name), row[name], known, what)
        for number, group in enumerate(row.get("partition") or []):
            for place, host in enumerate(group):
                know((*path, "partition", number, place), host, hosts, "host")
    if problems:
        raise BadInput(problems)
