"""`emunet shell` as a program: its prompt, `-c CODE`, `FILE.py`, and how each of them ends."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from emunet.daemon.folder import folder_of, try_hold
from tests.running_plane import RunningPlane

HOMES = ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a person with one lab, and with a home that nobody else has."""
    folder = tmp_path_factory.mktemp("person")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMUNET_RUNTIME_DIR", str(folder / "run"))
        held = try_hold(folder_of("two"))
        assert held is not None
        with RunningPlane(held.folder.path):
            home = dict.fromkeys(HOMES, str(folder / "home"))
            yield os.environ | home | {"PYTHONPATH": os.pathsep.join(sys.path), "TERM": "dumb"}
        held.remove()


def shell(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "emunet", "shell", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


def test_code(environment: dict[str, str]) -> None:
    code = "import sys; print(sr1(IP(dst='web-3')/ICMP(), iface='web-1', timeout=5, verbose=0).src, lab.name, sys.argv)"
    done = shell(environment, "-c", code, "--one", "two")
    assert done.stdout == "10.244.2.2 two ['-c', '--one', 'two']\n"
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_of_the_code_is_shown_as_python_shows_it(environment: dict[str, str]) -> None:
    done = shell(environment, "-c", "1/0")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "Traceback (most recent call last):"
    assert done.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert "emunet" not in done.stderr
    assert shell(environment, "-c", "sys.exit(3)").returncode == 3


def test_a_file_runs_as_a_program(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("word = 'beside'\n")
    program = tmp_path / "probe.py"
    program.write_text(
        "import sys\nfrom neighbour import word\n"
        "if __name__ == '__main__':\n    print(word, sys.argv[1:], __file__, sorted(lab.ports)[0])\n    nobody\n"
    )
    done = shell(environment, str(program), "a", "-b")
    assert done.stdout == f"beside ['a', '-b'] {program} host1:cni0\n"
    assert done.returncode == 1
    assert f'File "{program}", line 5' in done.stderr
    assert done.stderr.endswith("NameError: name 'nobody' is not defined\n")


def test_what_cannot_begin_is_a_sentence(environment: dict[str, str]) -> None:
    done = shell(environment, "nothing.py")
    assert (done.returncode, done.stderr) == (1, "emunet: cannot read nothing.py: No such file or directory\n")
    done = shell(environment, "--lab", "other", "-c", "1")
    assert done.returncode == 1
    assert done.stderr.startswith("emunet: the lab other is not running")


def test_the_prompt(environment: dict[str, str]) -> None:
    """Scapy's own prompt, on a terminal: our names, an answer, Ctrl-C within a sniff, Ctrl-D at the end."""
    if shutil.which("setsid") is None:
        pytest.skip("setsid is not installed: apt-get install util-linux")
    master, slave = pty.openpty()
    # In a session of its own whose terminal this is, so that Ctrl-C reaches it as from a keyboard.
    command = ["setsid", "--ctty", "--wait", sys.executable, "-m", "emunet", "shell"]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    seen = ""

    def until(text: str) -> str:
        nonlocal seen
        deadline = time.monotonic() + 30
        while text not in seen:
            assert select.select([master], [], [], max(0, deadline - time.monotonic()))[0], seen
            seen += re.sub(r"\x1b\[[\d;]*m", "", os.read(master, 65536).decode(errors="replace"))  # without colours
        before, _, seen = seen.partition(text)
        return before

    def say(line: str) -> None:
        os.write(master, line.encode() + b"\n")

    try:
        banner = until(">>> ")
        assert "Lab two: pods web-1, web-2, web-3, web-4." in banner
        assert "Welcome to Scapy" in banner
        assert "WARNING" not in banner
        say("srp1(Ether()/IP(dst='web-3')/ICMP(), iface='web-1', timeout=5, verbose=0)[IP].src + '!'")
        until("10.244.2.2!")
        until(">>> ")
        say("lab")
        until("<lab two, 12 ports>")
        say("sniff(iface='web-1', started_callback=lambda: print('it' + ' listens'))")
        until("it listens")
        os.write(master, b"\x03")
        until("<Sniffed: TCP:0 UDP:0 ICMP:0 Other:0>")
        until(">>> ")
        os.write(master, b"\x04")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)
