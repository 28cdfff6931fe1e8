"""`make rules`: each rule, its tests, its verdict; and rules.json for scripts.

    python -m tests.rules [--all | --none] [--seed TEXT] [-k EXPRESSION] [--json FILE]

Runs the tests that are marked with rules and puts a random tenth of the rules (drawn from
the date, or a seed) to the test: with the rule's element passed through its tests must
fail. `--all` does that for every rule. Slow tests and labs on TAPs are left out where a faster
test proves their rules, but for `--all`. Ends with 1 where a rule fails, or a row of the families
in `rows.FAMILIES` that the page verified has neither a test nor a limit, or limits are more than 5 %.

    pass   all its tests pass, and those put to the test failed without the element
    fail   one fails, or one passes without the element that it is about
    limit  we do not do this; the reason says why
    none   no test proves it; the reason says what is missing
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.rules.rows import FAMILIES, ROOT, Row, Said, all_rows, said

LIMITS_AT_MOST = 0.05
BLIND = {
    "passed": "passes with its element passed through",
    "no set-up": "without its element it does not get as far as its own assertions",
}
"""What a test may not say without its element."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of one rule."""

    rule: str
    tests: tuple[str, ...]
    verdict: str
    reason: str


def judge(rule: str, tests: dict[str, dict[str, Any]], notes: Said) -> Verdict:
    """The verdict on a rule from the outcomes of its tests (nodeid -> what the plugin noted)."""
    names = tuple(sorted(tests))
    if rule in notes.limits:
        return Verdict(rule, names, "limit", notes.limits[rule])
    failed = [name for name, noted in tests.items() if noted["outcome"] == "failed"]
    if failed:
        return Verdict(rule, names, "fail", f"fails: {_short(failed)}")
    for outcome, sentence in BLIND.items():
        blind = [
            name
            for name, noted in tests.items()
            for pair_rule, element in noted["rules"]
            if pair_rule == rule and noted["passed through"].get(element) == outcome
        ]
        if blind:
            return Verdict(rule, names, "fail", f"{sentence}: {_short(blind)}")
    done = {name: noted for name, noted in tests.items() if noted["outcome"] == "passed"}
    if not done:
        reason = notes.left_out.get(rule) or (f"skipped: {_short(tests)}" if tests else "no test")
        return Verdict(rule, names, "none", reason)
    if not any(element for noted in done.values() for pair_rule, element in noted["rules"] if pair_rule == rule):
        reason = notes.left_out.get(rule, "its tests do not say which element it is about")
        return Verdict(rule, names, "none", reason)
    corrected = notes.corrected.get(rule, "")
    return Verdict(rule, names, "pass", f"corrected: {corrected}" if corrected else "")


def verdicts(rows: dict[str, Row], report: dict[str, Any], notes: Said) -> list[Verdict]:
    """A verdict for each row of our families, and for each other rule that a test names."""
    by_rule: dict[str, dict[str, dict[str, Any]]] = {}
    for name, noted in report["tests"].items():
        for rule, _ in noted["rules"]:
            by_rule.setdefault(rule, {})[name] = noted
    wanted = [rule for rule, row in rows.items() if row.ours or rule in by_rule]
    wanted += sorted(by_rule.keys() - set(wanted))
    return [judge(rule, by_rule.get(rule, {}), notes) for rule in wanted]


def complaints(rows: dict[str, Row], found: Iterable[Verdict]) -> list[str]:
    """What must not be: failures, verified rows without a proof, too many limits."""
    found = list(found)
    ours = {rule: row for rule, row in rows.items() if row.ours and row.verified}
    said = [f"{one.rule} fails" for one in found if one.verdict == "fail"]
    said += [
        f"{one.rule} has neither a test nor a limit" for one in found if one.verdict == "none" and one.rule in ours
    ]
    limits = [one.rule for one in found if one.verdict == "limit" and one.rule in ours]
    if len(limits) > len(ours) * LIMITS_AT_MOST and ours:
        said.append(f"{len(limits)} of {len(ours)} verified rows are limits, more than 5 %: {', '.join(limits)}")
    return said


def table(found: Iterable[Verdict]) -> str:
    """A line a rule, then a line a family."""
    lines = []
    counts: dict[str, dict[str, int]] = {}
    for one in found:
        tests = ", ".join(sorted({name.partition("[")[0].partition("::")[2] or name for name in one.tests}))
        reason = f"  ({one.reason})" if one.reason else ""
        lines.append(f"{one.rule:<7} {one.verdict:<6} {tests or '-'}{reason}")
        family = counts.setdefault(one.rule.partition("-")[0], dict.fromkeys(("pass", "fail", "limit", "none"), 0))
        family[one.verdict] += 1
    lines.append("")
    order = [name for name in FAMILIES if name in counts] + [name for name in counts if name not in FAMILIES]
    for family in order:
        lines.append(
            f"{family:<5} " + "  ".join(f"{number:>3} {verdict}" for verdict, number in counts[family].items())
        )
    return "\n".join(lines)


def _short(names: Iterable[str]) -> str:
    names = sorted(names)
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more


def run(arguments: argparse.Namespace, report: Path) -> int:
    """Run the tests of rules; pytest's exit code."""
    command = [
        sys.executable, "-m", "pytest", "-p", "tests.rules.plugin", "-q", "-m", "rule", f"--rules-report={report}",
        f"--rules-share={arguments.share}",
    ]  # fmt: skip
    if arguments.seed:
        command.append(f"--rules-seed={arguments.seed}")
    if arguments.k:
        command += ["-k", arguments.k]
    return subprocess.run(command, cwd=ROOT, check=False, stdout=sys.stderr).returncode


def main() -> int:
    """Run, print, write; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.rules", description=(__doc__ or "").partition("\n")[0])
    share = parser.add_mutually_exclusive_group()
    share.add_argument("--all", dest="share", action="store_const", const="all", help="put every rule to the test")
    share.add_argument("--none", dest="share", action="store_const", const="none", help="put no rule to the test")
    parser.add_argument("--seed", help="draw the tenth from this instead of the date")
    parser.add_argument("-k", help="only tests that match, as pytest's -k; rows without one show as none")
    parser.add_argument("--json", type=Path, default=ROOT / "rules.json", help="where rules.json goes")
    parser.set_defaults(share="tenth")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        code = run(arguments, path)
        if not path.exists():
            print("the tests left no report", file=sys.stderr)
            return code or 1
        report = json.loads(path.read_text())
    rows, notes = all_rows(), said()
    found = verdicts(rows, report, notes)
    print(table(found))
    if not rows:
        print("\nfidelity.md is not here (EMUNET_FIDELITY says where): only rules that tests name are shown")
    print(f"\nput to the test with their elements passed through: {', '.join(report['drawn']) or 'none'}")
    rules = {one.rule: {"tests": one.tests, "verdict": one.verdict, "reason": one.reason} for one in found}
    arguments.json.write_text(json.dumps(rules, indent=1) + "\n")
    said_against = [] if arguments.k else complaints(rows, found)
    for complaint in said_against:
        print(complaint, file=sys.stderr)
    return 1 if said_against or any(one.verdict == "fail" for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
