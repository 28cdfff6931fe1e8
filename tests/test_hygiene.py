"""What every file of the project keeps, whoever wrote it.

No path of a developer's machine; a docstring on every public module, class and
function; no file so long that nobody reads it. The checks are functions from files
to complaints, and the last tests show that each of them catches what it is for.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINES_MAX = 700

# Homes and workspaces of a person's machine. A pod's own /root and /home, without more, are fine.
MACHINE_PATH = re.compile(r"(?<![\w./$}-])/(?:home|root|work|Users)/\w")
TEXT_FOLDERS = ("emunet", "docs", "topologies", ".ci", "tests")


def python_files(*folders: str) -> list[Path]:
    """All Python files under folders of the project."""
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def text_files() -> Iterator[Path]:
    """All files that people read: source, documents, and what lies at the top."""
    for path in [*ROOT.iterdir(), *(path for folder in TEXT_FOLDERS for path in (ROOT / folder).rglob("*"))]:
        made = path.name == ".git" or any(part == "__pycache__" or part.endswith("_cache") for part in path.parts)
        if path.is_file() and not made and b"\0" not in path.read_bytes()[:4096]:
            yield path


def machine_paths(paths: Iterable[Path]) -> list[str]:
    """Lines that name a place on somebody's machine."""
    return [
        f"{path}:{number}: {line.strip()[:100]}"
        for path in paths
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]


def undocumented(paths: Iterable[Path]) -> list[str]:
    """Public modules, and public classes and functions at their top level, that say nothing of themselves."""
    faults = []
    for path in paths:
        tree = ast.parse(path.read_text())
        if ast.get_docstring(tree) is None:
            faults.append(f"{path}: the module has no docstring")
        for node in tree.body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
                continue
            overload = any(ast.unparse(decorator).split(".")[-1] == "overload" for decorator in node.decorator_list)
            if ast.get_docstring(node) is None and not overload:
                faults.append(f"{path}:{node.lineno}: {node.name} has no docstring")
    return faults


def too_long(paths: Iterable[Path]) -> list[str]:
    """Files of more lines than a reader bears."""
    counted = ((path, len(path.read_text().splitlines())) for path in paths)
    return [f"{path}: {lines} lines" for path, lines in counted if lines >= LINES_MAX]


def bare_folders(root: Path) -> list[str]:
    """Folders with modules but without `__init__.py`: they import here, and are missing from a wheel."""
    folders = {path.parent for path in root.rglob("*.py")}
    return [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()]


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    assert machine_paths(text_files()) == []


def test_what_is_public_says_what_it_is() -> None:
    assert undocumented(python_files("emunet")) == []


def test_no_file_is_too_long_to_read() -> None:
    assert too_long(python_files("emunet", "tests")) == []


def test_every_package_is_a_package() -> None:
    assert bare_folders(ROOT / "emunet") == []


def test_documents_name_only_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    told = {
        (path.name, target) for path in ROOT.glob("*.md") for target in re.findall(r"`make ([a-z]+)", path.read_text())
    }
    assert {target for _, target in told} <= targets, sorted(pair for pair in told if pair[1] not in targets)


# The checks, checked.


@pytest.mark.parametrize(
    ("text", "caught"),
    [
        ("see /home/me/notes", True),
        ("open('/root/lab.yaml')", True),
        ("PATH=/Users/me/bin", True),
        ("mount(tmpfs, '/home')", False),
        ("https://example.org/home/page", False),
        ("$HOME/home/x and ./root/x", False),
    ],
)
def test_a_place_on_somebodys_machine_is_caught(tmp_path: Path, text: str, caught: bool) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"first line\n{text}\n")
    assert bool(machine_paths([path])) == caught


@pytest.mark.parametrize(
    ("source", "faults"),
    [
        ('"""A module."""\n\n\ndef public():\n    """Say so."""\n\n\ndef _own():\n    pass\n', 0),
        ("def public():\n    pass\n\n\nclass Public:\n    pass\n", 3),
        ('"""A module."""\n\n\nasync def public():\n    pass\n', 1),
    ],
)
def test_silence_is_caught(tmp_path: Path, source: str, faults: int) -> None:
    path = tmp_path / "module.py"
    path.write_text(source)
    assert len(undocumented([path])) == faults


def test_length_and_a_missing_init_are_caught(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("x = 1\n" * (LINES_MAX - 1))
    assert too_long([path]) == []
    path.write_text("x = 1\n" * LINES_MAX)
    assert len(too_long([path])) == 1
    assert bare_folders(tmp_path) == [str(tmp_path)]
