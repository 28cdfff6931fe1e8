"""What `make rules` makes of the page, of tests and of their outcomes (tests/rules)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.rules.__main__ import complaints, judge
from tests.rules.pass_through import PASS_THROUGHS, passed_through
from tests.rules.plugin import drawn, left_out, seen
from tests.rules.rows import Row, Said, all_rows, read_rows, said

PAGE = """
#### 1.4.2 Golden packets (all K with P plugins, UDP)

| id | send | note |
|---|---|---|
| SVC-20 | p1a to VIP:81 | leaks (nftables rejects: D) |

### 1.7 DNS

| id | query | answer | anchor | tag |
|---|---|---|---|---|
| DNS-01 | svc A | one A | 2.3.1; second half M | D M |
| CNI-01 | ADD | JSON | | P |
| CNI-08 | host-local | round robin | | P S (test names) |
"""
NOTHING = Said({}, {}, {})


def test_rows_and_how_far_they_are_verified() -> None:
    rows = read_rows(PAGE)
    assert {name: "".join(sorted(row.tags)) for name, row in rows.items()} == {
        "SVC-20": "KP", "DNS-01": "DM", "CNI-01": "P", "CNI-08": "PS",
    }  # fmt: skip
    assert [name for name, row in rows.items() if row.ours] == ["SVC-20", "DNS-01", "CNI-08"]
    assert [name for name, row in rows.items() if row.verified] == ["SVC-20", "CNI-01", "CNI-08"]


def noted(outcome: str = "passed", element: str = "bridge", **through: str) -> dict[str, Any]:
    """What the plugin notes of a test of BR-01."""
    return {"outcome": outcome, "rules": [("BR-01", element)], "passed through": through}


@pytest.mark.parametrize(
    ("tests", "verdict", "reason"),
    [
        ({"t": noted()}, "pass", ""),
        ({"t": noted(bridge="failed")}, "pass", ""),
        ({"t": noted(bridge="passed")}, "fail", "passes with its element passed through: t"),
        (
            {"t": noted(bridge="no set-up")},
            "fail",
            "without its element it does not get as far as its own assertions: t",
        ),
        ({"t": noted("failed"), "u": noted()}, "fail", "fails: t"),
        ({"t": noted(element="")}, "none", "its tests do not say which element it is about"),
        ({"t": noted("left out", element=""), "u": noted()}, "pass", ""),
        ({"t": noted("skipped")}, "none", "skipped: t"),
        ({}, "none", "no test"),
    ],
)
def test_verdicts(tests: dict[str, Any], verdict: str, reason: str) -> None:
    found = judge("BR-01", tests, NOTHING)
    assert (found.verdict, found.reason) == (verdict, reason)
    row = {"BR-01": Row("BR-01", "", frozenset("K"))}
    assert bool(complaints(row, [found])) == (verdict != "pass")
    unverified = {"BR-01": Row("BR-01", "", frozenset("M"))}
    assert bool(complaints(unverified, [found])) == (verdict == "fail")


def test_more_limits_than_one_in_twenty_are_too_many() -> None:
    rows = {f"BR-{number:02}": Row(f"BR-{number:02}", "", frozenset("K")) for number in range(1, 21)}
    one, two = (dict.fromkeys(list(rows)[:count], "no") for count in (1, 2))
    for limits, many in ((one, 0), (two, 1)):
        notes = Said(limits, {}, {})
        found = [judge(rule, {"t": {**noted(), "rules": [(rule, "bridge")]}}, notes) for rule in rows]
        assert len(complaints(rows, found)) == many


def test_a_slow_test_is_left_out_where_faster_ones_prove_all_its_rules() -> None:
    pairs = {"fast": [("A-1", "bridge"), ("A-2", "")], "one": [("A-1", "")], "two": [("A-1", ""), ("A-2", "")]}
    assert left_out(pairs, {"one", "two"}) == {"one"}
    assert left_out(pairs, {"fast", "one"}) == set()


def test_what_fails_before_it_begins_has_seen_nothing() -> None:
    def reports(**failed: bool) -> Any:
        return [SimpleNamespace(when=when, failed=bad) for when, bad in failed.items()]

    assert seen(reports(setup=False, call=True)) == "failed"
    assert seen(reports(setup=False, call=False, teardown=True)) == "failed"
    assert seen(reports(setup=True)) == "no set-up"
    assert seen(reports(setup=False, call=False)) == "passed"


def test_each_day_another_tenth() -> None:
    rules = [f"A-{number}" for number in range(95)]
    days = [drawn(rules, "tenth", f"2026-11-{day}") for day in range(10, 30)]
    assert {len(day) for day in days} == {10}
    assert len(set().union(*days)) > 70


@pytest.mark.parametrize("element", sorted(PASS_THROUGHS))
def test_a_pass_through_takes_the_elements_place_and_leaves_no_trace(element: str) -> None:
    rows = PASS_THROUGHS[element]
    before = [getattr(target, name) for target, name, _ in rows]
    with passed_through(element):
        assert [getattr(target, name) for target, name, _ in rows] == [instead for *_, instead in rows]
    assert [getattr(target, name) for target, name, _ in rows] == before


def test_what_we_say_ourselves_is_about_rows_that_there_are() -> None:
    rows, notes = all_rows(), said()
    if not rows:
        pytest.skip("fidelity.md is not here: put it into ../shared, or let EMUNET_FIDELITY say where it is")
    for table in (notes.limits, notes.corrected, notes.left_out):
        assert {rule for rule in table if not rows[rule].ours} == set()
    assert {rule for rule in notes.left_out if rows[rule].verified} == set()
