"""`emunet status`: hosts, pods, and what became of every frame.

Rule of this file: `-o json` is the lab's own answer, unchanged.
"""

from __future__ import annotations

from typing import Any

import click

from emunet.cli.options import lab_option, output_option, print_json, the_lab


@click.command()
@lab_option
@output_option
def status(lab: str | None, output: str) -> None:
    """Show hosts, pods and frame counters."""
    answer = the_lab(lab).get("status")
    if output == "json":
        print_json(answer)
        return
    from emunet.cli.render import console

    out = console()
    show_lab(out, answer)
    out.print()
    show_frames(out, answer["frames"])
    show_faults(out, answer["lab"], answer["faults"])
    if answer["captures"]:
        out.print()
        show_captures(out, answer["captures"])


def show_lab(out: Any, answer: dict[str, Any]) -> None:
    """The lab's line, its hosts and its pods."""
    from rich.text import Text

    from emunet.cli.render import ready_mark, table

    speed = f", {answer['speed']:g} times as fast" if answer["speed"] != 1.0 else ""
    late = answer["timing"] != "on time"
    out.print(
        Text.assemble(
            (answer["lab"], "bold"),
            f" on {answer['wires']} wires{speed}, seed {answer['seed']}, process {answer['pid']}, ",
            (answer["timing"], "yellow" if late else "green"),
        )
    )
    if answer["internet"] is not None:
        out.print(way_out(answer["internet"]), soft_wrap=True)
    out.print()
    hosts = table("host", "address", "pods", "state", right=("pods",))
    for host in answer["hosts"]:
        pods = sum(pod["host"] == host["name"] for pod in answer["pods"])
        hosts.add_row(host["name"], " ".join(host["ips"]), str(pods), ready_mark(host["ready"]))
    out.print(hosts)
    out.print()
    pods_table = table("pod", "host", "address", "MAC", "state", prose="state")
    for pod in answer["pods"]:
        name = pod["name"] if pod["namespace"] == "default" else f"{pod['namespace']}/{pod['name']}"
        state = ready_mark(pod["ready"])
        for container in pod.get("containers", []):
            if not container["running"]:
                ended = container["failure"] or f"ended with code {container['exit_code']}"
                state.append(f", its container {container['name']}: {ended}")
        pods_table.add_row(name, pod["host"], " ".join(pod["ips"]), pod["mac"] or "its host's", state)
    out.print(pods_table)
    if answer["containers"]:
        out.print()
        containers = table("container", "host", "address", "MAC")
        for one in answer["containers"]:
            containers.add_row(one["name"], one["host"], " ".join(one["ips"]), one["mac"])
        out.print(containers)


def way_out(found: dict[str, Any]) -> Any:
    """How pods get out of the lab, as a line."""
    from rich.text import Text

    if not found["ready"]:
        return Text(f"The way to the outside is closed: {found['reason']}. It is begun again, ever less often.", "red")
    names = f"names from {found['resolver']}" if found["resolver"] else "no names: its resolver is out of reach"
    families, by = ", IPv4 alone", found["gateway"]
    if found["gateway_ipv6"] is not None:
        families, by = "", f"{by}, {found['gateway_ipv6']}"
    text = f"Open to the outside{families}: by {by} and {found['program']} to all that this machine reaches"
    before = f" It was closed {_times(found['ended'])}: {found['reason']}." if found["ended"] else ""
    return Text(f"{text} but its loopback; {names}.{before}", "yellow")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times, the last time"


def show_frames(out: Any, frames: dict[str, Any]) -> None:
    """What went in, what became of it, and the drops by reason."""
    from rich.text import Text

    from emunet.cli.render import table

    shown = table("frames in", "", "became", " ", right=("", " "))
    came = [(name, frames[name]) for name in ("received", "generated", "copied")]
    became = [(name, frames[name]) for name in ("delivered", "consumed", "dropped", "queued")]
    for index in range(4):
        left = came[index] if index < len(came) else ("", None)
        right = became[index]
        shown.add_row(
            left[0], "" if left[1] is None else f"{left[1]:,}", right[0],
            Text(f"{right[1]:,}", "red" if right[0] == "dropped" and right[1] else ""),
        )  # fmt: skip
    out.print(shown)
    reasons = sorted(frames["reasons"].items(), key=lambda item: -item[1])
    if reasons:
        out.print()
        drops = table("dropped because", "frames", right=("frames",))
        for code, number in reasons:
            drops.add_row(code, f"{number:,}")
        out.print(drops)
    if frames["wire_overruns"]:
        lost = f"{frames['wire_overruns']:,} frames were lost in full TAP queues"
        out.print(Text(f"{lost}: pods sent faster than the lab forwards", "yellow"))


def show_faults(out: Any, lab: str, faults: list[dict[str, Any]]) -> None:
    """Faults of our own: frames were lost that the network would have carried."""
    from rich.text import Text

    from emunet.daemon.folder import folder_of

    for fault in faults:
        line = f"{fault['element']} of {fault['device']} failed {fault['count']:,} times ({fault['error']})"
        out.print(Text(f"a fault of emunet, please report it: {line}; {folder_of(lab).log} has the frame", "red"))


def show_captures(out: Any, captures: list[dict[str, Any]]) -> None:
    """The files that `emunet up --capture` asked for."""
    from rich.text import Text

    for capture in captures:
        line = Text.assemble("capture ", (capture["file"], "bold"), f": {capture['written']:,} frames")
        if capture["lost"]:
            line.append(f", {capture['lost']:,} lost", "yellow")
        if capture["failure"]:
            line.append(f", {capture['failure']}", "red")
        out.print(line)
