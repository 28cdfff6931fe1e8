"""The command line without a lab: what it offers, how it reads arguments, how it says no, and how answers look."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from rich.console import Console

from emunet.cli import render
from emunet.cli.execute import execute
from emunet.cli.main import COMMANDS, Unloaded, run
from emunet.cli.main import emunet as group
from emunet.cli.tour import farthest_pair, next_steps
from emunet.cli.up import CaptureOption, LabName
from emunet.daemon.client import LabError, end_lab, find_lab
from emunet.daemon.folder import ROOT_VARIABLE, folder_of, try_hold
from emunet.daemon.settings import CaptureWish

ROOT = Path(__file__).parents[2]
CONTRACT = {
    "up", "down", "labs", "status", "ping", "exec", "shell", "trace", "capture", "replay", "link", "top", "doctor",
    "tour",
}  # fmt: skip


def console() -> Console:
    return Console(file=io.StringIO(), width=120, highlight=False, markup=False)


def shown(out: Console) -> list[str]:
    assert isinstance(out.file, io.StringIO)
    return [line.rstrip() for line in out.file.getvalue().splitlines()]


# The group


def test_every_command_of_the_contract_is_there_under_its_name() -> None:
    assert set(group.commands) >= CONTRACT
    for name, unloaded in group.commands.items():
        assert isinstance(unloaded, Unloaded)
        command = unloaded.load()
        assert command.name == name
        assert command.help


def test_help_loads_no_command_and_nothing_slow() -> None:
    script = (
        "import sys\nfrom emunet.cli.main import run\nassert run(['--help']) == 0\n"
        "slow = {'aiohttp', 'asyncio', 'http.client', 'pydantic', 'scapy', 'yaml', 'emunet.fabric.config'}\n"
        "ours = {name for name in sys.modules if name.startswith('emunet.cli.')} - {'emunet.cli.main'}\n"
        "print(sorted(slow & sys.modules.keys()) + sorted(ours), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
    for panel, commands in COMMANDS.items():
        assert panel in done.stdout
        for name, (_, line) in commands.items():
            assert name in done.stdout
            assert line in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["nonsense"], 2, "No such command 'nonsense'"),
        (["ping", "web-1"], 2, "ping web-1 what?"),
        (["down", "--all", "--lab", "x"], 2, "--all and --lab exclude each other"),
        (["exec", "web-1"], 2, "Missing argument '-- COMMAND...'"),
        (["trace", "web-1"], 2, "say who sends what, as in: emunet trace web-1"),
        (["status"], 1, "no lab is running: `emunet up` starts one"),
        (["status", "--lab", "x"], 1, "the lab x is not running: `emunet up` starts one"),
    ],
)
def test_errors_are_one_sentence(
    arguments: list[str], code: int, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "run"))
    assert run(arguments) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("emunet: ")
    assert sentence in said.err
    assert said.err.count("\n") == 1


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("emunet, version ")


# Arguments


def test_a_capture_names_ports_and_an_absolute_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wish = CaptureOption().convert("web-1, host1:eth0=x=1.pcapng", None, None)
    assert wish == CaptureWish(("web-1", "host1:eth0"), str(tmp_path / "x=1.pcapng"))


@pytest.mark.parametrize("text", ["web-1", "=x", "web-1=", ",=x", "web-1=no/such/folder/x"])
def test_a_capture_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        CaptureOption().convert(text, None, None)


@pytest.mark.parametrize("text", ["two-hosts", "a", "lab9"])
def test_a_lab_may_be_called(text: str) -> None:
    assert LabName().convert(text, None, None) == text


@pytest.mark.parametrize("text", ["", "..", "a/b", "A", "-a", "ü", "x" * 64, "a b"])
def test_a_lab_may_not_be_called(text: str) -> None:
    with pytest.raises(click.BadParameter):
        LabName().convert(text, None, None)


@pytest.mark.parametrize(
    ("arguments", "command", "container"),
    [
        (["web-1", "--", "ping", "-c", "3", "web-3"], ("ping", "-c", "3", "web-3"), None),
        (["web-1", "-c", "main", "--", "ls", "-l"], ("ls", "-l"), "main"),
        (["-c", "main", "web-1", "--", "ls"], ("ls",), "main"),
        (["web-1", "ping", "-c", "3", "web-3"], ("ping", "-c", "3", "web-3"), None),
        (["-c", "main", "web-1", "ls", "--all"], ("ls", "--all"), "main"),
    ],
)
def test_exec_leaves_the_programs_options_alone(
    arguments: list[str], command: tuple[str, ...], container: str | None
) -> None:
    context = execute.make_context("exec", arguments)
    assert (context.params["name"], context.params["command"]) == ("web-1", command)
    assert context.params["container"] == container


# Which lab


def test_the_only_running_lab_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "run"))
    with pytest.raises(LabError, match="no lab is running"):
        find_lab(None)
    first = try_hold(folder_of("a"))
    assert first is not None
    assert find_lab(None).name == "a"
    second = try_hold(folder_of("b"))
    assert second is not None
    with pytest.raises(LabError, match=r"2 labs are running \(a, b\): say which one with --lab NAME"):
        find_lab(None)
    assert find_lab("b").name == "b"
    with pytest.raises(LabError, match="the lab a is just beginning or ending"):
        find_lab("a").get("status")
    first.remove()
    second.remove()


def test_a_lab_that_died_tells_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "run"))
    folder = folder_of("a")
    folder.path.mkdir(parents=True)
    folder.log.write_text("first\nthe plane process has ended by itself\n")
    with pytest.raises(LabError, match=r"is not running; its last words: the plane process has ended by itself \(more"):
        find_lab("a").get("status")
    assert end_lab(folder)
    assert not folder.path.exists()
    assert not end_lab(folder)


def test_a_wrong_root_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    os.chmod(tmp_path, 0o777)
    with pytest.raises(LabError, match="others may write into"):
        find_lab(None)


# Pictures


def pair(source: str, target: str, *times: float | None, why: str = "") -> dict[str, Any]:
    answered = sum(time is not None for time in times)
    row = {"from": source, "to": target, "address": "10.0.0.1", "sent": len(times), "received": answered}
    return row | {"rtt_ms": list(times)} | ({"why": why} if why else {})


def test_the_matrix_of_pings() -> None:
    out = console()
    pairs = [pair("a", "b", 0.5), pair("b", "a", None, why="dropped: there is no way")]
    render.ping_matrix(out, {"pairs": pairs, "unanswered": 1})
    assert shown(out) == [
        "from \\ to  a     b",
        "a          ·  0.50",
        "b          ✗     ·",
        "2 pairs, 1 without an answer; round trip 0.50 ms in the middle, 0.50 ms at worst",
        "b → a: dropped: there is no way",
    ]


def test_a_matrix_too_wide_becomes_sums() -> None:
    out = console()
    names = [f"web-{number}" for number in range(40)]
    pairs = [pair(a, b, None if a == "web-7" else 1.0) for a in names for b in names if a != b]
    render.ping_matrix(out, {"pairs": pairs, "unanswered": 39})
    assert shown(out) == [
        "from   answered  silent",
        "web-7         0      39",
        "1,560 pairs, 39 without an answer; round trip 1.00 ms in the middle, 1.00 ms at worst",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.004, "0.00"), (0.421, "0.42"), (3.14159, "3.14"), (31.4159, "31.4"), (314.15, "314")],
)
def test_milliseconds_have_three_digits(value: float, text: str) -> None:
    assert render.milliseconds(value) == text


def step(element: str, verdict: str, reason: str, why: str, *edits: str) -> dict[str, Any]:
    return {"element": element, "verdict": verdict, "reason": reason, "why": why, "edits": list(edits)}


TRACE = {
    "verdict": "dropped",
    "reason": "TTL_EXPIRED",
    "sentence": "its TTL of 1 ends at host1",
    "hops": [
        {
            "device": "host1",
            "at_ns": 1_000_000,
            "steps": [
                step("ingress", "forward", "ENTERED", "enters by web-1"),
                step("connections", "forward", "NOT_TRACKED", "no connection tracking here"),
                step("router", "forward", "ROUTED", "10.244.2.0/24", "TTL 2 -> 1"),
            ],
        },
        {
            "device": "host2",
            "at_ns": 3_500_000,
            "steps": [step("router", "drop", "TTL_EXPIRED", "its TTL of 1 ends at host1")],
        },
    ],
}


def test_a_trace_has_a_heading_for_each_hop_and_a_line_for_each_step() -> None:
    out = console()
    render.trace(out, TRACE)
    assert shown(out) == [
        "host1",
        "  ingress      enters by web-1",
        "  connections  no connection tracking here",
        "  router       10.244.2.0/24  [TTL 2 -> 1]",
        "host2  +2.500 ms",
        "  router       its TTL of 1 ends at host1",
        "dropped: its TTL of 1 ends at host1",
    ]


def test_a_short_trace_leaves_out_what_had_nothing_to_do_and_says_so() -> None:
    out = console()
    render.trace(out, TRACE, idle=False)
    lines = shown(out)
    assert not any("tracking" in line for line in lines)
    assert lines[-1] == "1 step with nothing to do left out: `emunet trace` shows all"


def test_what_goes_into_a_pipe_is_not_cut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    shown_table = render.table("a", "b")
    shown_table.add_row("x" * 60, "y" * 60)
    shown_table.add_row("x", "y")
    render.console().print(shown_table)
    printed = capsys.readouterr().out
    assert "x" * 60 + "  " + "y" * 60 + "\n" in printed
    assert "x" + " " * 61 + "y\n" in printed, "and not filled up: where the pipe leads to a terminal that would wrap"


def test_prose_goes_on_below_where_a_terminal_is_narrow() -> None:
    out = console()
    out.width = 40
    rows = render.table("link", "what goes wrong", prose="what goes wrong")
    rows.add_row("host1--switch1", "delay 20ms, jitter 5ms, loss 1%, match udp port 53")
    out.print(rows)
    said = " ".join(" ".join(shown(out)).split())
    assert "host1--switch1 delay 20ms, jitter 5ms, loss 1%, match udp port 53" in said


def test_the_tour_cuts_no_command() -> None:
    out = console()
    command = "emunet trace web-1 'IP(dst=\"web-3\", ttl=1)/ICMP()'"
    out.width = len(command) + 12
    out.print(next_steps([(command, "where it ends, and who says so")]))
    lines = shown(out)
    assert lines[0].startswith(f"  {command}  where")
    assert " ".join(line.strip() for line in lines).endswith("where it ends, and who says so")


def test_the_tour_goes_to_another_host_where_it_can() -> None:
    pods = json.loads(
        '[{"namespace": "default", "name": "a", "host": "h1"}, {"namespace": "default", "name": "b", "host": "h1"},'
        ' {"namespace": "blue", "name": "c", "host": "h2"}]'
    )
    assert farthest_pair(pods) == ("a", "blue/c")
    assert farthest_pair(pods[:2]) == ("a", "b")
