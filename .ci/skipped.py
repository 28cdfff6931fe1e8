"""Fails when a test that this machine should have run was skipped.

On a developer's machine a kernel test skips, with its reason, where the kernel or a
program is missing. In CI that would be a test that nobody runs: so here a skipped
kernel test, or a skip whose reason names one of the programs that CI installs, is
a failure. Reads the JUnit report of pytest: `skipped.py REPORT.xml`.
"""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree

PROGRAMS = re.compile(r"\b(tshark|iperf3|arping|traceroute|tracepath|mtr|[nr]disc6|curl|ethtool|tmux|kubectl|docker)\b")


def wrongly_skipped(report: str) -> list[str]:
    """One line for each skipped test of the report that CI must run."""
    found = []
    for case in ElementTree.parse(report).iter("testcase"):
        skipped = case.find("skipped")
        if skipped is None or skipped.get("type") == "pytest.xfail":
            continue
        name = f"{case.get('classname', '')}::{case.get('name', '')}"
        reason = skipped.get("message") or ""
        if reason == "collection skipped":  # a whole module: the reason is at the end of the text
            reason = (skipped.text or "").rpartition("Skipped: ")[2]
        properties = {prop.get("name") for prop in case.iter("property")}
        if "kernel" in properties or re.search(r"\btests[./]kernel\b", name) or PROGRAMS.search(reason):
            found.append(f"{name}: {reason}")
    return found


def main() -> int:
    """The exit code: 1 where a test was skipped that CI must run."""
    found = wrongly_skipped(sys.argv[1])
    for line in found:
        print(f"skipped, but CI must run it: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
