"""Mutants of the flow cache: each breaks one thing that makes it safe, and the twins must notice.

A mutant that lives means that the equality test does not test what it claims.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from emunet.elements.policies import PolicyTable
from emunet.elements.routes import RouteTable
from emunet.fabric import roads
from emunet.fabric.flows import FlowCache
from emunet.fabric.fuse import Fused
from emunet.fabric.replay import Replay
from emunet.fabric.rewrite import Rewrite
from emunet.plane.table import NEVER, Counter, Table
from tests.properties.test_flow_cache import play

TOPOLOGIES = ("one-host", "two-hosts", "leaf-spine", "dual-stack")


def forget(kind: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Changes of tables of this name tell nobody."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        original = Table.changed

        def changed(self: Table[Any, Any], key: Any, why: str) -> None:
            if not self.name.endswith(kind):
                original(self, key, why)

        patch.setattr(Table, "changed", changed)

    return mutate


def forget_routes(patch: pytest.MonkeyPatch) -> None:
    """A route changes and the cache is not told, by the table or by the World."""
    patch.setattr(RouteTable, "_changed", lambda self, prefix: None)
    original = FlowCache.clear
    patch.setattr(
        FlowCache, "clear", lambda self, why: None if why == "the configuration changed" else original(self, why)
    )


def forget_wires(patch: pytest.MonkeyPatch) -> None:
    """A wire begins to lose, and the cache is not told. (Down, its ports' stations are forgotten as well.)"""
    original = FlowCache.clear
    patch.setattr(FlowCache, "clear", lambda self, why: None if why.startswith("a wire") else original(self, why))


def no_deadline(patch: pytest.MonkeyPatch) -> None:
    """A Replay lives for ever, whatever ages under it."""
    original = FlowCache.finish

    def finish(self: FlowCache, recording: Any, figures: Any, now: int) -> None:
        original(self, recording, figures, now)
        replay = recording.table.get(recording.key)
        if replay is not None:
            replay.deadline = NEVER

    patch.setattr(FlowCache, "finish", finish)


def no_refresh(patch: pytest.MonkeyPatch) -> None:
    """A hit is not a use of what it leans on."""
    original = Table.attach
    patch.setattr(Table, "attach", lambda self, key, dependent, refreshes=False: original(self, key, dependent, False))


def no_limit(patch: pytest.MonkeyPatch) -> None:
    """A frame of any size is answered as the small one was."""
    original = Fused.take

    def take(self: Fused, step: Any, last: bool) -> None:
        step.limit = None
        original(self, step, last)

    patch.setattr(Fused, "take", take)


def no_length_guard(patch: pytest.MonkeyPatch) -> None:
    """Checksums and lengths of a hit are not looked at."""
    patch.setattr(Replay, "fits", lambda self, frame, start, length, offload, now: now < self.deadline)


def stale_checksum(patch: pytest.MonkeyPatch) -> None:
    """The header checksum is that of the header before."""
    original = FlowCache.finish

    def finish(self: FlowCache, recording: Any, figures: Any, now: int) -> None:
        original(self, recording, figures, now)
        replay = recording.table.get(recording.key)
        if replay is not None:
            replay.new_sum = replay.old_sum

    patch.setattr(FlowCache, "finish", finish)


def uncounted(patch: pytest.MonkeyPatch) -> None:
    """What is hit is not counted."""
    patch.setattr(Replay, "credit", lambda self: None)


def counter_stands(patch: pytest.MonkeyPatch) -> None:
    """A hit takes no identification."""

    def hit(self: Replay, frames: int, now: int) -> None:
        self.used = now
        self.frames += frames

    patch.setattr(Replay, "hit", hit)


def superframes_count_once(patch: pytest.MonkeyPatch) -> None:
    """A superframe is counted as one frame."""
    original = Replay.hit
    patch.setattr(Replay, "hit", lambda self, frames, now: original(self, 1, now))


def counter_overlay_leaks(patch: pytest.MonkeyPatch) -> None:
    """A dry run's identifications are kept."""

    def end(self: Counter) -> None:
        if self._overlay is not None:
            self.value = self._overlay
        self._overlay = None

    patch.setattr(Counter, "end_overlay", end)


def one_checksum_form(patch: pytest.MonkeyPatch) -> None:
    """A checksum that was left open is corrected as if it were complete."""
    original = Rewrite.correct_transport
    patch.setattr(
        Rewrite,
        "correct_transport",
        lambda self, buffer, start, *, partial: original(self, buffer, start, partial=False),
    )


def unguarded_state(patch: pytest.MonkeyPatch) -> None:
    """A FIN, a RST or a SYN of a known connection is answered from the cache."""
    original = FlowCache._compile

    def compile_(self: FlowCache, *arguments: Any) -> Replay:
        replay = original(self, *arguments)
        replay.guard_flags = False
        return replay

    patch.setattr(FlowCache, "_compile", compile_)


def forget_policies(patch: pytest.MonkeyPatch) -> None:
    """A pod's policies or a group's members change, and nobody is told."""
    patch.setattr(PolicyTable, "_changed", lambda self, key: None)


def follow_the_dead(patch: pytest.MonkeyPatch) -> None:
    """What follows behind a wire is repeated though it was deleted."""
    original = Replay.invalidate

    def invalidate(self: Replay, why: str) -> None:
        original(self, why)
        self.alive = True

    patch.setattr(Replay, "invalidate", invalidate)


def follow_without_guards(patch: pytest.MonkeyPatch) -> None:
    """What follows behind a wire is repeated for any frame, at any time."""
    patch.setattr(Replay, "fits_again", lambda self, frame, now: True)


def nobody_looks(patch: pytest.MonkeyPatch) -> None:
    """Whoever reads ports or a connection does so unnoticed: every flow goes the road of the first."""
    patch.setattr(roads, "crossings", lambda notes: {})


class OneBranch(dict[Any, Replay]):
    """Gives what it has, whatever is asked for."""

    def get(self, key: Any, default: Any = None) -> Any:
        return next(iter(self.values()), default)


def one_branch(patch: pytest.MonkeyPatch) -> None:
    """Behind a crossing it does not matter what became of the frame there."""
    original = Replay.__init__

    def begin(self: Replay, *arguments: Any) -> None:
        original(self, *arguments)
        self.onward = OneBranch()

    patch.setattr(Replay, "__init__", begin)


def no_deadline_behind(patch: pytest.MonkeyPatch) -> None:
    """Behind a crossing nothing is over, and nothing too long."""
    patch.setattr(Replay, "fits_behind", lambda self, frame, offload, now: True)


MUTANTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "a station moves unnoticed": forget(" stations"),
    "a neighbour changes unnoticed": forget("neighbours"),
    "a route changes unnoticed": forget_routes,
    "a wire begins to lose unnoticed": forget_wires,
    "no deadline": no_deadline,
    "a hit is no use": no_refresh,
    "no limit": no_limit,
    "no guards": no_length_guard,
    "a stale checksum": stale_checksum,
    "a hit is not counted": uncounted,
    "a hit takes no identification": counter_stands,
    "a superframe counts once": superframes_count_once,
    "a dry run leaks": counter_overlay_leaks,
    "a connection's state changes unnoticed": forget("connections"),
    "one checksum form": one_checksum_form,
    "a FIN is a hit": unguarded_state,
    "a policy changes unnoticed": forget_policies,
    "the dead are followed": follow_the_dead,
    "no guards behind a wire": follow_without_guards,
    "nobody has looked": nobody_looks,
    "one branch for all": one_branch,
    "no guards behind a crossing": no_deadline_behind,
}
POLICED = {"a policy changes unnoticed"}
NEED_DELAY = {"the dead are followed", "no guards behind a wire"}


LONG = {"no guards behind a wire", "no guards behind a crossing", "no limit", "a FIN is a hit"}


@pytest.mark.parametrize("name", [pytest.param(x, marks=[pytest.mark.slow] * (x in LONG)) for x in MUTANTS])
def test_killed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twins differ under this mutant for at least one seed."""
    MUTANTS[name](monkeypatch)
    for seed in range(8):
        for topology in TOPOLOGIES:
            for translating in (True,) if name in POLICED else (False, True) if topology != "one-host" else (False,):
                try:
                    slow, policed = name in NEED_DELAY, name in POLICED
                    play(topology, seed, translating=translating, policed=policed, slow=slow)
                except AssertionError:
                    return
    pytest.fail(f"mutant lives: {name}")
