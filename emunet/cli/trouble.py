"""`emunet host`, `partition`, `freeze`, `dns` and `exhaust`: failures, one command each.

Rule of this file: each says what is so afterwards; without a change it says what is so now.
"""

from __future__ import annotations

from typing import Any

import click

from emunet.cli.options import lab_option, output_option, print_json, the_lab


@click.command()
@click.argument("name", required=False, metavar="[HOST]")
@click.option("--on/--off", "on", default=None, help="Give it its power back, or take it away.")
@lab_option
@output_option
def host(name: str | None, on: bool | None, lab: str | None, output: str) -> None:
    """Take a host's (or a switch's) power away, or give it back; without a change, list what has power.

    What it held and had learned is lost, and so are the programs of its pods. With its power a host starts
    anew the programs that its pods' containers name.

    \b
    emunet host host1 --off
    emunet host host1 --on
    """  # noqa: D301 - click knows the character by this escape
    client = the_lab(lab)
    if on is not None:
        if name is None:
            raise click.UsageError("which HOST? `emunet host` lists them")
        done = client.put("devices", name, on=on)
        for warning in done.get("warnings", []):
            click.echo(f"warning: {warning}", err=True)
    powered: dict[str, bool] = client.get("trouble")["powered"]
    if name is not None and name not in powered:
        raise click.ClickException(f"there is no host or switch {name}; there are: {', '.join(powered)}")
    shown = powered if name is None else {name: powered[name]}
    if output == "json":
        print_json([{"name": device, "on": state} for device, state in shown.items()])
        return
    from rich.text import Text

    from emunet.cli.render import console, table

    rows = table("device", "power")
    for device, state in shown.items():
        rows.add_row(device, Text("on", "green") if state else Text("off", "bold red"))
    console().print(rows)


@click.command()
@click.argument("groups", nargs=-1, metavar="[HOST[,HOST]...]...")
@click.option("--heal", is_flag=True, help="Let all hear all again.")
@lab_option
@output_option
def partition(groups: tuple[str, ...], heal: bool, lab: str | None, output: str) -> None:
    """Part the hosts into groups that do not hear each other; those that are not named are a group together.

    \b
    emunet partition host1              host1 against the rest
    emunet partition host1,host2 host3  two against one, and the rest by themselves
    emunet partition --heal
    """  # noqa: D301 - click knows the character by this escape
    if heal and groups:
        raise click.UsageError("--heal ends every partition: leave the hosts out")
    client = the_lab(lab)
    if heal or groups:
        wanted = [[name for name in group.split(",") if name] for group in groups]
        client.put("partition", groups=wanted)
    parted = client.get("trouble")["groups"]
    if output == "json":
        print_json({"groups": parted})
    elif parted:
        click.echo(f"{' | '.join(', '.join(group) for group in parted)} | the rest")
    else:
        click.echo("all hosts hear all others")


@click.command()
@click.option("--on/--off", "on", default=None, help="Let the name servers begin again, or end them.")
@lab_option
@output_option
def dns(on: bool | None, lab: str | None, output: str) -> None:
    """End the cluster's name servers, or let them begin again; without a change, say whether they answer.

    Their pods stay. On TAP wires the processes are killed, and the pods are not ready until they begin again.

    \b
    emunet dns --off
    emunet dns --on
    """  # noqa: D301 - click knows the character by this escape
    client = the_lab(lab)
    if on is not None:
        client.put("dns", on=on)
    answers = client.get("trouble")["dns"]
    if output == "json":
        print_json({"on": answers})
    else:
        click.echo(f"the cluster's name servers {'may answer' if answers else 'are off'}")


@click.command()
@click.argument("pod", required=False, metavar="[POD]")
@click.option("--thaw", is_flag=True, help="Let it go on.")
@lab_option
@output_option
def freeze(pod: str | None, thaw: bool, lab: str | None, output: str) -> None:
    """Stop a pod in its tracks, or let it go on; without a name, list those that are frozen.

    On TAP wires its processes are stopped; its kernel still answers ARP, echo and handshakes, as for any program
    that hangs. On memory wires its stack is what stops: what comes waits until it is thawed.

    \b
    emunet freeze web-3
    emunet freeze web-3 --thaw
    """  # noqa: D301 - click knows the character by this escape
    client = the_lab(lab)
    done: dict[str, Any] = {}
    if pod is not None:
        done = client.put("pods", pod, frozen=not thaw)
    elif thaw:
        raise click.UsageError("thaw which POD? `emunet freeze` lists those that are frozen")
    frozen = client.get("trouble")["frozen"]
    if output == "json":
        print_json({"frozen": frozen, **done})
    elif pod is not None:
        number = done.get("processes")
        told = f", {number} process{'' if number == 1 else 'es'}" if number is not None else ""
        click.echo(f"{pod} {'goes on' if thaw else 'is frozen'}{told}")
    else:
        click.echo("\n".join(frozen) if frozen else "no pod is frozen")


@click.command()
@click.argument("device")
@click.argument("table", required=False)
@click.option("--to", "capacity", type=click.IntRange(min=1), metavar="N", help="Hold N entries at most from now on.")
@lab_option
@output_option
def exhaust(device: str, table: str | None, capacity: int | None, lab: str | None, output: str) -> None:
    """Let a table of a device be full: it holds no more than it holds now, or N; without TABLE, list its tables.

    What the device then does is its own affair: a bridge gives up the oldest stations, connection tracking
    refuses new connections.

    \b
    emunet exhaust host1
    emunet exhaust host1 connections
    emunet exhaust switch1 'bridge stations' --to 2
    emunet exhaust host1 connections --to 65536
    """  # noqa: D301 - click knows the character by this escape
    client = the_lab(lab)
    if table is None:
        if capacity is not None:
            raise click.UsageError(f"which TABLE? `emunet exhaust {device}` lists them")
        sizes = {name: len(rows) for name, rows in client.get("tables", device).items()}
        if output == "json":
            print_json(sizes)
        else:
            click.echo("\n".join(f"{name}: {size} entries" for name, size in sizes.items()))
        return
    done = client.ask("PUT", ("tables", device, table), {} if capacity is None else {"capacity": capacity})
    if output == "json":
        print_json(done)
        return
    gone = f"; {done['gone']} had to go" if done["gone"] else ""
    click.echo(f"{device}: {table} holds {done['entries']} of {done['capacity']} entries{gone}")
