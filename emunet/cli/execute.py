"""`emunet exec`: a program of the caller's own, run in a pod or on a host.

Rule of this file: exit code, terminal and signals are the program's; only what keeps it
from starting is said here.
"""

from __future__ import annotations

import click

from emunet.cli.options import lab_option, the_lab
from emunet.daemon.client import LabError


class Exec(click.Command):
    """Before `--` options are ours; without `--` all that follows the name is the program's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Tell click which of the two it is."""
        ctx.allow_interspersed_args = "--" in args
        return super().parse_args(ctx, args)


@click.command("exec", cls=Exec)
@click.argument("name", metavar="POD")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@click.option("-c", "container", metavar="CONTAINER", help="See this container's processes and files.")
@click.option("--isolated", is_flag=True, help="See the pod's own files instead of this machine's.")
@lab_option
def execute(name: str, command: tuple[str, ...], container: str | None, isolated: bool, lab: str | None) -> None:
    """Join a pod and run a program of this machine there; `host1` is the host itself.

    \b
    emunet exec web-1 -- ping -c 3 web-3
    emunet exec host1 -- ip route
    emunet exec web-1 -- bash
    """  # noqa: D301 - click knows the character by this escape
    from emunet.linux.join import CannotJoin, run_in_sandbox

    where = the_lab(lab).get("sandboxes", name)
    view: str | None = "isolated" if isolated else "shared"
    if container is not None:
        known = {one["name"]: one for one in where["containers"]}
        if container not in known:
            raise LabError(f"{name} has no container {container}; it has: {', '.join(known) or 'none'}")
        where = where | known[container]  # one that runs no program of its own is the pod itself
        view = None if "pid" in known[container] else "isolated"
    try:
        code = run_in_sandbox(where["pid"], command, start_time=where["start_time"], view=view)
    except CannotJoin as error:
        raise LabError(str(error)) from None
    click.get_current_context().exit(code)
