"""Scenarios as files: what they mean, and every fault with its place and sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from emunet.cluster.build import build
from emunet.cluster.load import BadInput, load_files
from emunet.cluster.scenario import check_names, read_scenario

ROOT = Path(__file__).parents[2]
HEAD = """apiVersion: emunet/v1
kind: Scenario
metadata: {name: s}
spec:
  topology: lab.yaml
"""


def faults(tmp_path: Path, text: str) -> list[str]:
    """What is said of a scenario."""
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as error:
        read_scenario(path)
    return [line.removeprefix(f"{path}:") for line in str(error.value).splitlines()]


def test_every_fault_has_its_place_and_sentence(tmp_path: Path) -> None:
    text = (
        HEAD
        + """  duration: 10s
  flows:
    - {from: a, to: b}
    - {from: a, to: b, name: a to b}
  events:
    - {at: 11s, link: l, loss: 1%}
    - {at: 1s}
    - {at: 1s, link: l, host: h, power: off}
    - {at: 1s, host: h}
    - {at: 1s, host: h, power: off, loss: 1%}
    - {at: 1s, link: l}
    - {at: 1s, link: l, up: true, down: true}
    - {at: 1s, link: l, from: h, up: true}
    - {at: 1s, exhaust: h}
    - {at: 1s, freeze: p, table: t}
    - {at: 1s, link: l, jitter: 5ms, delay: 1ms}
"""
    )
    assert faults(tmp_path, text) == [
        "9:30: spec.flows[1].name: the flow 'a to b' is given twice",
        "11:12: spec.events[0].at: this is after the end of the scenario",
        "12:7: spec.events[1]: expected one of link, host, partition, heal, freeze, thaw, dns or exhaust (got none)",
        "13:7: spec.events[2]: expected one of link, host, partition, heal, freeze, thaw, dns or exhaust"
        " (got link and host)",
        "14:7: spec.events[3]: say power: off or power: on",
        "15:37: spec.events[4].loss: loss belongs to the event link, not to host",
        "16:7: spec.events[5]: say what happens to the link: down, up, flap, clear, or a setting like loss: 1%",
        "17:7: spec.events[6]: down and up exclude each other",
        "18:31: spec.events[7].from: this says for which direction settings count: give one, like loss: 1%",
        "19:7: spec.events[8]: say which table: `emunet exhaust h` lists them",
        "20:27: spec.events[9].table: table belongs to the event exhaust, not to freeze",
        "21:7: spec.events[10]: jitter cannot be larger than delay: a frame would arrive before it was sent",
    ]


def test_fields_that_are_none(tmp_path: Path) -> None:
    text = (
        HEAD
        + """  duration: 10
  flows:
    - {from: a, to: b, rate: fast, size: 3, late: never, arrivals: often}
  events:
    - {at: 1s, host: h, power: maybe}
    - {at: 1s, link: l, los: 1%}
"""
    )
    assert faults(tmp_path, text) == [
        "6:13: spec.duration: expected a time with its unit, like 10ms or 10s (got 10)",
        "8:30: spec.flows[0].rate: expected datagrams a second, like 100/s (got 'fast')",
        "8:42: spec.flows[0].size: expected a whole number from 16 to 65507 (got 3)",
        "8:51: spec.flows[0].late: expected a time like 20ms, 1.5s or 300us (got 'never')",
        "8:68: spec.flows[0].arrivals: expected 'even' or 'random' (got 'often')",
        "10:32: spec.events[0].power: expected 'off' or 'on' (got 'maybe')",
        "11:25: spec.events[1].los: 'los' is not a field of an event; did you mean 'loss'?",
    ]


def test_what_is_no_scenario(tmp_path: Path) -> None:
    assert faults(tmp_path, "apiVersion: v1\nkind: Pod\n") == [
        "2:7: kind: expected the kind Scenario (apiVersion: emunet/v1)"
    ]
    assert "expected one object of kind Scenario in this file (got 2)" in faults(tmp_path, "a: 1\n---\nb: 2\n")[0]


def test_names_that_the_topology_has_not(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        HEAD
        + """  duration: 10s
  flows:
    - {from: web-9, to: web-3}
  events:
    - {at: 1s, link: host1--swich1, loss: 1%}
    - {at: 1s, link: host1--switch1, loss: 1%, from: host2}
    - {at: 2s, host: host3, power: off}
    - {at: 3s, partition: [[host1], [hots2]]}
    - {at: 4s, freeze: web-1}
"""
    )
    desired = build(load_files([ROOT / "topologies" / "two-hosts.yaml"]))
    with pytest.raises(BadInput) as error:
        check_names(read_scenario(path), desired)
    assert [line.removeprefix(f"{path}:") for line in str(error.value).splitlines()] == [
        "8:14: spec.flows[0].from: there is no pod 'web-9'; did you mean 'web-4'?",
        "10:22: spec.events[0].link: there is no link 'host1--swich1'; did you mean 'host1--switch1'?",
        "11:54: spec.events[1].from: there is no end of this link 'host2'; did you mean 'host1'?",
        "12:22: spec.events[2].host: there is no host or switch 'host3'; did you mean 'host2'?",
        "13:38: spec.events[3].partition[1][0]: there is no host 'hots2'; did you mean 'host2'?",
    ]


def test_events_are_in_order_and_say_what_happens() -> None:
    scenario = read_scenario(ROOT / "scenarios" / "power-cut.yaml")
    assert [event.words for event in scenario.events] == [
        "host1--switch1: delay 20ms, jitter 5ms, loss 2%",
        "host2: power off",
        "host2: power on",
        "host1--switch1: plain again",
        "partition host1",
        "the partition heals",
        "host1--switch1 from host1: rate 64kbit, queue 20",
    ]
    assert [event.at for event in scenario.events] == sorted(event.at for event in scenario.events)
    assert scenario.flows[0].interval == 10_000_000
