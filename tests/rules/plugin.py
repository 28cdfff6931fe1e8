"""A pytest plugin: runs each test of a rule, and once more with the rule's element passed through.

    python -m pytest -p tests.rules.plugin -m rule --rules-report=FILE --rules-share=tenth

The second run must fail, or the test proves nothing about that element. Which rules are
put to that test: `all`, `none`, or a random `tenth`, drawn from the date or a seed.

A test that takes long (marked `slow`) or has a lab on TAPs (`kernel`) is left out where each of its
rules has a faster one that names an element, unless all rules are put to the test: `make test` runs
it anyway. What runs in other processes no pass-through reaches.

Rule of this file: it notes outcomes; `__main__` makes verdicts of them.
"""

from __future__ import annotations

import datetime
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from tests.rules.pass_through import PASS_THROUGHS, passed_through

SHARE = 10


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where to report, and what is put to the test."""
    group = parser.getgroup("rules")
    group.addoption("--rules-report", metavar="FILE", help="write outcomes by test as JSON")
    group.addoption(
        "--rules-share", choices=("all", "tenth", "none"), default="none", help="which rules to pass through"
    )
    group.addoption("--rules-seed", default=None, help="draw the tenth from this instead of the date")


def pytest_configure(config: pytest.Config) -> None:
    """Begin to note."""
    if config.getoption("--rules-report"):
        config.pluginmanager.register(Notes(config), "rules-notes")


def bound(item: pytest.Item) -> list[tuple[str, str]]:
    """(rule, element) pairs that a test is bound to; the element is empty where the marker names none."""
    pairs = []
    for marker in item.iter_markers("rule"):
        element = marker.kwargs.get("element", "")
        if not marker.args or (element and element not in PASS_THROUGHS):
            known = ", ".join(sorted(PASS_THROUGHS))
            raise pytest.UsageError(f"{item.nodeid}: a rule marker names a rule and one of {known}, not {element!r}")
        pairs += [(str(rule), element) for rule in marker.args]
    return pairs


def drawn(rules: list[str], share: str, seed: str) -> set[str]:
    """The rules whose tests are put to the test."""
    if share == "tenth":
        wanted = -(-len(rules) // SHARE)
        return set(random.Random(seed).sample(sorted(rules), wanted))
    return set(rules) if share == "all" else set()


def left_out(pairs: dict[str, list[tuple[str, str]]], slow: set[str]) -> set[str]:
    """The slow tests all of whose rules are proved by a faster one that names an element."""
    proved = {rule for name, rows in pairs.items() if name not in slow for rule, element in rows if element}
    return {name for name in slow & pairs.keys() if {rule for rule, _ in pairs[name]} <= proved}


def seen(reports: list[pytest.TestReport]) -> str:
    """What a test said without its element: `failed`, `passed`, or that it did not get as far as to say."""
    failed = [report.when for report in reports if report.failed]
    if failed and failed[0] == "setup":
        return "no set-up"
    return "failed" if failed else "passed"


class Notes:
    """What became of each test, and of its second run."""

    def __init__(self, config: pytest.Config) -> None:
        self.path = Path(config.getoption("--rules-report"))
        self.share = config.getoption("--rules-share")
        self.seed = config.getoption("--rules-seed") or datetime.date.today().isoformat()
        self.drawn: set[str] = set()
        self.tests: dict[str, dict[str, Any]] = {}

    @pytest.hookimpl(trylast=True)  # only what `-m` and `-k` have left counts
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Draw, and leave out what is slow."""
        pairs = {item.nodeid: bound(item) for item in items}
        pairs = {name: rows for name, rows in pairs.items() if rows}
        self.drawn = drawn(sorted({rule for rows in pairs.values() for rule, _ in rows}), self.share, self.seed)
        slow = {item.nodeid for item in items if any(item.iter_markers("slow")) or any(item.iter_markers("kernel"))}
        spared = left_out(pairs, slow) if self.share != "all" else set()
        for name, rows in pairs.items():
            outcome = "left out" if name in spared else "passed"
            self.tests[name] = {"rules": rows, "outcome": outcome, "reason": "", "passed through": {}}
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in spared])
        items[:] = [item for item in items if item.nodeid not in spared]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the worst that was said of a test."""
        noted = self.tests.get(report.nodeid)
        if noted is None or report.passed or noted["outcome"] == "failed":
            return
        noted["outcome"] = report.outcome
        noted["reason"] = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext[-300:]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
        """After the run, another for each element that the test's drawn rules are about."""
        result = yield
        noted = self.tests.get(item.nodeid)
        if noted is not None and noted["outcome"] == "passed":
            for element in sorted({name for rule, name in noted["rules"] if name and rule in self.drawn}):
                with passed_through(element):
                    reports = runtestprotocol(item, log=False, nextitem=nextitem)
                noted["passed through"][element] = seen(reports)
        return result

    def pytest_sessionfinish(self) -> None:
        """Write it down."""
        report = {"seed": self.seed, "share": self.share, "drawn": sorted(self.drawn), "tests": self.tests}
        self.path.write_text(json.dumps(report, indent=1))
