"""A pod whose sandbox is there, and its containers over all their runs: what of them is a program, and which.

A lab keeps no images. So a container is one of

    a program            its command is one of this machine's, or a bare name (which is then not found, as
                         in Kubernetes); or it has arguments alone, of which the first is a program of this
                         machine (an image such as busybox runs its arguments)
    a shell              it says nothing of what to run, and has an input for somebody to type at
    a placeholder        all others: it is there, counts as ready, and runs nothing

Rule of this file: it says what is to run and keeps what has run; it starts and ends nothing.
"""

from __future__ import annotations

import asyncio
import enum
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from emunet.cluster.bound import environment, expand
from emunet.cluster.controllers.kubelet import ContainerFact, PodFact
from emunet.cluster.defaults import is_sidecar
from emunet.cluster.store import Object, View, meta
from emunet.daemon.container_log import ContainerLog
from emunet.daemon.program_input import Input
from emunet.daemon.resolvers import Feed
from emunet.linux.specification import ProgramSpec

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOBODY = 65532
"""Who runs what must not be root and says no user: an image would."""

_SHELL = ["/bin/sh"]


class End(enum.Enum):
    """How far a program that is to end has come."""

    NOT_ASKED = enum.auto()
    IN_HOOK = enum.auto()
    """What is to be done before it is asked is being done."""
    WAITS = enum.auto()
    """It is asked when its turn comes: a sidecar's comes after what it serves."""
    ASKED = enum.auto()


@dataclass(slots=True)
class Slot:
    """One container of a pod, over all its runs."""

    name: str
    spec: Object
    fact: ContainerFact
    init: bool = False
    added: bool = False
    """It was added to a pod that runs, and is never started again (an ephemeral container)."""
    number: int = 0
    """Of its program; 0 where none runs, -1 where one is being started."""
    pid: int | None = None
    program: ProgramSpec | None = None
    crashes: int = 0
    log: ContainerLog | None = None
    before: ContainerLog | None = None
    input: Input | None = None
    feed: Feed | None = None
    """The line to it, where it is a name server."""
    attached: bool = False
    restart: asyncio.TimerHandle | None = None
    held: str = ""
    """What it cannot begin without, in words."""
    beside: asyncio.Task[None] | None = None
    """Its hook after the start, then its probes."""
    end: End = End.NOT_ASKED

    @property
    def is_sidecar(self) -> bool:
        """Whether it is an init container that goes on beside the others."""
        return self.init and is_sidecar(self.spec)

    @property
    def is_past(self) -> bool:
        """Of an init container: whether the next one may begin."""
        if self.is_sidecar:
            return self.fact.state == "running" and ("startupProbe" not in self.spec or self.fact.ready)
        return self.fact.state == "terminated" and self.fact.code == 0

    @property
    def is_probed(self) -> bool:
        """True where a probe must say that it is ready."""
        return "readinessProbe" in self.spec or "startupProbe" in self.spec

    @property
    def is_ready(self) -> bool:
        """Whether it is ready as it begins: nobody has to say so first."""
        return not self.is_probed if self.feed is None else self.feed.answers

    def hook(self, name: str) -> Object | None:
        """What is to be done after it has started (`postStart`), or before it is asked to end (`preStop`)."""
        found: Object | None = (self.spec.get("lifecycle") or {}).get(name)
        return found

    def rest(self) -> None:
        """Its program is gone: nothing goes on beside it, and nobody types."""
        self.end = End.NOT_ASKED
        if self.beside is not None:
            self.beside.cancel()
            self.beside = None
        if self.input is not None:
            self.input.close()
            self.input = None
        if self.feed is not None:
            self.feed.close()
            self.feed = None
        if self.log is not None:
            self.log.end()


@dataclass(slots=True)
class PodRun:
    """A pod whose sandbox is there."""

    pod: Object
    sandbox: str
    addresses: tuple[str, ...]
    since: int
    slots: dict[str, Slot] = field(default_factory=dict)
    idle: dict[str, ContainerFact] = field(default_factory=dict)
    """Placeholders that were added to it while it ran."""
    stopping: bool = False
    """It was asked to end."""
    over: bool = False
    """Its containers have done what they were to do, or failed for good: its sidecars end."""
    killed: asyncio.TimerHandle | None = None

    @property
    def is_ending(self) -> bool:
        """Whether nothing is started in it any more."""
        return self.stopping or self.over

    def fact(self) -> PodFact:
        """How it is."""
        busy = any(slot.number for slot in self.slots.values())
        facts = self.idle | {name: slot.fact for name, slot in self.slots.items()}
        return PodFact(self.addresses, self.since, facts, stopped=self.stopping and not busy)


def words_of(container: Object, is_program: Callable[[str], bool]) -> list[str] | None:
    """What a container runs, word by word; None where it is a placeholder."""
    command, words = container.get("command") or [], container.get("args") or []
    if command:
        return [*command, *words] if is_program(command[0]) or "/" not in command[0] else None
    if words:
        return list(words) if not words[0].startswith("-") and is_program(words[0]) else None
    return list(_SHELL) if container.get("stdin") else None


def is_program(word: str) -> bool:
    """Whether a word is a program of this machine, as a pod would find it."""
    candidates = [word] if "/" in word else [os.path.join(folder, word) for folder in PATH.split(":")]
    return any(os.path.isfile(one) and os.access(one, os.X_OK) for one in candidates)


def program_of(view: View, pod: Object, container: Object) -> ProgramSpec:
    """The program of a container, as it is started now. ValueError where it runs none."""
    words = words_of(container, is_program)
    if words is None:
        raise ValueError(f"the container {container['name']} is a placeholder: it runs nothing")
    like = surroundings(view, pod, container)
    argv = tuple(expand(word, like.environment or {}) for word in words)
    terminal = bool(container.get("tty"))
    return ProgramSpec(argv, like.environment, like.directory, terminal, own_processes=True, user=like.user)


def surroundings(view: View, pod: Object, container: Object) -> ProgramSpec:
    """What every program has that is run in a container: variables, a folder, a user. Its words are to be set."""
    user = user_of(pod, container)
    variables = {
        "PATH": PATH,
        "HOSTNAME": pod["spec"].get("hostname") or meta(pod)["name"][:63].rstrip("-."),
        "HOME": "/root" if user is None else "/",
        **({"TERM": "xterm"} if container.get("tty") else {}),
        **environment(view, pod, container),
    }
    return ProgramSpec(("",), variables, container.get("workingDir") or "/", user=user)


def user_of(pod: Object, container: Object) -> tuple[int, int] | None:
    """(user, group) that a container's programs run as; None where it is root."""
    chosen = {**(pod["spec"].get("securityContext") or {}), **(container.get("securityContext") or {})}
    user = chosen.get("runAsUser", NOBODY if chosen.get("runAsNonRoot") else 0)
    group = chosen.get("runAsGroup", 0)
    return (user, group) if user or group else None
