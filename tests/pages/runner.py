"""Runs a page's commands as a person would: in one shell, in a folder of its own, with labs of its own.

    python -m tests.pages PAGE... [--write]

`--write` puts what was printed into the page, and the pictures that its commands drew beside it.

Rule of this file: whatever a page leaves behind is taken down with its folder.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.pages.page import Command, Page, alike, differences, shape

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], str(ROOT / ".ci/docker-cli/usr/bin")])
"""Where commands are looked for: emunet's own environment, the machine, and what `.ci/run` unpacks."""

SECONDS = 300.0
"""How long one command may take; the longest makes an environment and fills it, in 20 s where nothing else runs."""

REPOSITORY = "<this repository>"
"""What a page clones: a repository that holds this tree as it is now."""

INHERITED = ("KUBECONFIG", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "VIRTUAL_ENV", "XDG_CACHE_HOME", "XDG_CONFIG_HOME",
             "XDG_DATA_HOME")  # fmt: skip
"""What of the tests' own surroundings would change a page's commands, or be changed by them."""


class Shell:
    """A shell that stays, so that variables, background jobs and the folder do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment = {
            **{name: value for name, value in os.environ.items() if name not in INHERITED}, **_of_pip(),
            "EMUNET_RUNTIME_DIR": str(folder / "run"), "PATH": PROGRAMS, "COLUMNS": "100", "NO_COLOR": "1",
            "LC_ALL": "C.UTF-8", "HOME": str(folder),
        }  # fmt: skip
        self._log = folder / "output"
        self._log.touch()
        with self._log.open("ab") as log:
            self._shell = subprocess.Popen(
                ["bash", "--norc", "--noprofile"], stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment,
                cwd=folder / "here", start_new_session=True,
            )  # fmt: skip

    def run(self, text: str) -> tuple[int, str]:
        """A command's exit code, and what it printed. TimeoutError."""
        begin, mark = self._log.stat().st_size, f"end-{secrets.token_hex(8)}"
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{text}\nprintf '\\n{mark} %d\\n' $?\n".encode())
        self._shell.stdin.flush()
        end = time.monotonic() + SECONDS
        while True:
            with self._log.open("rb") as log:
                log.seek(begin)
                printed = log.read().decode("utf-8", "replace")
            head, found, tail = printed.partition(f"\n{mark} ")
            if found and "\n" in tail:
                return int(tail.split("\n", 1)[0]), head
            if time.monotonic() > end:
                raise TimeoutError(f"{text!r} has not ended within {SECONDS:.0f} s; it printed\n{printed}")
            time.sleep(0.02)

    def close(self) -> None:
        """End the shell and what it started."""
        assert self._shell.stdin is not None
        with suppress(BrokenPipeError):
            self._shell.stdin.close()
        with suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.wait(10)


def _of_pip() -> dict[str, str]:
    """Where a page gets packages, and keeps them: as everybody on this machine, though its HOME is its own."""
    home = Path.home()
    own = {"PIP_CACHE_DIR": home / ".cache/pip", "PIP_CONFIG_FILE": home / ".config/pip/pip.conf"}
    return {name: os.environ.get(name, str(path)) for name, path in own.items() if name in os.environ or path.exists()}


def _keep(repository: Path) -> None:
    """Make a repository that holds this tree as it is now, what is not committed too."""
    git = ["git", "--git-dir", str(repository / ".git"), "--work-tree", str(ROOT)]
    who = ["-c", "user.name=emunet", "-c", "user.email=emunet@example.org"]
    subprocess.run(["git", "init", "--quiet", str(repository)], check=True)
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, *who, "commit", "--quiet", "--message", "this tree as it is now"], check=True)


@contextmanager
def shell_for(page: Page, folder: Path) -> Iterator[Shell]:
    """A shell in a folder that has what a clone has; its labs end with it."""
    (folder / "run").mkdir(parents=True)
    here = folder / "here"
    here.mkdir()
    for name in ("topologies", "scenarios", "docs"):
        (here / name).symlink_to(ROOT / name)
    if any(REPOSITORY in command.text for command in page.commands):
        _keep(folder / "repository")
    shell = Shell(folder)
    try:
        yield shell
    finally:
        try:
            shell.run("emunet down --all")
        finally:
            shell.close()


def run(page: Page, folder: Path, *, write: bool = False) -> list[str]:
    """Run all commands of a page; what was not as the page says. `write`: put what came into the page."""
    faults: list[str] = []
    outputs: dict[int, str] = {}
    with shell_for(page, folder) as shell:
        for command in page.commands:
            code, printed = shell.run(command.text.replace(REPOSITORY, str(folder / "repository")))
            if differences(command.output, printed):  # where they agree the page stays as it is, its `…` too
                outputs[command.line] = printed
            faults += _faults(page, command, code, printed)
        faults += list(_pictures(page, folder / "here", write=write))
    if write:
        page.path.write_text(page.written(outputs))
    return faults


def _faults(page: Page, command: Command, code: int, printed: str) -> list[str]:
    place = f"{page.path.name}:{command.line}: $ {command.text}"
    found = differences(command.output, printed)
    if code and not command.output:
        found = [f"  ended with code {code}", *printed.split("\n")]
    return [place, *found] if found else []


def _pictures(page: Page, here: Path, *, write: bool) -> Iterator[str]:
    """SVGs that the page's commands drew are those that it shows, by what is written in them."""
    for drawn in sorted(here.glob("*.svg")):
        shown = page.path.parent / "img" / drawn.name
        there = shown.exists()
        if there and _alike(one := _words(drawn), other := _words(shown)):
            continue
        if write:
            shown.parent.mkdir(exist_ok=True)
            shutil.copyfile(drawn, shown)
        elif not there:
            yield f"{page.path.name}: {drawn.name} is drawn, and {shown} is not there"
        else:
            yield f"{page.path.name}: {drawn.name} says otherwise than the page's picture"
            yield from (f"  - {word}" for word in other if word not in one)
            yield from (f"  + {word}" for word in one if word not in other)


def _alike(drawn: list[str], shown: list[str]) -> bool:
    return len(drawn) == len(shown) and all(alike(want, got) for want, got in zip(shown, drawn, strict=True))


def _words(svg: Path) -> list[str]:
    """What is written in a picture, but for its column of times."""
    import xml.etree.ElementTree as ElementTree

    texts = ElementTree.fromstring(svg.read_text()).iter("{http://www.w3.org/2000/svg}text")
    return [shape(node.text or "") for node in texts if shape(node.text or "") not in ("N ms", "N s", "N s later")]
