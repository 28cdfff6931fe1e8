"""Amounts of resources as Kubernetes writes them: `500m`, `64Mi`, `2e9`.

Rule of this file: exact numbers; what an amount is of, others know.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

QUANTITY = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?")

MACHINE = {"cpu": "4", "memory": "8Gi", "ephemeral-storage": "16Gi"}
"""What every host says that it has; a container without a limit may have all of it."""

_SCALES = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def amount(quantity: str) -> Decimal:
    """What a sound quantity is in units: `500m` is a half."""
    number, unit = re.fullmatch(r"([+-]?[0-9.]+)(.*)", quantity).groups()  # type: ignore[union-attr]
    if unit[:1] in ("e", "E") and unit[1:]:
        return Decimal(number).scaleb(int(unit[1:]))
    if unit.endswith("i"):
        return Decimal(number) * Decimal(1024) ** (1 + "KMGTPE".index(unit[0]))
    return Decimal(number).scaleb(_SCALES[unit])


def whole(quantity: str, divisor: str) -> int:
    """How many divisors a quantity is, rounded up: what a program is told. Without a divisor in units."""
    unit = amount(divisor) if QUANTITY.fullmatch(divisor) else Decimal(0)
    return math.ceil(amount(quantity) / (unit or 1))
