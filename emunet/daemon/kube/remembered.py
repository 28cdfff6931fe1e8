"""Lists as they were answered last, as bytes: who lists a thousand pods again while nothing changed is sent the same.

Writing such a list takes the control process 8 ms, in which it keeps a processor from everybody else on a machine with
few; sending it takes 1 or 2.

Rule of this file: what is remembered is of one version of the store, and the first change of anything forgets it.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

from emunet.cluster.store import Store

LISTS = 8
"""Lists that are remembered at most, those asked for first forgotten first."""

_known: WeakKeyDictionary[Store, tuple[int, dict[str, bytes]]] = WeakKeyDictionary()


def remembered(store: Store, asked: str, write: Callable[[], bytes]) -> bytes:
    """The answer to a request for a list, written by `write` where it is not known."""
    version, lists = _known.get(store, (-1, {}))
    if version != store.version:
        lists = {}
        _known[store] = (store.version, lists)
    found = lists.get(asked)
    if found is None:
        found = write()
        if len(lists) >= LISTS:
            del lists[next(iter(lists))]
        lists[asked] = found
    return found
