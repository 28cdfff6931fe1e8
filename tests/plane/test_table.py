"""Tables: what ages, what makes room and for whom, what is kept aside, who is told of a change."""

from __future__ import annotations

import random

import pytest

from emunet.plane.table import NEVER, Advance, Counter, Delete, Put, Refresh, Table, Watch


class Told:
    """A dependent that notes why it was told."""

    def __init__(self) -> None:
        self.used = 0
        self.why: list[str] = []

    def invalidate(self, why: str) -> None:
        self.why.append(why)


def table(capacity: int = 100, lifetime: int | None = None, watch: Watch | None = None) -> Table[str, str]:
    """A table whose entries are grouped by value."""
    return Table("things", watch or Watch(), capacity, lifetime, group=lambda key, value: value)


# Ageing


def test_an_entry_lives_from_its_last_use() -> None:
    things = table(lifetime=10)
    things.put("a", "1", now=0)
    assert things.get("a", 9) == "1"
    assert things.get("a", 10) is None
    assert things.get("a", 9) == "1", "reading changes nothing that a later read returns"
    things.refresh("a", 9)
    assert things.get("a", 18) == "1"
    assert things.age("a", 18) == 9
    assert dict(things.items(19)) == {}
    assert len(things) == 1
    assert things.sweep(19) == 1
    assert len(things) == 0


def test_without_a_lifetime_nothing_ages() -> None:
    things = table()
    things.put("a", "1", now=0)
    assert things.get("a", NEVER - 1) == "1"
    assert things.sweep(NEVER - 1) == 0


def test_a_static_entry_neither_ages_nor_is_replaced_by_a_learned_one() -> None:
    things = table(lifetime=10)
    things.put("a", "1", now=0, static=True)
    assert things.get("a", 1000) == "1"
    things.put("a", "2", now=1000)
    assert things.get("a", 1000) == "1"
    things.put("a", "3", now=1000, static=True)
    assert things.get("a", 1000) == "3"
    assert things.delete_where(lambda key, value: True) == 0
    things.delete("a")
    assert things.get("a", 1000) is None


# Room


def test_the_oldest_of_the_largest_group_makes_room() -> None:
    things = table(capacity=4)
    for number, (key, group) in enumerate([("a", "x"), ("b", "y"), ("c", "y"), ("d", "y")]):
        things.put(key, group, now=number)
    things.put("e", "z", now=10)
    assert sorted(key for key, _ in things.items(10)) == ["a", "c", "d", "e"]
    assert things.evicted == 1
    things.refresh("c", 11)
    things.put("f", "z", now=12)
    assert sorted(key for key, _ in things.items(12)) == ["a", "c", "e", "f"], "c was used after d"


def test_static_entries_make_no_room_and_need_none() -> None:
    things = table(capacity=2)
    things.put("a", "x", now=0, static=True)
    things.put("b", "x", now=1, static=True)
    things.put("c", "x", now=2, static=True)
    assert len(things) == 3
    things.put("d", "y", now=3)
    things.put("e", "y", now=4)
    assert {key for key, _ in things.items(4)} >= {"a", "b", "c"}


def test_one_that_floods_pushes_out_only_its_own() -> None:
    things = table(capacity=64)
    for number in range(10):
        things.put(f"good-{number}", "good", now=number)
    for number in range(1000):
        things.put(f"bad-{number}", "bad", now=100 + number)
    kept = [key for key, _ in things.items(2000)]
    assert sum(key.startswith("good") for key in kept) == 10
    assert len(kept) == 64


def test_eviction_is_exact_against_a_plain_model() -> None:
    """The heap with late corrections chooses what a search over everything would choose."""
    draw = random.Random(5)
    things = table(capacity=30)
    model: dict[str, tuple[str, int]] = {}
    for now in range(1, 6000):
        key, group = f"k{draw.randrange(90)}", f"g{draw.randrange(5)}"
        what = draw.random()
        if what < 0.5:
            if key not in model and len(model) >= 30:
                sizes: dict[str, int] = {}
                for value, _ in model.values():
                    sizes[value] = sizes.get(value, 0) + 1
                largest = max(sizes.values())
                candidates = [one for one, (value, _) in model.items() if sizes[value] == largest]
                oldest = {min((one for one in candidates if model[one][0] == value), key=lambda one: model[one][1])
                          for value in {model[one][0] for one in candidates}}  # fmt: skip
                before = set(model)
                things.put(key, group, now)
                gone = before - {one for one, _ in things.items(now)}
                assert len(gone) == 1
                assert gone <= oldest, (now, gone, oldest)
                del model[gone.pop()]
            else:
                things.put(key, group, now)
            model[key] = (group, now)
        elif what < 0.8 and key in model:
            things.refresh(key, now)
            model[key] = (model[key][0], now)
        elif key in model:
            things.delete(key)
            del model[key]
        assert dict(things.items(now)) == {one: value for one, (value, _) in model.items()}


def test_a_use_that_a_dependent_knows_of_counts_before_anything_ages_or_makes_room() -> None:
    things = table(capacity=2, lifetime=10)
    things.put("a", "x", now=0)
    things.put("b", "x", now=1)
    fused = Told()
    things.attach("a", fused, refreshes=True)
    fused.used = 8
    assert things.get("a", 15) == "x"
    assert things.age("a", 15) == 7
    things.put("c", "x", now=9)
    assert sorted(key for key, _ in things.items(9)) == ["a", "c"]


# Kept aside


def test_what_a_dry_run_changes_is_thrown_away() -> None:
    things = table(lifetime=10)
    things.put("a", "1", now=0)
    things.put("b", "2", now=0)
    told = Told()
    things.attach("a", told)
    things.begin_overlay()
    things.put("a", "9", now=5)
    things.put("c", "3", now=5)
    things.delete("b")
    things.refresh("b", 9)
    assert (things.get("a", 5), things.get("b", 5), things.get("c", 5)) == ("9", None, "3")
    things.end_overlay()
    assert (things.get("a", 5), things.get("b", 5), things.get("c", 5)) == ("1", "2", None)
    assert things.get("b", 10) is None, "not even a use is left of it"
    assert told.why == []


def test_counters_are_kept_aside_too() -> None:
    counter = Counter("id", start=65535)
    counter.begin_overlay()
    Advance(counter, 3).apply(0)
    assert counter.peek() == 2
    counter.end_overlay()
    assert (counter.peek(), counter.peek(1)) == (65535, 0)
    Advance(counter).apply(0)
    assert counter.value == 0


# Who is told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda things: things.put("a", "2", 5), ["things changed"]),
        (lambda things: things.put("a", "1", 5), []),
        (lambda things: things.refresh("a", 5), []),
        (lambda things: things.delete("a"), ["things removed"]),
        (lambda things: things.put("other", "1", 5), []),
        (lambda things: things.put("a", "1", 50), ["things changed"]),
        (lambda things: things.sweep(50), ["things removed"]),
        (lambda things: things.changed("a", "mended"), ["things mended"]),
    ],
)
def test_a_dependent_is_told_of_changes_and_of_nothing_else(change: object, told: list[str]) -> None:
    things = table(lifetime=10)
    things.put("a", "1", now=0)
    dependent = Told()
    things.attach("a", dependent)
    change(things)  # type: ignore[operator]
    assert dependent.why == told


def test_a_dependent_on_an_absence_is_told_when_something_appears() -> None:
    things = table()
    dependent, gone = Told(), Told()
    things.attach("a", dependent)
    things.attach("a", gone)
    things.detach("a", gone)
    things.put("a", "1", now=0)
    assert dependent.why == ["things entered"]
    assert gone.why == []
    things.put("a", "2", now=0)
    assert dependent.why == ["things entered"], "it was told once and is forgotten"


def test_a_dependent_is_told_when_its_entry_makes_room() -> None:
    things = table(capacity=1)
    things.put("a", "x", now=0)
    dependent = Told()
    things.attach("a", dependent)
    things.put("b", "x", now=1)
    assert dependent.why == ["things removed"]


def test_what_was_read_is_noted_while_a_walk_is_recorded() -> None:
    watch = Watch()
    things = table(lifetime=10, watch=watch)
    things.put("a", "1", now=0)
    things.put("s", "1", now=0, static=True)
    things.get("a", 5)
    watch.leaned = []
    things.get("a", 5)
    things.get("b", 5)
    things.get("s", 5)
    things.lean("x", 77)
    assert [(key, deadline, ages) for _, key, deadline, ages in watch.leaned] == [
        ("a", 10, True), ("b", NEVER, True), ("s", NEVER, True), ("x", 77, False),
    ]  # fmt: skip


def test_effects_do_what_they_say() -> None:
    things = table(lifetime=10)
    Put(things, "a", "1").apply(0)
    Refresh(things, "a").apply(7)
    assert things.get("a", 16) == "1"
    Delete(things, "a").apply(16)
    assert things.get("a", 16) is None
    Refresh(things, "a").apply(17)
    Delete(things, "a").apply(17)
    assert len(things) == 0
