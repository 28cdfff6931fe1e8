"""The pytest plugin: the fixture `lab`, and what a failed test keeps.

    @pytest.mark.emunet(topology="two-hosts.yaml", seed=7)
    def test_reaches(lab):
        lab.assert_reaches("web-1", "web-3")

Every test has a lab of its own, so tests may run side by side (xdist) and in any order.
When a test ends, every frame that its lab ever saw must be accounted for. What came into
the lab is recorded; if the test fails the recording is kept, named after the test, with a
capture of all ports that is made by playing it again.

Rule of this file: pytest loads it in every run on a machine where emunet is installed, so
it imports nothing of emunet before a test asks for a lab.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from emunet.testing.lab import Lab
    from emunet.testing.taplab import TapLab

_NAME_MAX = 150


@dataclass
class _Kept:
    """What is known of a test's lab."""

    lab: Any
    folder: Path
    recording: Path | None
    failed: bool = False
    saved: list[str] = field(default_factory=list)


_KEY = pytest.StashKey[_Kept]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where captures of failed tests go, and the topology of tests that name none."""
    parser.addini("emunet_captures", "folder for recordings and captures of failed tests", default="emunet-captures")
    parser.addini("emunet_topology", "the topology of tests whose marker names none, relative to the root folder")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "emunet(topology, wires='memory', seed=0, flow_cache=True, record=True): the lab that the fixture `lab` gives;"
        " topology is a path (relative to the test's folder, else to the root) or YAML text, wires memory or tap",
    )


@pytest.fixture
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab | TapLab]:
    """A lab of this test's own, as its marker `emunet` describes it."""
    wish = _wish(request)
    folder = Path(request.config.rootpath, request.config.getini("emunet_captures"))
    recording = tmp_path_factory.mktemp("emunet") / "recording.pcapng" if wish["record"] else None
    if wish["wires"] == "tap":
        yield from _tap_lab(request, wish, folder, recording)
    else:
        yield from _memory_lab(request, wish, folder, recording)


def _memory_lab(
    request: pytest.FixtureRequest, wish: dict[str, Any], folder: Path, recording: Path | None
) -> Iterator[Lab]:
    from contextlib import ExitStack

    from emunet.testing.lab import Lab

    with ExitStack() as stack:
        made = stack.enter_context(Lab(wish["topology"], seed=wish["seed"], flow_cache=wish["flow_cache"]))
        if recording is not None:
            stack.enter_context(made.record(recording))
        kept = request.node.stash[_KEY] = _Kept(made, folder, recording)
        yield made
        balance = {name: missing for name, missing in made.plane.balance().items() if missing}
    _finish(request, kept, f"{balance}" if balance else "")


def _tap_lab(
    request: pytest.FixtureRequest, wish: dict[str, Any], folder: Path, recording: Path | None
) -> Iterator[TapLab]:
    from emunet.testing.taplab import TapLab, why_not

    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    made = TapLab(wish["topology"], seed=wish["seed"], record=recording)
    try:
        kept = request.node.stash[_KEY] = _Kept(made, folder, recording)
        yield made
        missing = made.balance()
    finally:
        made.close()
    _finish(request, kept, str(missing) if missing else "")


def _finish(request: pytest.FixtureRequest, kept: _Kept, missing: str) -> None:
    """The recording is whole now: keep it where the test failed, or where frames are missing."""
    if kept.failed or missing:
        _save(request.node, kept)
    for line in kept.saved:
        reporter = request.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and not missing:
            reporter.ensure_newline()
            reporter.write_line(line)
    if missing:
        pytest.fail(
            "the law of conservation is broken: received + generated + copied is not delivered + consumed + dropped"
            f" + queued; missing: {missing}\n" + "\n".join(kept.saved),
            pytrace=False,
        )


def _wish(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the marker asks for, checked. A marker of a test goes before one of its class or module."""
    known = {"topology": None, "wires": "memory", "seed": 0, "flow_cache": True, "record": True}
    wish: dict[str, Any] = dict(known)
    for marker in reversed(list(request.node.iter_markers("emunet"))):
        if len(marker.args) > 1:
            raise pytest.UsageError("@pytest.mark.emunet takes one topology; say all else by name")
        given = dict(marker.kwargs) | ({"topology": marker.args[0]} if marker.args else {})
        unknown = given.keys() - known.keys()
        if unknown:
            raise pytest.UsageError(f"@pytest.mark.emunet has no {', '.join(unknown)}; it has: {', '.join(known)}")
        wish |= given
    if wish["wires"] not in ("memory", "tap"):
        raise pytest.UsageError(f"@pytest.mark.emunet: wires are 'memory' or 'tap', not {wish['wires']!r}")
    wish["topology"] = _topology(request, wish["topology"])
    return wish


def _topology(request: pytest.FixtureRequest, named: Any) -> Any:
    root = request.config.rootpath
    if named is None:
        default = request.config.getini("emunet_topology")
        if not default:
            raise pytest.UsageError(
                f"{request.node.nodeid} asks for a lab and says not of what: @pytest.mark.emunet(topology=...),"
                " or emunet_topology in the configuration of pytest"
            )
        return root / default
    if isinstance(named, str) and "\n" in named:
        return named
    for base in (request.path.parent, root):
        if (base / named).exists():
            return base / named
    raise pytest.UsageError(f"there is no topology {named} beside {request.path.name} or in {root}")


# Failures


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """A failed test tells what its lab did: the latest traces, the drops, and where its recording will be."""
    report: pytest.TestReport = yield
    kept = item.stash.get(_KEY, None)
    if kept is not None and report.when == "call" and report.failed:
        kept.failed = True
        for title, text in _told(kept):
            report.sections.append((f"emunet: {title}", text))
        if kept.recording is not None:
            name = _path(item, kept, ".recording.pcapng")
            report.sections.append(("emunet: kept", f"{name}\n`emunet replay {name}` plays the test's frames again"))
    return report


def _told(kept: _Kept) -> Iterator[tuple[str, str]]:
    for source, trace in getattr(kept.lab, "traces", ()):
        yield f"trace from {source}", trace.as_text()
    try:
        counters = kept.lab.counters()
    except Exception as error:  # a lab that has ended cannot be asked, and the test's own failure is what matters
        yield "frames", f"the lab cannot be asked: {error}"
        return
    reasons = counters["reasons"]
    counted = ", ".join(f"{name} {counters[name]:,}" for name in counters if name != "reasons")
    lines = [f"  {name} {count:,}" for name, count in reasons.items()]
    yield "frames", "\n".join([counted, *(["dropped because", *lines] if lines else [])])


def _path(item: pytest.Item, kept: _Kept, ending: str) -> Path:
    """A file named after the test."""
    name = re.sub(r"[^\w.\[\]=-]+", "-", item.nodeid.replace("/", ".").replace(".py::", ".").replace("::", "."))
    return kept.folder / f"{name[:_NAME_MAX].strip('-')}{ending}"


def _save(item: pytest.Item, kept: _Kept) -> None:
    """Keep the recording, and the capture that comes of it when it is played again."""
    if kept.recording is None or not kept.recording.exists():
        return
    kept.folder.mkdir(parents=True, exist_ok=True)
    recording, capture = _path(item, kept, ".recording.pcapng"), _path(item, kept, ".pcapng")
    shutil.copyfile(kept.recording, recording)
    kept.saved.append(f"kept {os.path.relpath(recording)}")
    try:
        from emunet.testing.captures import capture_of

        differences = capture_of(recording, capture)
    except Exception as error:  # whatever is wrong with it, the recording is there
        kept.saved.append(f"no capture could be made of it: {error!r}")
        return
    note = f" (not all as it was: {differences[0]})" if differences else ""
    kept.saved.append(f"kept {os.path.relpath(capture)}{note}")
