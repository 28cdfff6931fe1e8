"""`python -m tests.pages PAGE... [--write]`: run pages, and put what was printed into them."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.pages.page import Page
from tests.pages.runner import run


def main() -> int:
    """The exit code: 1 where a page says something else."""
    write = "--write" in sys.argv
    faults = []
    for name in (one for one in sys.argv[1:] if not one.startswith("--")):
        with tempfile.TemporaryDirectory(prefix="emunet-page-") as folder:
            faults += run(Page.read(Path(name)), Path(folder) / "page", write=write)
    print("\n".join(faults))
    return 1 if faults and not write else 0


if __name__ == "__main__":
    sys.exit(main())
