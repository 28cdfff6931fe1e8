"""YAML text becomes documents with places, or every fault with its line and column."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emunet.cluster import load
from emunet.cluster.load import BadInput, Document, Problem, load_files, load_text


def faults(text: str) -> list[str]:
    """What is said of a text, one sentence a line; empty if it loads."""
    try:
        load_text(text, "lab.yaml")
    except BadInput as error:
        return str(error).splitlines()
    return []


FAULTS = {
    "syntax": ("a: b: c\n", ["lab.yaml:1:5: cannot be read as YAML: mapping values are not allowed in this context"]),
    "a list left open": (
        "a: 1\nb: [1,\n",
        ["lab.yaml:3:1: cannot be read as YAML: did not find expected node content"],
    ),
    "a tab": (
        "a:\n\t- 1\n",
        ["lab.yaml:2:1: cannot be read as YAML: found character that cannot start any token"],
    ),
    "an alias of nothing": ("a: *x\n", ["lab.yaml:1:4: cannot be read as YAML: found undefined alias"]),
    "the second document": (
        "a: 1\n---\nb: 'x\n",
        [
            "lab.yaml:4:1: cannot be read as YAML: found unexpected end of stream"
            " (while scanning a quoted scalar, from line 3 on)"
        ],
    ),
    "a key twice": (
        "a:\n  name: x\n  name: y\n",
        ["lab.yaml:3:3: a.name: the key 'name' is given twice (first on line 2)"],
    ),
    "two keys twice": (
        "a: 1\na: 2\n---\nb: {c: 1, c: 2}\n",
        [
            "lab.yaml:2:1: a: the key 'a' is given twice (first on line 1)",
            "lab.yaml:4:11: b.c: the key 'c' is given twice (first on line 4)",
        ],
    ),
    "a number as key": ("a: {1: x}\n", ["lab.yaml:1:5: a: expected text as a key (got 1); put it in quotes"]),
    "true is not 1": (
        "1: a\ntrue: b\n",
        [
            "lab.yaml:1:1: expected text as a key (got 1); put it in quotes",
            "lab.yaml:2:1: expected text as a key (got true); put it in quotes",
        ],
    ),
    "a list as key": (
        "? [a]\n: b\n",
        ["lab.yaml:1:3: expected text as a key (got a list or a mapping); put it in quotes"],
    ),
    "a merge key": (
        "a: &x {b: 1}\nc:\n  <<: *x\n",
        ["lab.yaml:3:3: c: a merge key (<<) is not YAML 1.2; write the keys out"],
    ),
    "empty": ("", ["lab.yaml:1:1: expected a Topology or Kubernetes objects (the file is empty)"]),
    "comments only": ("# nothing\n", ["lab.yaml:1:1: expected a Topology or Kubernetes objects (the file is empty)"]),
    "separators only": ("---\n---\n", ["lab.yaml:1:1: expected a Topology or Kubernetes objects (the file is empty)"]),
    "a list": ("- a\n", ["lab.yaml:1:1: expected a mapping with apiVersion and kind (got a list)"]),
    "a word": ("a: 1\n---\nword\n", ["lab.yaml:3:1: expected a mapping with apiVersion and kind (got 'word')"]),
    "a tag that runs code": (
        "a: !!python/object:os.system x\n",
        ["lab.yaml:1:4: a: expected plain YAML (got the tag !!python/object:os.system)"],
    ),
    "a tag on a list": ("a: !!set [x]\n", ["lab.yaml:1:4: a: expected plain YAML (got the tag !!set)"]),
    "a tag that does not fit": ("a: !!int x\n", ["lab.yaml:1:4: a: expected a value of the tag !!int (got 'x')"]),
    "a flag that is none": ("a: !!bool x\n", ["lab.yaml:1:4: a: expected a value of the tag !!bool (got 'x')"]),
    "a number without end": (
        f"a: {'9' * 5000}\n",
        [f"lab.yaml:1:4: a: expected a value of the tag !!int (got '{'9' * 57}...')"],
    ),
    "a part of itself": (
        "a: &x\n  - 1\n  - *x\n",
        ["lab.yaml:1:4: a[1]: this alias (*) stands for something that it is itself a part of"],
    ),
    "a control character": ("a: x\nb: \x07\n", ["lab.yaml:2:4: expected text (got the control character U+0007)"]),
    "nesting": (
        "a: " + "[" * 120 + "]" * 120 + "\n",
        ["lab.yaml:1:104: a: expected at most 100 levels of nesting"],
    ),
    "nesting beyond libyaml": (
        "[" * 20000,
        ["lab.yaml:1:1001: cannot be read as YAML: exceeded maximum nesting depth"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_said_with_its_place(name: str) -> None:
    text, expected = FAULTS[name]
    assert faults(text) == expected


def test_aliases_cannot_stand_for_billions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "MAXIMUM_VALUES", 1000)
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert [line.partition(": ")[2].partition(": ")[2] for line in faults("\n".join(lines))] == [
        "expected at most 1,000 values in a document, aliases written out"
    ]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("52:54:00:12:34:56", "52:54:00:12:34:56"),  # 41135085296 in YAML 1.1
        ("02:00:00:00:00:01", "02:00:00:00:00:01"),
        ("12:30", "12:30"),
        ("no", "no"),
        ("on", "on"),
        ("y", "y"),
        ("2024-01-01", "2024-01-01"),
        ("fe80::1", "fe80::1"),
        ("1_000", "1_000"),
        ("010", 10),
        ("0x10", 16),
        ("1e3", 1000.0),
        ("true", True),
        ("~", None),
        ("'80'", "80"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(written: str, value: object) -> None:
    (document,) = load_text(f"a: {written}\n")
    assert document.data["a"] == value
    assert type(document.data["a"]) is type(value)


def test_places_count_from_one_and_a_missing_value_is_at_its_parent() -> None:
    (document,) = load_text("---\na:\n  - {b: 1, c: 'ü'}\n")
    assert document.place(("a", 0, "c")) == (3, 15)
    assert document.place(("a", 0, "c"), key=True) == (3, 12)
    assert document.place(("a", 0, "d", "e")) == (3, 5)
    assert document.place(("nothing",)) == (2, 1)
    assert document.spelling(("a", 0), "d", "c") == ("a", 0, "c")
    assert document.spelling(("a", 0), "d", "e") == ("a", 0, "d")


def test_an_aliased_value_has_both_places() -> None:
    (document,) = load_text("a: &x {b: 1}\nc: *x\n")
    assert document.data == {"a": {"b": 1}, "c": {"b": 1}}
    assert document.data["a"] is not document.data["c"]
    assert document.place(("c", "b")) == (1, 11)


def test_empty_documents_are_passed_over_and_a_byte_order_mark_is_no_text() -> None:
    assert [document.data for document in load_text("\ufeff---\n---\na: 1\n---\n# no\n---\nb: 2\n")] == [
        {"a": 1},
        {"b": 2},
    ]


def test_a_path_is_written_as_kubernetes_writes_it() -> None:
    problem = Document("f", {}, {(): load.START}, {}).problem(("a", "b-c", 0, "emunet/ip"), "no")
    assert str(problem) == "f:1:1: a.b-c[0][emunet/ip]: no"


def test_problems_are_sorted_and_said_once() -> None:
    one, two = Problem("f", 2, 1, "", "later"), Problem("f", 1, 9, "x", "sooner")
    error = BadInput([one, two, one])
    assert error.problems == [two, one]
    assert str(error) == "f:1:9: x: sooner\nf:2:1: later"


def test_several_files_tell_all_their_faults(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: 1\na: 2\n")
    (tmp_path / "b.yaml").write_bytes(b"a: 1\nb: \xff\n")
    (tmp_path / "d.yaml").write_text("ok: 1\n")
    names = [str(tmp_path / name) for name in ("a.yaml", "b.yaml", "c.yaml", "d.yaml")]
    with pytest.raises(BadInput) as error:
        load_files(names)
    assert str(error.value).replace(str(tmp_path), "") == (
        "/a.yaml:2:1: a: the key 'a' is given twice (first on line 1)\n"
        "/b.yaml:2:4: expected UTF-8 text (got other bytes)\n"
        "/c.yaml:1:1: cannot read this file: No such file or directory"
    )
    assert [document.data for document in load_files([names[3], tmp_path / "d.yaml"])] == [{"ok": 1}, {"ok": 1}]


@given(st.text() | st.text(alphabet=" \n\t-:[]{},&*!|>'\"#%@`?ab1<~"))
@example("\ud800")
@example("a: !!float x")
@example("%YAML 3.0\n---\na: 1")
@example("? !!null x\n: 1")
@example("!!str {a: b}")
def test_no_text_makes_it_raise_anything_else(text: str) -> None:
    documents: tuple[Document, ...] = ()
    problems: list[Problem] = []
    try:
        documents = load_text(text)
    except BadInput as error:
        problems = error.problems
    assert bool(documents) != bool(problems)
    assert all(problem.line >= 1 and problem.column >= 1 for problem in problems)
    assert all(isinstance(document.data, dict) for document in documents)
