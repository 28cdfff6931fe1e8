"""Every fault that a topology or a manifest can have, with the exact sentence that it gets.

The rows are in faults/*.txt: a name, the text, and after `--- says` what is said of it,
one problem a line. A row is a whole text, so that its lines and columns can be counted.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from emunet.cluster.build import build
from emunet.cluster.load import BadInput, load_text

FOLDER = Path(__file__).parent / "faults"


def rows() -> list[tuple[str, str, list[str]]]:
    """(name, text, problems) of every row."""
    found = []
    for path in sorted(FOLDER.glob("*.txt")):
        for row in path.read_text().split("=== ")[1:]:
            name, _, rest = row.partition("\n")
            text, says, problems = rest.partition("--- says\n")
            assert says, f"{path.name}: {name} has no line `--- says`"
            found.append((f"{path.stem}: {name}", text, problems.splitlines()))
    return found


ROWS = rows()


@pytest.mark.parametrize(("text", "problems"), [pytest.param(text, said, id=name) for name, text, said in ROWS])
def test_the_fault_is_said_in_these_words_at_this_place(text: str, problems: list[str]) -> None:
    with pytest.raises(BadInput) as error:
        build(load_text(text, "lab.yaml"))
    assert str(error.value).splitlines() == [line for line in problems if line]


def test_no_row_is_lost() -> None:
    names = [name for name, _, _ in ROWS]
    assert len(set(names)) == len(names)
    assert {name.split(":")[0] for name in names} == {
        "balancers",
        "fields",
        "hosts",
        "links",
        "pods",
        "publish",
        "ranges",
    }


def test_a_message_never_speaks_of_the_machinery_behind_it() -> None:
    said = "\n".join(line for _, _, problems in ROWS for line in problems)
    for word in ("pydantic", "Input should", "Value error", "dict", "instance of", "str type", "None"):
        assert word not in said
