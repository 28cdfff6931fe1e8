"""The rules: rows of fidelity.md, which tests are bound to by `@pytest.mark.rule("ARP-06")`.

The page lies beside the project (`../shared/fidelity.md`, or where EMUNET_FIDELITY says)
and is read in place. Where it is not, the rules are those that tests name.

`verdicts.toml` has what we say ourselves of rows: limits with their reasons, rows that a kernel or an
RFC corrected, rows that were left out.

Rule of this file: it reads; it judges nothing.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
VERDICTS = Path(__file__).with_name("verdicts.toml")

FAMILIES = (
    "NET", "FL", "CAL", "BR", "ARP", "IP", "IC", "FR", "V6", "VX", "NP",
    "SVC", "CT", "HP", "HN", "DNS", "DK", "OBJ", "POD", "CNI",
)  # fmt: skip
"""The families of rows that count. Others (RSTP, VLANs, ...) are shown as far as tests name them."""

COUNTED = {"CAL": frozenset(range(1, 6)), "CNI": frozenset((8, 13, 14))}
"""The rows of a family that count, where not all do: BGP, IPIP and IP pools are nothing that emunet has, nor has it
a program that speaks a CNI plugin's protocol; only what such a plugin makes of addresses, MACs and bridges counts."""

_ROW = re.compile(r"^\|\s*(?P<id>[A-Z][A-Z0-9]*-[0-9]+)\s*\|(?P<rest>.*)\|\s*$")
_ALL = re.compile(r"^#.*\(all (?P<tags>[^)]*)")
_TAG = re.compile(r"\b([KPSDM])\b")


@dataclass(frozen=True, slots=True)
class Row:
    """One rule: what to do and what is seen, and how far the page verified it (`K`, `P`, `S`, `D`, `M`)."""

    id: str
    check: str
    tags: frozenset[str]

    @property
    def family(self) -> str:
        """`ARP` of `ARP-06`."""
        return self.id.partition("-")[0]

    @property
    def number(self) -> int:
        """6 of `ARP-06`."""
        return int(self.id.partition("-")[2])

    @property
    def ours(self) -> bool:
        """Whether it counts."""
        return self.family in FAMILIES and self.number in COUNTED.get(self.family, (self.number,))

    @property
    def verified(self) -> bool:
        """Whether the page has it from a kernel, a peer program or source, not from memory or a page alone."""
        return bool(self.tags & set("KPS"))


@dataclass(frozen=True, slots=True)
class Said:
    """What `verdicts.toml` says of rules, by id."""

    limits: dict[str, str]
    corrected: dict[str, str]
    left_out: dict[str, str]


def page() -> Path | None:
    """Where the page is, or None."""
    path = Path(os.environ.get("EMUNET_FIDELITY", ROOT.parent / "shared" / "fidelity.md"))
    return path if path.is_file() else None


def read_rows(text: str) -> dict[str, Row]:
    """All rows of a page, in its order. A heading that says `(all K ...)` speaks for each row below it."""
    rows: dict[str, Row] = {}
    header: list[str] = []
    section: list[str] = []
    for line in text.splitlines():
        if line.startswith("#"):
            found = _ALL.match(line)
            section = _TAG.findall(found["tags"]) if found is not None else []
        if line.startswith("| id |"):
            header = _cells(line)
        found = _ROW.match(line)
        if found is None or found["id"] in rows:
            continue
        cells = _cells(line)
        tags = section or _tags(header, cells)
        rows[found["id"]] = Row(found["id"], " | ".join(cells[1:-1]), frozenset(tags))
    return rows


def all_rows() -> dict[str, Row]:
    """The rows of the page that lies here; empty where none does."""
    path = page()
    return read_rows(path.read_text()) if path is not None else {}


def said() -> Said:
    """What is said of rules in `verdicts.toml`."""
    data = tomllib.loads(VERDICTS.read_text())
    return Said(data.get("limits", {}), data.get("corrected", {}), data.get("left-out", {}))


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _tags(header: list[str], cells: list[str]) -> list[str]:
    """The tags of a row: in the column that is called so, else in the last."""
    column = next((index for index, name in enumerate(header) if name.startswith("tag")), len(cells) - 1)
    places = [cells[column]] if column < len(cells) else []
    if not places or not _TAG.search(places[0]):
        places = [cells[-1]]
    # In a cell like "K; RFC 1812" only capital letters that stand alone are tags.
    found = _TAG.findall(places[0])
    if not found and "passes here" in places[0]:
        found = ["K"]  # a selftest of the kernel that was run
    return found
