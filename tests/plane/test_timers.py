"""Timers: one appointment a key, in order, and none left behind by a dry run."""

from __future__ import annotations

import random

from emunet.plane.table import NEVER
from emunet.plane.timers import Ring, Timers


def test_a_later_appointment_replaces_an_earlier_one_and_the_other_way_round() -> None:
    timers: Timers[str] = Timers()
    assert timers.first() == NEVER
    timers.set("a", 10)
    timers.set("b", 20)
    timers.set("a", 30)
    assert timers.first() == 20
    timers.set("a", 5)
    assert timers.first() == 5
    assert timers.pop(5) == ["a"]
    assert timers.pop(19) == []
    assert timers.pop(20) == ["b"]
    assert timers.pop(1000) == []


def test_what_is_cleared_does_not_ring() -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 10)
    timers.clear("a")
    timers.clear("never set")
    assert timers.first() == NEVER
    assert timers.pop(100) == []


def test_what_is_due_at_once_rings_in_the_order_it_was_set() -> None:
    timers: Timers[str] = Timers()
    for key in "dacb":
        timers.set(key, 7)
    assert timers.pop(7) == list("dacb")


def test_a_dry_run_leaves_appointments_as_they_were() -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 10)
    timers.begin_overlay()
    Ring(timers, "a", None).apply(0)
    Ring(timers, "b", 3).apply(0)
    assert timers.pop(5) == ["b"]
    timers.end_overlay()
    assert timers.first() == 10
    assert timers.pop(10) == ["a"]


def test_against_a_plain_dictionary() -> None:
    draw = random.Random(3)
    timers: Timers[int] = Timers()
    model: dict[int, int] = {}
    now = 0
    for _ in range(3000):
        key = draw.randrange(20)
        what = draw.random()
        if what < 0.5:
            after = draw.randrange(50)
            Ring(timers, key, after).apply(now)
            model[key] = now + after
        elif what < 0.6:
            Ring(timers, key, None).apply(now)
            model.pop(key, None)
        else:
            now += draw.randrange(20)
            due = {one for one, at in model.items() if at <= now}
            rang = timers.pop(now)
            assert set(rang) == due
            assert [model[one] for one in rang] == sorted(model[one] for one in rang)
            model = {one: at for one, at in model.items() if one not in due}
        assert timers.first() == min(model.values(), default=NEVER)
