"""The ladder of ARCHITECTURE.md, checked over the import statements of every module.

An import counts wherever it stands: at the top, in a function, or for types only. The
checks are plain functions from a folder to a list of complaints, so that the tests at
the end of this file can hand them a tree that breaks each rule and see it caught.
"""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

RANKS = {
    "packet": 0,
    "plane": 1,
    "elements": 2,
    "fabric": 3,
    "cluster": 3,
    "linux": 4,
    "lab": 5,
    "pictures": 6,
    "daemon": 6,
    "cli": 7,
    "shell": 7,
    "testing": 7,
}

# Imports between packages of one rank that are allowed. `cli` is no exception: it starts the shell as a program
# (python -m emunet.shell), which also keeps Scapy's licence and its second of start-up out of every other command.
SIDEWAYS = {
    ("cluster", "emunet.fabric.config"): "what a cluster compiles to",
    ("cluster", "emunet.fabric.impairment"): "the words for what goes wrong on a link",
}

# Packages of others that may be imported in these of ours only.
HOMES = {
    "scapy": {"shell", "testing"},  # slow, and GPL-2.0-only: only where a person writes packets
    "pytun": {"linux"},
    "pyroute2": {"linux"},
}

# What moves frames never loads what reads manifests or serves people.
PLANE_PROCESS = ("packet", "plane", "elements", "fabric", "linux")
NOT_IN_PLANE_PROCESS = ("aiohttp", "click", "cryptography", "pydantic", "rich", "scapy", "yaml")

# Time is an argument and chance a seed below `linux`: these names may not even be mentioned there.
BELOW_LINUX = frozenset(package for package, rank in RANKS.items() if rank < RANKS["linux"])
CLOCKS = {"time", "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today"}
CHANCE = {"random", "secrets", "os.urandom", "uuid.uuid1", "uuid.uuid4"}
SEEDED = "random.Random"


@dataclass(frozen=True)
class Module:
    """One source file of a package: its dotted name, where it is, and its syntax tree."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def package(self) -> str:
        """`plane` for emunet.plane.walk; empty for emunet itself and emunet.__main__."""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 1 and parts[1] != "__main__" else ""

    def at(self, line: int, complaint: str) -> str:
        """A complaint, with the place that it is about."""
        return f"{self.name}, line {line}: {complaint}"


parse = functools.cache(ast.parse)
"""Once for all tests that read the same text."""


def modules_of(root: Path) -> dict[str, Module]:
    """Every module of the package `emunet` in a folder, by name."""
    found = {}
    for path in sorted((root / "emunet").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, path, parse(path.read_text(), str(path)))
    return found


def imports_of(module: Module, known: dict[str, Module]) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every module that a module imports; relative ones made absolute."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = module.name.split(".")
                up = node.level - (module.path.name == "__init__.py")
                base = ".".join(here[: len(here) - up] + ([node.module] if node.module else []))
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                package = base == "emunet" and not alias.name.startswith("__")  # though its __init__.py be missing
                yield node.lineno, whole if package or whole in known else base


def ladder_faults(root: Path) -> list[str]:
    """Imports that point up the ladder, or sideways."""
    known = modules_of(root)
    faults = []
    for module in known.values():
        if module.package and module.package not in RANKS:
            faults.append(module.at(1, f"{module.package} has no rank; give it one in ARCHITECTURE.md and here"))
            continue
        for line, target in imports_of(module, known):
            parts = target.split(".")
            if parts[0] != "emunet" or len(parts) == 1:
                continue
            if not module.package:
                if module.name == "emunet":
                    faults.append(module.at(line, f"emunet/__init__.py imports nothing, yet {target}"))
                continue
            there = parts[1]
            if there == module.package:
                continue
            if there not in RANKS:
                faults.append(module.at(line, f"imports {target}, which has no rank"))
            elif (module.package, target) not in SIDEWAYS and RANKS[there] >= RANKS[module.package]:
                faults.append(
                    module.at(
                        line, f"{module.package} (rank {RANKS[module.package]}) imports {target} (rank {RANKS[there]})"
                    )
                )
    return faults


def home_faults(root: Path) -> list[str]:
    """Imports of others' packages in places where they have no business."""
    known = modules_of(root)
    faults = []
    for module in known.values():
        for line, target in imports_of(module, known):
            top = target.split(".")[0]
            if top in HOMES and module.package not in HOMES[top]:
                faults.append(module.at(line, f"imports {top}, which belongs in {', '.join(sorted(HOMES[top]))}"))
            elif top in NOT_IN_PLANE_PROCESS and module.package in PLANE_PROCESS:
                faults.append(module.at(line, f"imports {top}, which the plane process never loads"))
    return faults


def names_used(module: Module) -> Iterator[tuple[int, str]]:
    """(line, full dotted name) of each name that came by an import, as it is used: `t.monotonic` is time.monotonic."""
    imported = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                imported[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                imported[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(module.tree):
        trail = []
        inner: ast.AST = node
        while isinstance(inner, ast.Attribute):
            trail.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name) and inner.id in imported:
            yield inner.lineno, ".".join([imported[inner.id], *reversed(trail)])


def _within(name: str, families: set[str]) -> bool:
    return any(name == family or name.startswith(family + ".") for family in families)


def purity_faults(root: Path) -> list[str]:
    """Clocks read and unseeded chance drawn below `linux`."""
    faults = []
    for module in modules_of(root).values():
        if module.package not in BELOW_LINUX:
            continue
        for node in ast.walk(module.tree):
            seedless = isinstance(node, ast.Call) and not (node.args or node.keywords)
            if seedless and ast.unparse(node.func).split(".")[-1] == "Random":
                faults.append(module.at(node.lineno, "Random() without a seed"))
        for line, name in names_used(module):
            if "." not in name or _within(name, {SEEDED}):
                continue  # a bare module says nothing yet: what is used of it comes as another, longer name
            if _within(name, CLOCKS):
                faults.append(module.at(line, f"{name}: time is an argument called `now` here"))
            elif _within(name, CHANCE):
                faults.append(
                    module.at(line, f"{name}: chance is a hash of the seed, or a random.Random(seed) of a wire")
                )
    return sorted(set(faults))


def loaded_by(packages: tuple[str, ...], suspects: tuple[str, ...]) -> list[str]:
    """Which suspects are in sys.modules once every module of these packages is imported in a fresh Python."""
    script = """
import importlib, pkgutil, sys
packages, suspects = sys.argv[1].split(","), sys.argv[2].split(",")
for package in packages:
    module = importlib.import_module("emunet." + package)
    for info in pkgutil.walk_packages(getattr(module, "__path__", []), module.__name__ + "."):
        if not info.name.endswith(".__main__"):
            importlib.import_module(info.name)
print("\\n".join(sorted(name for name in sys.modules if name in suspects)))
"""
    command = [sys.executable, "-c", script, ",".join(packages), ",".join(suspects)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_imports_go_down_the_ladder() -> None:
    assert ladder_faults(ROOT) == []


def test_packages_of_others_are_imported_where_they_belong() -> None:
    assert home_faults(ROOT) == []


def test_no_clock_and_no_chance_below_linux() -> None:
    assert purity_faults(ROOT) == []


def test_the_ladder_here_is_the_one_of_the_architecture_page() -> None:
    ranks = {}
    for row in (ROOT / "ARCHITECTURE.md").read_text().splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if row.startswith("|") and cells[0].isdigit():
            ranks |= {name.strip(" `"): int(cells[0]) for name in cells[1].split(",")}
    assert ranks == RANKS


def test_the_plane_process_loads_nothing_that_serves_people() -> None:
    assert loaded_by(PLANE_PROCESS, NOT_IN_PLANE_PROCESS) == []


def test_a_cluster_loads_nothing_of_fabric_but_its_configuration() -> None:
    allowed = {target for _, target in SIDEWAYS}
    rest = {name for name in modules_of(ROOT) if name.startswith("emunet.fabric.")} - allowed
    assert loaded_by(("cluster",), tuple(sorted(rest))) == []


def test_importing_emunet_itself_loads_nothing_of_emunet() -> None:
    script = "import emunet, sys; print([m for m in sys.modules if m.startswith('emunet.')])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# The checks, checked: each of these lines, put into an otherwise clean tree, is caught.


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small, clean emunet: one empty module `one` in each package."""
    for package in ("", *RANKS):
        folder = tmp_path / "emunet" / package
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text("")
        if package:
            (folder / "one.py").write_text("")
    (tmp_path / "emunet" / "fabric" / "config.py").write_text("from emunet.packet import one\n")
    return tmp_path


@pytest.mark.parametrize(
    ("package", "line", "complaint"),
    [
        ("packet", "from emunet.plane import one", "packet (rank 0) imports emunet.plane.one (rank 1)"),
        ("packet", "from emunet import plane", "imports emunet.plane (rank 1)"),
        ("plane", "import emunet.linux.one", "plane (rank 1) imports emunet.linux.one (rank 4)"),
        ("plane", "from ..elements import one", "imports emunet.elements.one (rank 2)"),
        ("plane", "def lazily():\n    import emunet.lab", "imports emunet.lab (rank 5)"),
        ("plane", "if TYPE_CHECKING:\n    from emunet.lab.one import Lab", "imports emunet.lab.one (rank 5)"),
        ("fabric", "import emunet.cluster", "fabric (rank 3) imports emunet.cluster (rank 3)"),
        ("cluster", "from emunet.fabric import one", "cluster (rank 3) imports emunet.fabric.one (rank 3)"),
        ("cluster", "from emunet.fabric.one import World", "cluster (rank 3) imports emunet.fabric.one (rank 3)"),
        ("cli", "import emunet.shell", "cli (rank 7) imports emunet.shell (rank 7)"),
        ("daemon", "from emunet.web import page", "emunet.web, which has no rank"),
        ("", "from emunet.packet import one", "imports nothing"),
    ],
)
def test_an_arrow_that_does_not_point_down_is_caught(tree: Path, package: str, line: str, complaint: str) -> None:
    assert ladder_faults(tree) == []
    path = tree / "emunet" / package / ("two.py" if package else "__init__.py")
    path.write_text(line + "\n")
    faults = ladder_faults(tree)
    assert len(faults) == 1, faults
    assert complaint in faults[0]


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("cluster", "from emunet.fabric import config"),
        ("cluster", "from emunet.fabric.config import WorldConfig"),
        ("lab", "from emunet.cluster import one"),
        ("plane", "from . import one"),
        ("plane", "from .one import Walk"),
        ("cli", "from emunet import __version__"),
        ("cli", "import emunet"),
    ],
)
def test_an_arrow_that_points_down_is_allowed(tree: Path, package: str, line: str) -> None:
    (tree / "emunet" / package / "two.py").write_text(line + "\n")
    assert ladder_faults(tree) == []


def test_a_package_without_a_rank_is_caught(tree: Path) -> None:
    (tree / "emunet" / "web").mkdir()
    (tree / "emunet" / "web" / "page.py").write_text("")
    assert any("web has no rank" in fault for fault in ladder_faults(tree))


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("cli", "import scapy.all"),
        ("linux", "from scapy.layers.l2 import Ether"),
        ("daemon", "import pytun"),
        ("plane", "import pyroute2"),
        ("plane", "import yaml"),
        ("linux", "def lazily():\n    from pydantic import BaseModel"),
        ("fabric", "import aiohttp"),
    ],
)
def test_a_package_of_others_away_from_home_is_caught(tree: Path, package: str, line: str) -> None:
    assert home_faults(tree) == []
    (tree / "emunet" / package / "two.py").write_text(line + "\n")
    assert len(home_faults(tree)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "import time\nnow = time.monotonic()",
        "import time as t\nage = lambda clock=t.time_ns: clock()",
        "from time import monotonic_ns\nnow = monotonic_ns()",
        "from time import sleep as rest\nrest(1)",
        "from datetime import datetime\nborn = datetime.now()",
        "import datetime\nborn = datetime.datetime.now()",
        "import random\nluck = random.random()",
        "from random import choice\nluck = choice([1, 2])",
        "from random import Random\nstream = Random()",
        "import os\nkey = os.urandom(8)",
        "import secrets\nkey = secrets.token_bytes(8)",
        "import uuid\nname = uuid.uuid4()",
    ],
)
@pytest.mark.parametrize("package", ["packet", "cluster"])
def test_a_clock_or_a_draw_below_linux_is_caught(tree: Path, package: str, line: str) -> None:
    assert purity_faults(tree) == []
    (tree / "emunet" / package / "two.py").write_text(line + "\n")
    assert len(purity_faults(tree)) == 1, purity_faults(tree)


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("linux", "import time\nnow = time.monotonic_ns()"),
        ("fabric", "import random\nstream = random.Random(7)\nluck = stream.random()"),
        ("fabric", "from random import Random\nstream = Random(x=7)"),
        ("plane", "def walk(time: int) -> int:\n    return time + 1"),
        ("cluster", "from datetime import datetime, timezone\nborn = datetime.fromtimestamp(0, timezone.utc)"),
    ],
)
def test_what_only_looks_like_a_clock_or_a_draw_is_allowed(tree: Path, package: str, line: str) -> None:
    (tree / "emunet" / package / "two.py").write_text(line + "\n")
    assert purity_faults(tree) == []


def test_what_a_package_loads_is_seen() -> None:
    assert loaded_by(("packet",), ("json", "emunet.packet.address")) == ["emunet.packet.address"]
