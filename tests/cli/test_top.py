"""What `emunet top` shows, of labs in memory; the keys of its screen, at a terminal of tmux."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from emunet.cli.top_view import VIEWS, Look, _shares, picture
from emunet.lab.lab import Lab

ROOT = Path(__file__).parent.parent.parent


def look(lab: Lab, at: float) -> Look:
    """What a running lab would answer."""
    counters = lab.plane.counters() | {"late_ns": 0, "wire_overruns": 0}
    return Look(at, counters, lab.plane.traffic(), lab.plane.trouble.wires())


def shown(before: Look, now: Look, view: str = "all", rows: int | None = None, width: int = 120) -> str:
    console = Console(width=width, record=True, file=StringIO())
    console.print(picture("two-hosts", before, now, view, rows))
    return console.export_text()


def row_of(text: str, begin: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.startswith(begin))


def test_rates_ports_flows_links_and_drops() -> None:
    with Lab(ROOT / "topologies/two-hosts.yaml") as lab:
        lab.ping("web-1", "web-3")
        before = look(lab, 0.0)
        lab.link("host2--switch1", delay="20ms")
        for _ in range(50):
            assert lab.ping("web-1", "web-2")
            assert not lab.ping("web-2", "10.9.9.9")
        now = look(lab, 10.0)
    text = shown(before, now)
    assert int(text.split()[1]) >= 15  # requests, replies, requests without a route; and ARP
    assert all(int(rate) in (5, 6) for rate in row_of(text, "web-1")[3:])
    assert row_of(text, "NO_ROUTE") == ["NO_ROUTE", "50", "5"]
    assert row_of(text, "host2--switch1")[-2:] == ["delay", "20ms"]
    flows = shown(before, now, "flows")
    assert "10.244.1.3" in flows
    assert "icmp" in flows
    assert "device" not in flows


def test_figures_of_ports_are_those_of_the_ledgers() -> None:
    with Lab(ROOT / "topologies/two-hosts.yaml") as lab:
        lab.pod("web-3").serve(80)
        for _ in range(3):
            assert lab.pod("web-1").get("http://web-3/").status == 200
        ports, devices = lab.plane.traffic()["ports"], lab.plane.counters()["devices"]
        assert ports["switch1:1"]["received"] + ports["switch1:2"]["received"] == devices["switch1"]["received"]
        assert ports["host1:eth0"]["sent"] == ports["switch1:1"]["received"]
        assert ports["web-1"]["received"] > 0
        assert sum(flow["frames"] for flow in lab.plane.traffic()["flows"]) == lab.plane.world.flows.hits


@given(st.lists(st.integers(1, 200), min_size=1, max_size=5), st.integers(0, 80))
def test_tables_share_a_screen(wanted: list[int], rows: int) -> None:
    shares = _shares(wanted, rows)
    assert sum(shares) <= max(0, rows - 2 * len(wanted))
    assert all(0 <= share <= want for share, want in zip(shares, wanted, strict=True))
    if sum(wanted) + 2 * len(wanted) <= rows:
        assert shares == wanted


# At a terminal


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """tmux with a lab in memory: `terminal("send-keys", ...)`; what it shows with `capture-pane`."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed: apt-get install tmux   (or: make deps)")
    if sys.platform != "linux":
        pytest.skip("labs run on Linux")
    environment = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
    environment |= {"EMUNET_RUNTIME_DIR": str(tmp_path / "run"), "COLUMNS": "80", "LINES": "24"}  # of another terminal
    (tmp_path / "run").mkdir()

    def run(*command: str) -> str:
        how = {"capture_output": True, "text": True, "check": True, "env": environment, "cwd": ROOT, "timeout": 60}
        return str(subprocess.run(command, **how).stdout)  # type: ignore[call-overload]

    def tmux(*arguments: str) -> str:
        return run("tmux", "-S", str(tmp_path / "tmux"), "-f", os.devnull, *arguments)

    emunet = (sys.executable, "-m", "emunet")
    run(*emunet, "up", "topologies/two-hosts.yaml", "--wires", "memory")
    program = f"{' '.join(emunet)} top -d 0.2; echo it ended with $?; cat"
    tmux("new-session", "-d", "-x", "120", "-y", "40", program)
    try:
        yield tmux
    finally:
        tmux("kill-server")
        run(*emunet, "down", "--all")


def sees(terminal: Callable[..., str], what: str, without: str = "\0") -> str:
    """Wait until the screen shows something, and not something else."""
    end = time.monotonic() + 20
    while True:
        screen = terminal("capture-pane", "-p")
        if what in screen and without not in screen:
            return screen
        assert time.monotonic() < end, f"no {what!r} in\n{screen}"
        time.sleep(0.05)


def test_keys_choose_views_and_a_smaller_window_is_filled_anew(terminal: Callable[..., str]) -> None:
    screen = sees(terminal, "q ends")
    assert all(f"{number} {name}" in screen for number, name in enumerate(VIEWS, 1))
    assert "all together" in screen
    assert len(screen.rstrip().splitlines()) == 40
    terminal("send-keys", "4")
    assert "host1--switch1" in sees(terminal, "what goes wrong", without="all together")
    terminal("send-keys", "Tab", "Tab")
    sees(terminal, "all together")
    terminal("resize-window", "-x", "80", "-y", "18")
    screen = sees(terminal, "q ends", without="5 flows")
    assert len(screen.rstrip().splitlines()) <= 18
    assert "host1--switch1" in screen
    assert all(word in screen.split() for word in ("received", "dropped", "frames/s", "1", "all", "5"))
    terminal("send-keys", "Space")
    sees(terminal, "halted")
    terminal("send-keys", "q")
    sees(terminal, "it ended with 0", without="all together")
