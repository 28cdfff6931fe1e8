"""What a person asks of `emunet up`, as one value that travels to the control process.

Rule of this file: values only, checked where they were typed (`cli`), not here.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

Wires = Literal["auto", "tap", "memory"]


@dataclass(frozen=True, slots=True)
class CaptureWish:
    """Write what passes these ports and the filter to a file, from the first frame on. Its name is absolute."""

    ports: tuple[str, ...]
    file: str
    filter: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a lab is to be made.

    `files` are named as the person named them, so that errors do too, relative to `directory`.
    `lab` is empty where the topology's own name serves. `speed` is lab seconds per second, on
    memory wires. `internet`: a way out, through a program of the machine (`linux.way_out`).
    """

    files: tuple[str, ...]
    directory: str
    lab: str = ""
    wires: Wires = "auto"
    captures: tuple[CaptureWish, ...] = ()
    record: str = ""
    seed: int = 0
    speed: float = 1.0
    flow_cache: bool = True
    offload: bool = True
    internet: bool = False

    def encode(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> Settings:
        """What `encode` wrote."""
        data = json.loads(text)
        captures = tuple(
            CaptureWish(tuple(wish["ports"]), wish["file"], wish["filter"]) for wish in data.pop("captures")
        )
        return cls(**(data | {"files": tuple(data["files"]), "captures": captures}))
