"""`emunet`: finds the command and loads it; says errors as one sentence on standard error.

Rule of this file: `emunet --help` loads no command, so every command's line of help is here.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click
from rich_click import RichCommand, RichGroup, rich_click
from rich_click.patch import patch

from emunet import __version__
from emunet.daemon.client import LabError

patch()  # `click.command` of the files loaded later makes commands whose help is as readable as that of the group

COMMANDS = {
    "Labs": {
        "up": ("emunet.cli.up:up", "Start a lab in the background."),
        "down": ("emunet.cli.down:down", "End a lab and remove all it made."),
        "labs": ("emunet.cli.labs:labs", "List the labs that are running."),
        "status": ("emunet.cli.status:status", "Show hosts, pods and frame counters."),
        "tour": ("emunet.cli.tour:tour", "Ping all pairs, explain one ping, and say what to try."),
    },
    "Kubernetes": {
        "apply": ("emunet.cli.kube:apply", "Make the objects of files, or change them."),
        "get": ("emunet.cli.kube:get", "Show objects."),
        "delete": ("emunet.cli.kube:delete", "End objects, and what they own."),
        "scale": ("emunet.cli.kube:scale", "Want another number of pods."),
        "kubeconfig": ("emunet.cli.kube:kubeconfig", "Print the file that points kubectl to the lab."),
    },
    "Docker": {
        "docker-host": ("emunet.cli.docker_host:docker_host", "Print what points docker to a host of the lab."),
    },
    "Use the network": {
        "ping": ("emunet.cli.ping:ping", "Echo between two pods, or between all of them."),
        "exec": ("emunet.cli.execute:execute", "Run a program in a pod or on a host."),
        "forward": ("emunet.cli.forward:forward", "Let a port of this machine lead into the lab."),
        "shell": ("emunet.cli.shell:shell", "A Scapy prompt in which every port is an interface."),
        "replay": ("emunet.cli.replay:replay", "Play a capture into a port, or a recording again."),
    },
    "Make trouble": {
        "link": ("emunet.cli.link:link", "Delay, lose, slow down, cut: one thing on a running wire."),
        "host": ("emunet.cli.trouble:host", "Take a host's power away, or give it back."),
        "partition": ("emunet.cli.trouble:partition", "Part the hosts into groups that do not hear each other."),
        "freeze": ("emunet.cli.trouble:freeze", "Stop a pod in its tracks, or let it go on."),
        "dns": ("emunet.cli.trouble:dns", "End the cluster's name servers, or let them begin again."),
        "record": ("emunet.cli.record:record", "Write what comes into a lab, to play it again."),
        "scenario": ("emunet.cli.scenario:scenario", "Play a timeline of trouble, and tell what became of flows."),
        "exhaust": ("emunet.cli.trouble:exhaust", "Let a table of a device be full."),
    },
    "Look into it": {
        "trace": ("emunet.cli.trace:trace", "Follow one frame hop by hop, and say why."),
        "explain": ("emunet.cli.explain:explain", "Whether one reaches another, and how, in a few sentences."),
        "draw": ("emunet.cli.draw:draw", "The network as a picture, or who sent what to whom."),
        "capture": ("emunet.cli.capture:capture", "Write what ports carry to a pcapng file."),
        "diff": ("emunet.cli.diff:diff", "What changed on the way between two captures."),
        "wireshark": ("emunet.cli.wireshark:wireshark", "List ports of labs in Wireshark, live."),
        "conntrack": ("emunet.cli.conntrack:conntrack", "Connections that hosts remember and translate."),
        "top": ("emunet.cli.top:top", "Counters, live."),
        "doctor": ("emunet.cli.doctor:doctor", "What this machine allows, and how to allow the rest."),
    },
}

rich_click.TEXT_PARAGRAPH_LINEBREAKS = "\n\n"
rich_click.COMMAND_GROUPS = {"emunet": [{"name": panel, "commands": list(row)} for panel, row in COMMANDS.items()]}

_INTERRUPTED = 130


class Unloaded(RichCommand):
    """A command known by its name, its line of help, and where the rest of it is."""

    def __init__(self, name: str, target: str, line: str) -> None:
        super().__init__(name=name, short_help=line, help=line, add_help_option=False)
        self.target = target

    def load(self) -> click.Command:
        """The command itself."""
        module, _, attribute = self.target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


class Commands(RichGroup):
    """The group: it loads a command once that is the one asked for."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments name, loaded, and the arguments left for it."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, Unloaded) else command, rest


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="emunet")
def emunet() -> None:
    """A whole Kubernetes network on one machine, in user space, in which every frame is explained.

    `emunet up` starts a lab of two hosts; `emunet tour` shows it.
    """


for _panel in COMMANDS.values():
    for _name, (_target, _line) in _panel.items():
        emunet.add_command(Unloaded(_name, _target, _line))


def run(arguments: Sequence[str]) -> int:
    """Run the command; gives the exit code."""
    try:
        result = emunet.main(list(arguments), prog_name="emunet", standalone_mode=False)
    except click.UsageError as error:
        of = error.ctx.command_path if error.ctx is not None else "emunet"
        return _complain(f"{error.format_message()} (see `{of} --help`)", 2)
    except click.ClickException as error:
        return _complain(error.format_message(), error.exit_code)
    except LabError as error:
        return _complain(str(error), 1)
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except BrokenPipeError:  # `emunet … | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    return result if isinstance(result, int) else 0


def main() -> NoReturn:
    """What the `emunet` script and `python -m emunet` run."""
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


def _complain(sentence: str, code: int) -> int:
    print(f"emunet: {sentence}", file=sys.stderr)
    return code
