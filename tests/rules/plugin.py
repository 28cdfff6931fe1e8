"""A pytest plugin: runs each test of a rule, and once more with the rule's element passed through.

    python -m pytest -p tests.rules.plugin -m rule --rules-report=FILE --rules-share=tenth

The second run must fail, or the test proves nothing about that element. Which rules are
put to that test: `all`, `none`, or a random `tenth`, drawn from the date or a seed.

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


class Notes:
    """What became of each test, and of its second run."""

    def __init__(self, config: pytest.Config) -> None:
        self.path = Path(config.getoption("--rules-report"))
        self.share = config.getoption("--rules-share")
        self.seed = config.getoption("--rules-seed") or datetime.date.today().isoformat()
        self.drawn: set[str] = set()
        self.tests: dict[str, dict[str, Any]] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Draw."""
        rules = sorted({rule for item in session.items for rule, _ in bound(item)})
        self.drawn = drawn(rules, self.share, self.seed)
        for item in session.items:
            pairs = bound(item)
            if pairs:
                self.tests[item.nodeid] = {"rules": pairs, "outcome": "passed", "reason": "", "passed through": {}}

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
                failed = any(report.failed for report in reports)
                noted["passed through"][element] = "failed" if failed else "passed"
        return result

    def pytest_sessionfinish(self) -> None:
        """Write it down."""
        report = {"seed": self.seed, "share": self.share, "drawn": sorted(self.drawn), "tests": self.tests}
        self.path.write_text(json.dumps(report, indent=1))
