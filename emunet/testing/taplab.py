"""A lab of real kernels and programs for a test: started for it, ended with it.

    with TapLab("topologies/two-hosts.yaml") as lab:
        done = lab.exec("web-1", "curl", "-s", "http://web-3/")
        lab.link("host1--switch1", loss="5%", delay="20ms")

It is `emunet up` under a name of its own, so that tests side by side do not meet. Where the
machine allows no TAPs, `why_not` says what is missing.

Rule of this file: it asks the lab over its API, as the command line does, and decides nothing.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emunet.daemon.client import LabClient, LabError, end_lab
from emunet.daemon.folder import folder_of
from emunet.daemon.settings import Settings
from emunet.daemon.start import python_environment, python_program, start
from emunet.testing.assertions import Assertions


@dataclass(frozen=True, slots=True)
class TapPong:
    """What became of an echo request: true when it was answered; `rtt` in seconds."""

    source: str
    destination: str
    rtt: float | None
    why: str

    def __bool__(self) -> bool:
        return self.rtt is not None


@dataclass(frozen=True, slots=True)
class TapAnswer:
    """A trace as the lab's API tells it, that can be asked like one of this process."""

    told: dict[str, Any]

    def __repr__(self) -> str:
        return f"<{self.verdict}: {self.told['sentence']}>"

    @property
    def verdict(self) -> str:
        """`delivered`, `consumed`, `dropped` or `queued`."""
        return str(self.told["verdict"])

    @property
    def sentence(self) -> str:
        """Why."""
        return str(self.told["sentence"])

    @property
    def codes(self) -> list[str]:
        """Reason codes of all steps, in order."""
        return [step["reason"] for hop in self.told["hops"] for step in hop["steps"]]

    def as_text(self) -> str:
        """The trace, a line a step."""
        return str(self.told["text"])

    def dropped_by(self, reason: str | None = None, *, device: str | None = None, policy: str | None = None) -> bool:
        """Whether it was dropped, for that reason, at that device, by one of that pod's policies."""
        hop = self.told["hops"][-1]["device"] if self.told["hops"] else None
        fits = reason in (None, self.told["reason"]) and device in (None, hop)
        policies = {name for hop in self.told["hops"] for step in hop["steps"] for name in step.get("policies", ())}
        return self.verdict == "dropped" and fits and (policy is None or policy in policies)

    def reaches(self, port: str) -> bool:
        """Whether it was delivered to a pod or host."""
        steps = [step for hop in self.told["hops"] for step in hop["steps"] if step["verdict"] == "deliver"]
        return any(step["why"] in (f"reaches {port}", f"reaches {port}:eth0") for step in steps)


class TapLab(Assertions):
    """Start it, use it, leave it. A topology is a path or YAML text. See the top of this file."""

    def __init__(
        self, topology: str | os.PathLike[str], *, seed: int = 0, record: str | os.PathLike[str] | None = None
    ) -> None:
        self.name = f"test-{uuid.uuid4().hex[:12]}"
        self.seed = seed
        self._folder = tempfile.TemporaryDirectory(prefix="emunet-test-")
        file = os.fspath(topology)
        if "\n" in file:
            file = os.path.join(self._folder.name, "topology.yaml")
            Path(file).write_text(os.fspath(topology))
        settings = Settings(
            (os.path.abspath(file),), os.getcwd(), self.name, "tap", seed=seed,
            record=os.path.abspath(record) if record is not None else "",
        )  # fmt: skip
        try:
            self.ready: dict[str, Any] = start(settings, lambda kind, text: None)
        except BaseException:
            self._folder.cleanup()
            raise
        self._client = LabClient(folder_of(self.name))

    def __enter__(self) -> TapLab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the lab and all that ran in it."""
        end_lab(folder_of(self.name))
        self._folder.cleanup()

    @property
    def pods(self) -> list[str]:
        """The names of all pods, but for the cluster's name server."""
        rows = [row for row in self.status()["pods"] if not row.get("name_server")]
        return [row["name"] if row["namespace"] == "default" else f"{row['namespace']}/{row['name']}" for row in rows]

    def status(self) -> dict[str, Any]:
        """What `emunet status -o json` prints."""
        told: dict[str, Any] = self._client.get("status")
        return told

    def counters(self) -> dict[str, Any]:
        """The World's figures."""
        told: dict[str, Any] = self._client.get("counters")["world"]
        return told

    def balance(self) -> int:
        """What the law misses: 0, or a frame is unaccounted for."""
        frames = self.counters()
        came = frames["received"] + frames["generated"] + frames["copied"]
        return int(came - frames["delivered"] - frames["consumed"] - frames["dropped"] - frames["queued"])

    def ping(self, source: str, destination: str, *, timeout: float = 1.0) -> TapPong:
        """One echo request, and what became of it."""
        body = {"from": source, "to": destination, "count": 1, "timeout": timeout}
        [row] = self._client.ask("POST", ("ping",), body)["pairs"]
        [rtt] = row["rtt_ms"]
        return TapPong(source, destination, None if rtt is None else rtt / 1000, row.get("why", ""))

    def explain_ping(self, source: str, destination: str) -> str:
        """What a dry run of the echo request says."""
        return str(self._client.post("trace", port=source, to=destination)["text"])

    def trace(self, source: str, packet: Any, *, live: bool = False) -> TapAnswer:
        """Follow a Scapy packet, or the bytes of an IP packet, from a pod or host."""
        is_frame = type(packet).__name__ == "Ether"
        told = self._client.post("trace", port=source, data=bytes(packet).hex(), is_frame=is_frame, live=live)
        return TapAnswer(told)

    def exec(
        self, pod: str, *command: str, timeout: float = 60, check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in a pod (or on a host) to its end."""
        return subprocess.run(
            python_program("emunet", "exec", "--lab", self.name, pod, "--", *command), env=python_environment(),
            capture_output=True, text=True, timeout=timeout, check=check,
        )  # fmt: skip

    def start(self, pod: str, *command: str) -> subprocess.Popen[str]:
        """Start a program in a pod; it ends with the lab at the latest."""
        return subprocess.Popen(
            python_program("emunet", "exec", "--lab", self.name, pod, "--", *command), env=python_environment(),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    # Trouble

    def link(
        self, wire: str, *, up: bool | None = None, flap: str | None = None, source: str | None = None, **settings: Any
    ) -> None:
        """Change one thing on a wire and keep the rest, as `Lab.link`."""
        change = {"up": up, "flap": flap, "from": source}
        body: dict[str, Any] = {name: value for name, value in change.items() if value is not None}
        if settings:
            body["set"] = {name: str(value) for name, value in settings.items()}
        self._client.ask("PUT", ("wires", wire), body)

    def power(self, device: str, *, on: bool) -> None:
        """Take a host's or a switch's power away, or give it back."""
        self._client.put("devices", device, on=on)

    def partition(self, *groups: Sequence[str]) -> None:
        """Part the hosts into groups that do not hear each other; without any, heal it."""
        self._client.put("partition", groups=[list(group) for group in groups])

    def dns(self, *, on: bool) -> None:
        """End the cluster's name servers, or let them begin again."""
        self._client.put("dns", on=on)

    def freeze(self, pod: str) -> None:
        """Stop a pod's processes."""
        self._client.put("pods", pod, frozen=True)

    def thaw(self, pod: str) -> None:
        """Let them go on."""
        self._client.put("pods", pod, frozen=False)

    def exhaust(self, device: str, table: str, capacity: int | None = None) -> None:
        """Let a table of a device hold so many entries at most; without a number it is full with what it holds."""
        self._client.ask("PUT", ("tables", device, table), {} if capacity is None else {"capacity": capacity})


def why_not() -> str | None:
    """Why this machine runs no lab on TAP wires, with the cure; None where it does."""
    from emunet.linux.doctor import can_use_taps

    allowed, sentence = can_use_taps()
    return None if allowed else sentence


__all__ = ["LabError", "TapAnswer", "TapLab", "TapPong", "why_not"]
