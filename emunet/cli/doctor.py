"""`emunet doctor`: what this machine allows, and how to allow the rest.

Rule of this file: it ends with code 1 where labs on TAP wires are not possible.
"""

from __future__ import annotations

import click

from emunet.cli.options import output_option, print_json


@click.command()
@output_option
def doctor(output: str) -> None:
    """Say what this machine allows, and how to allow the rest."""
    from dataclasses import asdict

    from emunet.linux.doctor import examine

    findings = examine()
    missing = [finding for finding in findings if finding.needed and not finding.ok]
    if output == "json":
        print_json({"tap": not missing, "findings": [asdict(finding) for finding in findings]})
    else:
        from rich.text import Text

        from emunet.cli.render import console

        out = console()
        for finding in findings:
            mark = ("✓", "green") if finding.ok else ("✗", "bold red") if finding.needed else ("-", "yellow")
            out.print(Text.assemble(mark, " ", (finding.name, "bold"), f"  {finding.detail}"), soft_wrap=True)
            if finding.cure:
                out.print(Text(f"    {finding.cure}", "cyan"), soft_wrap=True)
        if missing:
            out.print(Text("No TAP wires here: `emunet up` uses memory wires.", "bold yellow"))
        else:
            out.print(Text("TAP wires work here: pods are real network namespaces.", "bold green"))
    if missing:
        click.get_current_context().exit(1)
