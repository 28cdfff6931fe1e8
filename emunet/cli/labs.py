"""`emunet labs`: which labs are running, and which have ended by themselves.

Rule of this file: a lab that does not answer is listed as what it is, and fails nothing.
"""

from __future__ import annotations

from typing import Any

import click

from emunet.cli.options import output_option, print_json
from emunet.daemon.client import LabClient, LabError
from emunet.daemon.folder import FolderError, RunFolder, folders


@click.command()
@output_option
def labs(output: str) -> None:
    """List the labs of this user."""
    try:
        rows = [_describe(folder) for folder in folders()]
    except FolderError as error:
        raise LabError(str(error)) from None
    if output == "json":
        print_json(rows)
        return
    if not rows:
        click.echo("no lab is running: `emunet up` starts one")
        return
    from emunet.cli.render import console, table

    shown = table("lab", "state", "wires", "hosts", "pods", "pid", right=("hosts", "pods", "pid"))
    for row in rows:
        shown.add_row(*["" if row[key] is None else str(row[key]) for key in ("lab", "state", "wires")],
                      *["" if row[key] is None else str(row[key]) for key in ("hosts", "pods", "pid")])  # fmt: skip
    console().print(shown)


def _describe(folder: RunFolder) -> dict[str, Any]:
    row: dict[str, Any] = {"lab": folder.name, "wires": None, "hosts": None, "pods": None, "pid": None}
    if not folder.is_held():
        return row | {"state": "ended" if folder.log.exists() and folder.log.stat().st_size else "killed"}
    try:
        status = LabClient(folder).ask("GET", ("status",), timeout=5.0)
    except LabError:
        return row | {"state": "beginning or ending"}
    counts = {"hosts": len(status["hosts"]), "pods": len(status["pods"])}
    return row | {"state": "running", "wires": status["wires"], "pid": status["pid"]} | counts
