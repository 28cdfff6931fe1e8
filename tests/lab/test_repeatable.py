"""The same seed is the same capture, byte for byte: under other hash seeds, in every Python there is, with and without
the flow cache, and however often a recording is played again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from emunet.fabric.capture import Record
from emunet.fabric.config_text import decode, encode
from emunet.fabric.recording import NotARecording, Recording, is_recording
from emunet.lab.lab import Lab
from emunet.lab.rerun import Rerun, rerun
from emunet.lab.traffic import Flow, Traffic
from tests.lab.repeatable import run

ROOT = Path(__file__).parents[2]
TOPOLOGIES = sorted((ROOT / "topologies").glob("*.yaml"))
VERSIONS = ("3.11", "3.12", "3.13", "3.14")


def interpreters() -> dict[str, str]:
    """A Python of each version that this machine has: this one, those on the path, those of pyenv."""
    found = {f"{sys.version_info.major}.{sys.version_info.minor}": sys.executable}
    candidates = [shutil.which(f"python{version}") for version in VERSIONS]
    homes = sorted(Path.home().glob(".pyenv/versions/*/bin/python"))
    for candidate in [*map(str, homes), *(one for one in candidates if one is not None)]:
        asked = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=False)
        version = re.match(r"Python (3\.\d+)\.", asked.stdout)
        if asked.returncode == 0 and version and version[1] in VERSIONS:
            found.setdefault(version[1], candidate)
    return found


def configuration(topology: str = "dual-stack", seed: int = 7) -> str:
    """A World's configuration as text."""
    return json.dumps(encode(Lab(ROOT / "topologies" / f"{topology}.yaml", seed=seed).plane.world.config))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The configuration in a file, and the hash of what this Python makes of it."""
    folder = tmp_path_factory.mktemp("repeatable")
    (folder / "config.json").write_text(configuration())
    run((folder / "config.json").read_text(), folder / "here.pcapng")
    data = (folder / "here.pcapng").read_bytes()
    assert len(data) > 300_000
    return folder / "config.json", hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("hash_seed", ["1", "4294967295"])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_python_and_hash_seed_makes_the_same_bytes(
    reference: tuple[Path, str], tmp_path: Path, version: str, hash_seed: str
) -> None:
    """Without any of our dependencies: they would be the wrong ones there."""
    python = interpreters().get(version)
    if python is None:
        pytest.skip(f"this machine has no Python {version}")
    out = tmp_path / "out.pcapng"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed, "PYTHONDONTWRITEBYTECODE": "1"}
    script = ROOT / "tests" / "lab" / "repeatable.py"
    done = subprocess.run(
        [python, "-S", str(script), str(reference[0]), str(out)], env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(out.read_bytes()).hexdigest() == reference[1]


def test_without_the_flow_cache_too(reference: tuple[Path, str], tmp_path: Path) -> None:
    run(reference[0].read_text(), tmp_path / "out.pcapng", flow_cache=False)
    assert hashlib.sha256((tmp_path / "out.pcapng").read_bytes()).hexdigest() == reference[1]


def test_another_seed_makes_other_bytes(reference: tuple[Path, str], tmp_path: Path) -> None:
    run(configuration(seed=8), tmp_path / "out.pcapng")
    assert hashlib.sha256((tmp_path / "out.pcapng").read_bytes()).hexdigest() != reference[1]


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_a_cluster_compiles_to_the_same_under_every_hash_seed(hash_seed: str) -> None:
    code = (
        "import json, sys; from emunet.lab.lab import Lab; from emunet.fabric.config_text import encode;"
        "[print(json.dumps(encode(Lab(path, seed=7).plane.world.config))) for path in sys.argv[1:]]"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-c", code, *map(str, TOPOLOGIES)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    for path, line in zip(TOPOLOGIES, done.stdout.splitlines(), strict=True):
        assert line == configuration(path.stem)


# Configurations as text


@pytest.mark.parametrize("path", TOPOLOGIES, ids=lambda path: path.stem)
def test_a_configuration_comes_back(path: Path) -> None:
    config = Lab(path).plane.world.config
    assert decode(json.loads(json.dumps(encode(config)))) == config


def test_nothing_but_configurations_is_read() -> None:
    with pytest.raises(ValueError, match="no configuration has a Popen"):
        decode({"is": "Popen", "args": ["true"]})
    with pytest.raises(ValueError, match=r"knows another Port: .*colour"):
        decode({"is": "Port", "name": "x", "colour": "red"})
    with pytest.raises(TypeError, match="holds no object"):
        encode(object())


# Recordings


def recorded(tmp_path: Path, topology: str = "two-hosts") -> Path:
    """A busy run, recorded from its beginning."""
    path = tmp_path / "run.pcapng"
    with Lab(ROOT / "topologies" / f"{topology}.yaml", seed=3) as lab, lab.record(path):
        pods, wires = [pod.port for pod in lab.pods], list(lab.plane.world.wires)
        lab.ping_all()
        lab.pod(pods[-1]).serve(80)
        lab.link(wires[0], delay="20ms", jitter="5ms", loss="5%", duplicate="3%", reorder="3%", rate="1mbit")
        lab.link(wires[-1], flap="700ms,100ms")
        with pytest.raises(ValueError, match="jitter cannot be larger"):
            lab.link(wires[0], delay="0")
        flows = [Flow("a", pods[0], pods[-1], interval=5_000_000), Flow("b", pods[-1], pods[0], random=True)]
        traffic = Traffic(lab.plane, flows, lab.clock.now, 10**10)
        lab.pod(pods[0]).get(f"http://{pods[-1]}/")
        lab.clock.advance(5)
        lab.freeze(pods[-1])
        lab.clock.advance(1)
        lab.thaw(pods[-1])
        lab.partition([lab.plane.world.config.hosts[0].name])
        lab.clock.advance(1)
        lab.partition()
        lab.power("host1", on=False)
        lab.clock.advance(1)
        lab.power("host1", on=True)
        lab.exhaust("host1", "neighbours")
        for source, target in ((pods[0], pods[-1]), (pods[-1], pods[0]), (pods[1], pods[0])):
            lab.ping(source, target)  # not all pairs: each waits a second for an answer that does not come
        lab.plane.world.inject("switch1:1" if "switch1:1" in lab.ports else "spine1:1", bytes(64), lab.clock.now)
        traffic.end()
        lab.clock.advance(100)
    return path


@pytest.mark.parametrize(
    "topology",
    ["two-hosts", "leaf-spine", *(pytest.param(x, marks=pytest.mark.slow) for x in ("dual-stack", "published-ports"))],
)
def test_a_recording_plays_again_with_and_without_the_cache(tmp_path: Path, topology: str) -> None:
    path = recorded(tmp_path, topology)
    assert is_recording(path)
    for cache in (True, False):
        again = rerun(path, flow_cache=cache)
        assert again.same, again.differences
        assert set(again.plane.balance().values()) == {0}
        assert again.inputs == len(again.recording.entries) > 100
        assert sum(count for count, _ in again.recording.delivered.values()) > 1000


def test_another_world_is_seen_to_be_another(tmp_path: Path) -> None:
    """What a recording is for: after a change of the code something else comes of it, and that is told."""
    path = recorded(tmp_path)
    recording = Recording.load(path)
    entries = [one for one in recording.entries if not (one.command == "wire" and "loss" in str(one.said))]
    changed = Recording(
        recording.seed, True, recording.began, tuple(entries), recording.delivered, recording.refused, recording.ledger
    )
    again = Rerun(changed).run()
    assert not again.same
    assert any("frames, and" in difference for difference in again.differences)
    assert any(difference.startswith("reasons: ") for difference in again.differences)


def test_a_recording_can_be_watched_and_asked_on_its_way(tmp_path: Path) -> None:
    again = Rerun(Recording.load(recorded(tmp_path)))
    seen: list[Record] = []

    class Sink:
        def write(self, record: Record) -> None:
            seen.append(record)

    again.tap(["switch1:1"], Sink())
    again.run(lambda: bool(again.plane.trouble.frozen()) or again.plane.trouble.groups() != [])
    assert again.plane.trouble.groups() == [["host1"]]
    assert len(seen) > 50
    again.run()
    assert again.same


def test_a_recording_that_was_cut_off_plays_as_far_as_it_goes(tmp_path: Path) -> None:
    path = recorded(tmp_path)
    whole = Recording.load(path)
    with open(path, "rb") as file:
        data = file.read()
    ended = data.rfind(b"\x06\x00\x00\x00", 0, len(data) - 4)
    path.write_bytes(data[:ended])
    cut = Rerun(Recording.load(path)).run()
    assert cut.inputs == len(whole.entries) - 1
    with pytest.raises(ValueError, match="the recording was cut off"):
        assert cut.same


def test_what_is_no_recording(tmp_path: Path) -> None:
    path = tmp_path / "capture.pcapng"
    with Lab(ROOT / "topologies" / "one-host.yaml") as lab, lab.capture(lab.ports, path):
        lab.ping_all()
    assert not is_recording(path)
    with pytest.raises(NotARecording, match="is a capture, not a recording"):
        Recording.load(path)
    path.write_bytes(b"nonsense")
    assert not is_recording(path)
    with pytest.raises(NotARecording, match="is no recording: not a pcapng file"):
        Recording.load(path)


def test_a_capture_is_a_test_case(tmp_path: Path) -> None:
    """What a pod sent once is let in again, with the time between, into another lab."""
    path = tmp_path / "capture.pcapng"
    with Lab(ROOT / "topologies" / "two-hosts.yaml") as lab, lab.capture("web-1", path):
        lab.ping("web-1", "web-3")
        lab.clock.advance(1.5)
        lab.ping("web-1", "web-3")
    with Lab(ROOT / "topologies" / "two-hosts.yaml") as lab:
        seen: list[int] = []

        class Sink:
            def write(self, record: Record) -> None:
                if record.inbound:
                    seen.append(record.at)

        lab.plane.tap(["web-3"], Sink())
        assert lab.play(path, "web-1", interface="web-1") > 2
        assert seen[-1] - seen[0] == 1_500_000_000
        assert set(lab.plane.balance().values()) == {0}
