"""Scenarios in virtual time: what became of the flows, the same for the same seed, an hour in seconds, and a figure."""

from __future__ import annotations

import json
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from emunet.cli.main import run
from emunet.cluster.scenario import read_scenario
from emunet.lab.lab import Lab
from emunet.lab.scenario import ScenarioFailed, play
from emunet.lab.traffic import Flow, Traffic
from emunet.pictures.timeline import figure

ROOT = Path(__file__).parents[2]
TOPOLOGY = ROOT / "topologies" / "two-hosts.yaml"
SCENARIOS = sorted((ROOT / "scenarios").glob("*.yaml"))
SECOND = 1_000_000_000


def written(tmp_path: Path, duration: str, flows: str, events: str) -> Path:
    """A scenario on two hosts."""
    path = tmp_path / "scenario.yaml"
    path.write_text(
        f"apiVersion: emunet/v1\nkind: Scenario\nmetadata: {{name: s}}\nspec:\n  topology: {TOPOLOGY}\n"
        f"  duration: {duration}\n  flows: [{flows}]\n  events: [{events}]\n"
    )
    return path


SLOW = {"queue"}


@pytest.mark.parametrize(
    "path", [pytest.param(path, marks=[pytest.mark.slow] * (path.stem in SLOW), id=path.stem) for path in SCENARIOS]
)
def test_every_shipped_scenario_plays(path: Path) -> None:
    """And its opening comment says what it shows, what to try and what to see."""
    opening = path.read_text().split("apiVersion")[0].lower()
    for word in ("shows", "try", "see", "emunet scenario"):
        assert word in opening
    played = play(read_scenario(path))
    assert all(flow["sent"] for flow in played.flows)
    ledger = played.frames
    came = ledger["received"] + ledger["generated"] + ledger["copied"]
    assert came == ledger["delivered"] + ledger["consumed"] + ledger["dropped"] + ledger["queued"]


def test_each_kind_of_fate_is_told(tmp_path: Path) -> None:
    flows = "{name: f, from: web-1, to: web-3, rate: 1000/s, late: 30ms}"
    events = """
        {at: 1s, link: host1--switch1, delay: 10ms},
        {at: 2s, link: host1--switch1, reorder: 10%},
        {at: 3s, link: host1--switch1, clear: true, loss: 50%},
        {at: 4s, link: host1--switch1, clear: true, duplicate: 100%},
        {at: 5s, link: host1--switch1, clear: true, delay: 40ms},
        {at: 6s, link: host1--switch1, clear: true}, {at: 6s, freeze: web-1}, {at: 7s, thaw: web-1},
        {at: 8s, exhaust: switch1, table: bridge stations, to: 1}, {at: 8s, partition: [[host2]]},
        {at: 9s, heal: true}
    """
    played = play(read_scenario(written(tmp_path, "10s", flows, events)))
    [flow] = played.flows
    assert flow["sent"] == 9001, "nothing is sent by a frozen pod"
    assert flow["why"] == {"WIRE_PARTITIONED": 1000, "WIRE_LOST": flow["lost"] - 1000}
    assert 430 < flow["why"]["WIRE_LOST"] < 570
    assert flow["received"] + flow["lost"] == flow["sent"]
    assert 900 < flow["duplicated"] <= 1000
    assert 990 < flow["late"] <= 1000
    assert 500 < flow["reordered"] < 1000
    assert flow["latency_ns"]["most"] == 40_000_000
    assert sum(row["to_ns"] - row["from_ns"] > SECOND * 0.9 for row in flow["gaps"]) == 2
    assert [what for _, what in played.events][-1] == "the partition heals"


def test_a_flow_that_moves(tmp_path: Path) -> None:
    """Whoever has the address now gets it: a move is told with the new way."""
    with Lab(TOPOLOGY) as lab:
        traffic = Traffic(lab.plane, [Flow("f", "web-1", lab.pod("web-3").ip)], 0, SECOND)
        lab.clock.advance(1)
        stream = traffic.streams[0]
        stream._last = ("host1", "switch9", "host2", "web-3")
        lab.clock.advance(1)
        traffic.end()
        [outcome] = traffic.outcome()
        assert outcome.moved == 1
        assert outcome.moves[0].path == ("host1", "switch1", "host2", "web-3")
        assert outcome.lost == outcome.on_the_way == 0


def test_a_flow_to_a_service_follows_the_pod_of_a_dead_host() -> None:
    """40 s until the node is NotReady, five minutes until the pod is elsewhere: to a pod that was not there before."""
    played = play(read_scenario(ROOT / "scenarios/host-dies.yaml"))
    (flow,) = played.flows
    assert flow["why"] == {"SERVICE_NO_ENDPOINTS": 3000, "DEVICE_OFF": 401}
    assert flow["on_the_way"] == 0
    (move,) = flow["moves"]
    assert move["path"][:3] == ["host1", "switch1", "host3"]
    assert round((move["at_ns"] - played.began) / 1e9) == 350
    assert played.frames["queued"] == 0


def test_an_event_that_cannot_be_done_names_its_place(tmp_path: Path) -> None:
    path = written(tmp_path, "3s", "{from: web-1, to: web-3}", "{at: 1s, link: host1--switch1, jitter: 1ms}")
    with pytest.raises(ScenarioFailed, match=r"scenario.yaml:8:12: jitter cannot be larger than delay"):
        play(read_scenario(path))


@pytest.mark.slow
def test_the_same_seed_is_the_same_to_the_byte_with_and_without_the_cache(tmp_path: Path) -> None:
    scenario = read_scenario(ROOT / "scenarios" / "power-cut.yaml")
    ran = []
    for number, (seed, cache) in enumerate([(7, True), (7, False), (8, True)]):
        file = tmp_path / f"{number}.pcapng"
        played = play(scenario, seed=seed, flow_cache=cache, capture=file, ports=["web-1", "switch1:2"])
        ran.append((file.read_bytes(), json.dumps(played.as_dict()), figure(played.as_dict())))
    assert ran[0] == ran[1]
    assert ran[0][0] != ran[2][0]


def test_an_hour_takes_seconds(tmp_path: Path) -> None:
    flows = "{name: there, from: web-1, to: web-3, rate: 5/s}, {name: back, from: web-4, to: web-2, rate: 5/s}"
    events = """
        {at: 10m, link: host1--switch1, delay: 20ms, loss: 1%}, {at: 30m, host: host2, power: off},
        {at: 31m, host: host2, power: on}, {at: 45m, link: host2--switch1, flap: [20s, 5s]}
    """
    scenario = read_scenario(written(tmp_path, "1h", flows, events))
    began = time.process_time()
    played = play(scenario)
    took = time.process_time() - began
    print(f"an hour of lab time, {sum(flow['sent'] for flow in played.flows):,} datagrams: {took:.1f} s")
    assert [flow["sent"] for flow in played.flows] == [18001, 17701]
    assert played.flows[0]["why"].keys() >= {"WIRE_LOST", "WIRE_DOWN", "DEVICE_OFF"}
    assert took < 60


def test_the_figure_shows_every_flow_and_event(tmp_path: Path) -> None:
    played = play(read_scenario(ROOT / "scenarios" / "power-cut.yaml")).as_dict()
    drawn = ElementTree.fromstring(figure(played))
    texts = [element.text or "" for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    for flow in played["flows"]:
        assert any(flow["name"] in text for text in texts)
    for event in played["events"]:
        assert any(event["what"] in text for text in texts)
    lines = list(drawn.iter("{http://www.w3.org/2000/svg}polyline"))
    assert len(lines) >= 4
    width = float(drawn.attrib["width"])
    for line in lines:
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= float(drawn.attrib["height"])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, file = tmp_path / "p.svg", tmp_path / "p.pcapng"
    arguments = ["scenario", str(ROOT / "scenarios" / "power-cut.yaml"), "--figure", str(picture)]
    assert run(arguments) == 0
    told = capsys.readouterr().out
    assert "across: lost because DEVICE_OFF 788" in told
    assert "across: silent for 6.01s, from 39.99s to 46s" in told
    assert picture.read_text().startswith("<svg")
    assert run([*arguments, "-o", "json", "--capture", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["flows"][0]["name"] == "across"
    assert file.stat().st_size > 100_000
    bad = written(tmp_path, "3s", "{from: web-9, to: web-3}", "")
    assert run(["scenario", str(bad)]) == 1
    assert "there is no pod 'web-9'" in capsys.readouterr().err
    assert run(["scenario", str(bad), "--lab", "x", "--seed", "1"]) == 2
