"""`emunet exec` on a real terminal: session, Ctrl-C, job control, window size and exit codes are the caller's.

The terminal is a pty, and above the client is a real shell, as it is for a person.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel_bench import SECONDS, Bench, eventually, sleepers

from emunet.linux import syscalls
from emunet.linux.join import CannotJoin, run_in_sandbox
from emunet.linux.specification import ProgramSpec

CLIENT = """
import sys
from emunet.linux.join import CannotJoin, run_in_sandbox
try:
    sys.exit(run_in_sandbox(int(sys.argv[1]), sys.argv[2:]))
except CannotJoin as error:
    sys.exit(f"refused: {error}")
"""

ROOT = Path(__file__).parents[2]


def client(pid: int, *argv: str) -> list[str]:
    """The command line of a program that does what `emunet exec` does."""
    return [sys.executable, "-c", CLIENT, str(pid), *argv]


class Terminal:
    """A pty with a shell on it, written to and read as a person would."""

    def __init__(self, exec_file: Path) -> None:
        self.text = ""
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            environment = {"PATH": f"{exec_file.parent}:{os.environ['PATH']}", "TERM": "dumb"}
            settings = exec_file.with_name("settings")
            settings.write_text("PS1='shell> '\n")  # not exported: a shell inside has a prompt of its own
            os.execve("/bin/bash", ["bash", "--rcfile", str(settings), "--noediting", "-i"], environment)
        self.expect(r"shell> ")

    def type(self, text: str) -> None:
        """Type, without a newline of its own."""
        os.write(self.descriptor, text.encode())

    def line(self, text: str) -> None:
        """Type a line."""
        self.type(text + "\n")

    def expect(self, pattern: str) -> re.Match[str]:
        """Read until a pattern appears; what came before it is forgotten."""
        deadline = time.monotonic() + SECONDS
        while (match := re.search(pattern, self.text)) is None:
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} did not appear in {self.text!r}"
            if select.select([self.descriptor], [], [], left)[0]:
                self.text += os.read(self.descriptor, 4096).decode(errors="replace").replace("\r\n", "\n")
        self.text = self.text[match.end() :]
        return match

    def resize(self, rows: int, columns: int) -> None:
        """Change the window, as its frame is dragged."""
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close(self) -> None:
        """Hang up."""
        os.close(self.descriptor)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@pytest.fixture
def terminal(bench: Bench, tmp_path: Path) -> Iterator[Terminal]:
    """A shell, in which `in-pod CMD…` is `emunet exec pod1 -- CMD…`."""
    assert shutil.which("bash"), "these tests type into a real shell: install bash"
    sandbox = bench.pod(1, hostname="inside")
    script = tmp_path / "in-pod"
    words = " ".join(f"'{word}'" for word in client(sandbox.pid)[:2])
    (tmp_path / "client.py").write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{CLIENT}")
    script.write_text(f'#!/bin/sh\nexec {words.split()[0]} {tmp_path}/client.py {sandbox.pid} "$@"\n')
    script.chmod(0o755)
    opened = Terminal(script)
    try:
        yield opened
    finally:
        opened.close()


# On a terminal


def test_it_runs_there_and_the_exit_code_comes_back(terminal: Terminal) -> None:
    terminal.line("in-pod hostname; echo code=$?")
    terminal.expect(r"inside\ncode=0\n")
    terminal.line("in-pod sh -c 'exit 7'; echo code=$?")
    terminal.expect(r"code=7\n")


def test_ctrl_c_interrupts_the_program_and_not_the_shell(terminal: Terminal) -> None:
    terminal.line('in-pod sh -c \'trap "echo caught; exit 5" INT; echo re""ady; read x\'; echo code=$?')
    terminal.expect(r"ready\n")
    terminal.type("\x03")
    terminal.expect(r"caught\n")
    terminal.expect(r"code=5\n")
    terminal.line("in-pod sh -c 'echo re\"\"ady; exec sleep 8101.5'; echo code=$?")
    terminal.expect(r"ready\n")
    eventually(lambda: len(sleepers("8101.5")) == 1, "the program runs")
    terminal.type("\x03")
    terminal.expect(r"code=130\n")
    assert sleepers("8101.5") == []


def test_ctrl_z_and_fg(terminal: Terminal) -> None:
    terminal.line("in-pod sh -c 'echo re\"\"ady; read x; echo got $x; exit 6'")
    terminal.expect(r"ready\n")
    terminal.type("\x1a")
    terminal.expect(r"Stopped")
    terminal.expect(r"shell> ")
    terminal.line("echo the shell is back")
    terminal.expect(r"\nthe shell is back\n")
    terminal.line("fg")
    terminal.expect(r"in-pod sh")
    terminal.expect(r"\n")
    terminal.line("typed")
    terminal.expect(r"\ngot typed\n")
    terminal.expect(r"shell> ")
    terminal.line("echo code=$?")
    terminal.expect(r"\ncode=6\n")


def test_a_job_in_the_background_goes_on_and_stops_when_it_reads(terminal: Terminal) -> None:
    terminal.line("in-pod sh -c 'sleep 8201.5; echo over' &")
    eventually(lambda: len(sleepers("8201.5")) == 1, "the job runs in the background")
    terminal.line("kill %1; wait %1; echo code=$?")
    terminal.expect(r"code=143\n")
    assert sleepers("8201.5") == []
    terminal.line("in-pod sh -c 'read x; echo got $x' &")
    eventually(lambda: "Stopped" in state(terminal), "it stops when it reads")
    terminal.line("fg")
    terminal.expect(r"fg\n")
    terminal.line("typed")
    terminal.expect(r"\ngot typed\n")


def is_running(seconds: str) -> bool:
    """True when the one process that sleeps so long is not stopped: it has the foreground before it is continued."""
    [pid] = sleepers(seconds)
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T"


def state(terminal: Terminal) -> str:
    """What `jobs` says."""
    terminal.line("jobs -s; echo end''-of-jobs")
    return terminal.expect(r"(?s)(.*)end-of-jobs\n").group(1)


def test_a_shell_inside_has_job_control_of_its_own(terminal: Terminal) -> None:
    terminal.line("in-pod bash --norc --noprofile --noediting -i")
    terminal.expect(r"[#$] $")
    terminal.line("PS1='inner'\"> \"")
    terminal.expect(r"\ninner> ")
    terminal.line("sleep 8301.5")
    eventually(lambda: len(sleepers("8301.5")) == 1, "it runs")
    terminal.type("\x1a")
    terminal.expect(r"Stopped")
    terminal.expect(r"inner> ")
    terminal.line("fg")
    eventually(lambda: is_running("8301.5"), "it is continued")
    terminal.type("\x03")
    terminal.expect(r"inner> ")
    terminal.line("exit 4")
    terminal.expect(r"shell> ")
    terminal.line("echo code=$?; cat /proc/self/stat | cut -d' ' -f5,8")
    terminal.expect(r"\ncode=4\n")
    group, foreground = terminal.expect(r"(\d+) (-?\d+)\n").groups()
    assert group == foreground, "the terminal is the shell's again"


def test_a_plain_sh_inside_says_nothing_about_the_terminal(terminal: Terminal) -> None:
    terminal.line("in-pod sh -i; echo code=$?")
    terminal.expect(r"[#$] $")
    terminal.line("exit 3")
    assert "tty" not in terminal.expect(r"(?s)(.*)code=3\n").group(1)


def test_the_window_size_is_the_callers(terminal: Terminal) -> None:
    terminal.resize(33, 111)
    terminal.line(
        'in-pod bash -c \'stty size; trap "stty size; exit" WINCH; echo re""ady; while :; do sleep 0.02; done\''
    )
    terminal.expect(r"33 111\nready\n")
    terminal.resize(44, 122)
    terminal.expect(r"44 122\n")


def test_the_controlling_terminal_can_be_opened(terminal: Terminal) -> None:
    terminal.line("in-pod sh -c 'echo on the terminal > /dev/tty' > /dev/null 2>&1")
    terminal.expect(r"\non the terminal\n")


def test_a_pipeline_shares_the_terminal(terminal: Terminal) -> None:
    terminal.line("echo through | in-pod cat | tr a-z A-Z")
    terminal.expect(r"\nTHROUGH\n")
    terminal.line("in-pod sh -c 'echo re\"\"ady >&2; exec sleep 8401.5' | cat")
    terminal.expect(r"ready\n")
    eventually(lambda: len(sleepers("8401.5")) == 1, "it runs")
    terminal.type("\x1a")
    terminal.expect(r"Stopped")
    terminal.line("fg")
    eventually(lambda: is_running("8401.5"), "it is continued")
    terminal.type("\x03")
    terminal.expect(r"shell> ")
    eventually(lambda: sleepers("8401.5") == [], "Ctrl-C has reached it")


# Without a terminal


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["true"], 0, ""),
        (["sh", "-c", "exit 42"], 42, ""),
        (["sh", "-c", "kill -TERM $$"], 143, ""),
        (["sh", "-c", "kill -KILL $$"], 137, ""),
        (["no-such-program"], 127, "emunet: no-such-program: No such file or directory\n"),
        (["/etc/passwd"], 126, "emunet: /etc/passwd: Permission denied\n"),
        (["/etc"], 126, "emunet: /etc: Permission denied\n"),
    ],
)
def test_exit_codes_are_a_shells(bench: Bench, argv: list[str], code: int, words: str) -> None:
    sandbox = bench.pod(1)
    done = subprocess.run(client(sandbox.pid, *argv), cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, words)


def test_it_sees_what_the_programs_of_the_sandbox_see(bench: Bench) -> None:
    sandbox = bench.pod(1, hostname="inside", files={"/etc/hosts": "10.1.1.1 other\n"})
    pid = bench.keeper.spawn("pod1", ProgramSpec(("sleep", "8501.5")))
    script = "hostname; cat /etc/hosts; ip -o address show eth0; ps -e -o args; pwd; echo $MARK"
    command = client(sandbox.pid, "sh", "-c", script)
    seen = subprocess.check_output(command, cwd=ROOT, text=True, env=os.environ | {"MARK": "mark"})
    for expected in ("inside\n10.1.1.1 other\n", "10.244.0.1/24", "sleep 8501.5", f"{ROOT}\nmark\n"):
        assert expected in seen
    for kind in ("net", "uts", "ipc", "pid", "user", "mnt"):
        theirs = os.readlink(f"/proc/{pid}/ns/{kind}")
        ours = subprocess.check_output(client(sandbox.pid, "readlink", f"/proc/self/ns/{kind}"), cwd=ROOT, text=True)
        assert ours.strip() == theirs, kind


def test_a_signal_to_the_client_reaches_the_program(bench: Bench) -> None:
    sandbox = bench.pod(1)
    script = "trap 'echo told; exit 9' TERM; echo ready; while :; do sleep 0.02; done"
    with subprocess.Popen(
        client(sandbox.pid, "sh", "-c", script), cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as joined:
        assert joined.stdout is not None
        assert joined.stdout.readline() == "ready\n"
        joined.terminate()
        assert joined.stdout.read() == "told\n"
    assert joined.returncode == 9


def test_a_killed_client_takes_the_program_along(bench: Bench) -> None:
    sandbox = bench.pod(1)
    joined = subprocess.Popen(client(sandbox.pid, "sleep", "8601.5"), cwd=ROOT)
    eventually(lambda: len(sleepers("8601.5")) == 1, "it runs")
    joined.kill()
    joined.wait(SECONDS)
    eventually(lambda: sleepers("8601.5") == [], "it ended with the client")


def test_what_nohup_ignores_stays_ignored(bench: Bench) -> None:
    sandbox = bench.pod(1)
    command = ["nohup", *client(sandbox.pid, "grep", "SigIgn", "/proc/self/status")]
    seen = subprocess.check_output(command, cwd=ROOT, text=True, stderr=subprocess.DEVNULL)
    ignored = [number for number in range(1, 32) if int(seen.split()[1], 16) >> (number - 1) & 1]
    assert ignored == [signal.SIGHUP]  # whoever started the tests may ignore signals of their own, from 32 on


def test_the_caller_itself_stays_where_it_is(bench: Bench) -> None:
    sandbox = bench.pod(1)

    def here() -> object:
        handlers = [signal.getsignal(number) for number in signal.valid_signals()]
        kinds = os.listdir("/proc/self/ns")
        return handlers, [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds], os.listdir("/proc/self/fd")

    before = here()
    assert run_in_sandbox(sandbox.pid, ["true"]) == 0
    assert run_in_sandbox(sandbox.pid, ["false"], env={"PATH": os.environ["PATH"]}, cwd="/") == 1
    assert here() == before


def test_what_cannot_be_joined_says_why(bench: Bench) -> None:
    sandbox = bench.pod(1)
    with pytest.raises(CannotJoin, match="number was reused"):
        run_in_sandbox(sandbox.pid, ["true"], start_time=sandbox.start_time - 1)
    with pytest.raises(CannotJoin, match="/no/such/folder"):
        run_in_sandbox(sandbox.pid, ["true"], cwd="/no/such/folder")
    assert run_in_sandbox(sandbox.pid, ["true"], start_time=syscalls.start_time(sandbox.pid)) == 0
    bench.keeper.remove_sandbox("pod1")
    with pytest.raises(CannotJoin, match="there is no process"):
        run_in_sandbox(sandbox.pid, ["true"])
