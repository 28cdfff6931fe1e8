"""Pass-throughs: what each element is replaced by when a rule's test is put to the test.

A rule counts only if its test fails when the element that it is about does nothing. `forwarding`
has those of the data plane, `cluster` those of names, objects and engines.

Rule of this file: it changes classes and modules for the time of one test and leaves no trace.
A function that a test imported by name keeps its old self there: such a test asks the module for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from tests.rules.cluster import CLUSTER
from tests.rules.forwarding import FORWARDING, PassThroughs

PASS_THROUGHS: PassThroughs = FORWARDING | CLUSTER


@contextmanager
def passed_through(element: str) -> Iterator[None]:
    """Within it, every element of that name is a pass-through. KeyError for a name that there is none for."""
    patches = [mock.patch.object(target, name, instead) for target, name, instead in PASS_THROUGHS[element]]
    started = []
    try:
        for patch in patches:
            patch.start()
            started.append(patch)
        yield
    finally:
        for patch in reversed(started):
            patch.stop()
