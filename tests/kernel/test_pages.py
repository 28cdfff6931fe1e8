"""Every command in README and docs is run, and prints what they show."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.pages.page import Page, differences, shape
from tests.pages.runner import PROGRAMS, run

ROOT = Path(__file__).parent.parent.parent
PAGES = [Page.read(path) for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))]
HOW = {
    "git": "apt-get install git",
    "make": "apt-get install make",
    "kubectl": "apt-get install kubernetes-client",
    "docker": "bash .ci/install-packages judge-packages.txt",
    "dig": "apt-get install bind9-dnsutils",
    "tshark": "apt-get install tshark",
    "curl": "apt-get install curl",
    "iperf3": "apt-get install iperf3",
}
PEOPLE_TYPE = ("emunet", "make", "git", "pip", "kubectl", "docker", "tshark", "curl", "python", "python3")
RUN = [page for page in PAGES if page.commands]


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.path.stem)
def test_a_page_shows_what_its_commands_print(page: Page, tmp_path: Path) -> None:
    for program in page.needs:
        if shutil.which(program, path=PROGRAMS) is None:
            pytest.skip(f"{program} is not installed: {HOW[program]}   (or: make deps)")
    faults = run(page, tmp_path / "page")
    assert not faults, "\n" + "\n".join(faults)


def test_each_lab_of_the_course_is_whole() -> None:
    """What each has: what one will see, a topology of its own, a picture, two questions, what a real cluster does."""
    labs = sorted((ROOT / "docs/primer").glob("[0-9]*.md"))
    assert labs
    for path in labs:
        text = path.read_text()
        for heading in ("## What you will see", "## Questions", "## In a real cluster"):
            assert heading in text, f"{path.name} has no {heading!r}"
        questions = text.partition("## Questions")[2].partition("\n## ")[0]
        assert questions.count("```console") >= 2, f"{path.name}: two questions have commands for answers"
        used = re.findall(r"topologies/primer/[\w-]+\.yaml", text)
        assert used, f"{path.name} has no topology of its own"
        assert all((ROOT / name).exists() for name in used)
        assert re.search(r"emunet (trace|explain) ", text), f"{path.name} explains no packet"
        assert re.search(r"--sequence|--figure", text), f"{path.name} draws nothing of what was sent"
        assert re.search(r"!\[[^\]]+\]\(img/[\w-]+\.svg\)", text), f"{path.name} has no picture"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path.stem)
def test_every_command_is_run(page: Page) -> None:
    rows = page.path.read_text().split("\n")
    known = set[int]()
    for command in page.commands:
        known |= set(range(command.line, command.line + command.text.count("\n") + 1))
    stray = [number for number, row in enumerate(rows, 1) if row.lstrip().startswith("$ ") and number not in known]
    assert not stray, f"{page.path.name}: commands outside of ```console blocks at lines {stray}"
    outside = re.sub(r"^```.*?^```$", lambda found: "\n" * found[0].count("\n"), "\n".join(rows), flags=re.M | re.S)
    indented = [
        n for n, row in enumerate(outside.split("\n"), 1) if re.match(rf"(    |\t)({'|'.join(PEOPLE_TYPE)}) ", row)
    ]
    assert not indented, f"{page.path.name}: a block of commands is ```console, not indented, at lines {indented}"
    shells = [number for number, row in enumerate(rows, 1) if re.match(r"\s*```(sh|bash|shell)\b", row)]
    assert not shells, f"{page.path.name}: a block of commands is ```console, at lines {shells}"


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)", page.path.read_text()):
            if not target.startswith(("http://", "https://")):
                assert (page.path.parent / target).exists(), f"{page.path.name}: {target}"


@pytest.mark.parametrize(
    ("said", "printed", "agree"),
    [
        (("web-1  0.42 ms",), "web-1     1.7 ms\n", True),
        (("a", "…", "z"), "a\nb\nc\nz\n", True),
        (("a", "…", "z"), "a\nz\n", True),
        (("a", "…", "z"), "a\nb\n", False),
        (("ttl=62",), "ttl=63\n", False),
        (("10.244.1.2 is at 52:be:73:98:10:69",), "10.244.1.2 is at 02:00:00:00:00:01", True),
        (("10.244.1.2",), "10.244.1.3", False),
        (("is at 52:be:73:98:10:69 (reachable)",), "is at 52:be:73:98:10:69 (stale)", True),
        (("is at 52:be:73:98:10:69 (reachable)",), "is at 52:be:73:98:10:69 (permanent)", False),
        (("192.168.9.11:45476 → web-1:80",), "192.168.9.11:7505 → web-1:80", True),
        (("web-1:8080 → host1",), "web-1:8081 → host1", False),
        (("web-5rd78kvnc-bnnt6 Running",), "web-6cc7d9f8b-x2xq9   Running", True),
        (("rtt … ms",), "rtt min/avg/max = 1/2/3 ms", True),
        ((), "something", False),
    ],
)
def test_shapes(said: tuple[str, ...], printed: str, agree: bool) -> None:
    assert (differences(said, printed) == []) is agree, [shape(line) for line in (*said, *printed.split("\n"))]
