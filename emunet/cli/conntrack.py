"""`emunet conntrack`: the connections that hosts remember, a line each, as `conntrack -L` prints them.

Rule of this file: a line is the lab's own; `-o json` takes it apart and adds nothing.
"""

from __future__ import annotations

from typing import Any

import click

from emunet.cli.options import lab_option, output_option, print_json, the_lab

TABLE = "connections"


@click.command()
@click.argument("host", required=False, metavar="[HOST]")
@lab_option
@output_option
def conntrack(host: str | None, lab: str | None, output: str) -> None:
    """Connections that hosts remember, and how they translate them.

    Each line has the protocol, the seconds that remain, the state of TCP, the addresses of the first packet, and
    those that answers have before they are translated back. Hosts track connections from the first Service,
    NetworkPolicy or container on, and where the topology says `masquerade`, `publish` or `networkPolicy`.
    """
    client = the_lab(lab)
    hosts = [host] if host is not None else [row["name"] for row in client.get("status")["hosts"]]
    lines = {name: [row[1] for row in client.get("tables", name).get(TABLE, [])] for name in hosts}
    if output == "json":
        print_json([{"host": name, **parsed(line)} for name, rows in lines.items() for line in rows])
        return
    for name, rows in lines.items():
        if len(hosts) > 1:
            click.echo(f"{name}: {len(rows)} connection{'' if len(rows) == 1 else 's'}")
        for line in rows:
            click.echo(line)
    if host is not None and not lines[host]:
        click.echo(f"{host} remembers no connection", err=True)


def parsed(line: str) -> dict[str, Any]:
    """A line as a mapping: protocol, seconds, state, flags, and the two flows by their own words."""
    words = line.split()
    pairs = [word.partition("=") for word in words if "=" in word]
    half = len(pairs) // 2
    flows = [{name: _value(name, value) for name, _, value in part} for part in (pairs[:half], pairs[half:])]
    plain = [word for word in words[3:] if "=" not in word and not word.startswith("[")]
    return {
        "protocol": words[0] if words[0] != "unknown" else words[1],
        "seconds": int(words[2]),
        "state": plain[0] if plain else None,
        "original": flows[0],
        "reply": flows[1],
        "seen_reply": "[UNREPLIED]" not in words,
        "assured": "[ASSURED]" in words,
    }


def _value(name: str, value: str) -> str | int:
    return value if name in ("src", "dst") else int(value)
