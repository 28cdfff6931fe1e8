"""Quantities as people write them: rows, the way back, and what is refused with which words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emunet.packet.quantity import (
    LONGEST,
    format_duration,
    format_rate,
    format_share,
    parse_count,
    parse_duration,
    parse_rate,
    parse_share,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [("20ms", 20_000_000), ("1.5s", 1_500_000_000), ("300us", 300_000), ("7ns", 7), ("2m", 120 * 10**9),
     ("1h", 3600 * 10**9), (" 5 MS ", 5_000_000), ("0", 0), (0, 0), ("off", 0), (".5ms", 500_000)],
)  # fmt: skip
def test_durations(text: object, value: int) -> None:
    assert parse_duration(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1%", 0.01),
        ("0.01", 0.01),
        (0.5, 0.5),
        (0.00001, 1e-5),
        ("100%", 1.0),
        (1, 1.0),
        ("0.1%", 0.001),
        ("none", 0.0),
    ],
)
def test_shares(text: object, value: float) -> None:
    assert parse_share(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("10mbit", 10_000_000), ("1.5Gbit/s", 1_500_000_000), ("64kbit", 64_000), ("9600bit", 9600), ("off", 0)],
)
def test_rates(text: object, value: int) -> None:
    assert parse_rate(text) == value


@pytest.mark.parametrize(
    ("parse", "text", "said"),
    [
        (parse_duration, "20", "a time with its unit, like 20ms or 20s"),
        (parse_duration, "-1ms", "a time like 20ms"),
        (parse_duration, "1e3ms", "a time like 20ms"),
        (parse_duration, True, "a time like 20ms"),
        (parse_share, float("nan"), "a share like"),
        (parse_duration, "400000h", "less than a year"),
        (parse_duration, None, None),
        (parse_share, "5", "did you mean 5%?"),
        (parse_share, "101%", "at most 100%"),
        (parse_share, "1ms", "a share like 1% or 0.01"),
        (parse_rate, "10mbps", "in bits, like 10mbit"),
        (parse_rate, "10", "with its unit, like 10mbit"),
        (parse_rate, "0.1bit", "at least 1bit"),
        (parse_rate, [], "a rate like 10mbit"),
    ],
)
def test_what_is_refused(parse: object, text: object, said: str | None) -> None:
    if said is None:
        assert parse(text) == 0
        return
    with pytest.raises(ValueError, match=said.replace("?", r"\?")):
        parse(text)


def test_counts() -> None:
    assert parse_count("12", 0, 20) == 12
    for wrong in ("21", "-1", "x", True, "1.0", "٣"):
        with pytest.raises(ValueError, match="a whole number of frames from 0 to 20"):
            parse_count(wrong, 0, 20, "frames")


@given(st.integers(0, LONGEST))
def test_a_duration_comes_back(nanoseconds: int) -> None:
    assert parse_duration(format_duration(nanoseconds)) == nanoseconds


@given(st.floats(1e-12, 1) | st.just(0.0))
def test_a_share_comes_back(share: float) -> None:
    assert parse_share(format_share(share)) == pytest.approx(share, rel=1e-12)


@given(st.integers(1, 10**12))
def test_a_rate_comes_back(rate: int) -> None:
    assert parse_rate(format_rate(rate)) == rate
