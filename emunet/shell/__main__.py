"""The shell as a program: `python -m emunet.shell [--lab NAME] [-c CODE | FILE.py [ARGUMENT...]]`.

Without CODE and FILE it is Scapy's own prompt. In all three the names are those of `scapy.all`,
`lab` (the lab), `pod` (who speaks: `speaking`) and `mitm` (a man in the middle: `middle`).

Rule of this file: an error of the person's code is shown as Python shows it, without frames of ours.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from types import ModuleType, TracebackType
from typing import Any, NamedTuple

from emunet.daemon.client import LabError, find_lab
from emunet.daemon.frame_channel import FrameChannelError

_INTERRUPTED = 130


def main() -> int:
    """Run the shell; gives the exit code."""
    wanted = _parse(sys.argv[1:])
    try:
        client = find_lab(wanted.lab)
        from emunet.shell.ports import Ports

        ports = Ports(client.folder.frames)
    except (LabError, FrameChannelError) as error:
        print(f"emunet: {error}", file=sys.stderr)
        return 1
    # A second of start-up, which an error above need not wait for.
    import scapy.all
    from scapy.config import conf

    from emunet.shell import provider
    from emunet.shell.lab import Lab, addresses_of_services
    from emunet.shell.middle import make_mitm
    from emunet.shell.speaking import make_pod

    provider.install(ports, addresses_of_services(client))
    names = {name: value for name, value in vars(scapy.all).items() if not name.startswith("_")}
    names |= {"conf": conf, "lab": Lab(client, ports), "pod": make_pod(ports), "mitm": make_mitm(ports)}
    if wanted.code is not None:
        return _run(wanted.code, "<code>", ["-c", *wanted.arguments], "", names)
    if wanted.arguments:
        return _run_file(wanted.arguments, names)
    _interact(names, client.name, ports)
    return 0


class _Wanted(NamedTuple):
    """What the arguments ask for. `arguments` begin with the file, where there is no code."""

    lab: str | None
    code: str | None
    arguments: list[str]


def _parse(arguments: list[str]) -> _Wanted:
    """As Python reads its own: whatever follows CODE or FILE is theirs. SystemExit for bad usage."""
    rest = list(arguments)
    lab = code = None
    while rest and rest[0].startswith("-") and code is None:
        option = rest.pop(0)
        if option not in ("--lab", "-c") or not rest:
            print("usage: emunet shell [--lab NAME] [-c CODE | FILE.py] [ARGUMENT...]", file=sys.stderr)
            sys.exit(2)
        if option == "--lab":
            lab = rest.pop(0)
        else:
            code = rest.pop(0)
    return _Wanted(lab, code, rest)


def _run_file(arguments: list[str], names: dict[str, Any]) -> int:
    file = arguments[0]
    try:
        with open(file, "rb") as stream:
            source = stream.read()
    except OSError as error:
        print(f"emunet: cannot read {file}: {error.strerror or error}", file=sys.stderr)
        return 1
    return _run(source, file, arguments, os.path.dirname(os.path.abspath(file)), names)


def _run(source: str | bytes, file: str, arguments: list[str], folder: str, names: dict[str, Any]) -> int:
    """Run code as Python runs a program: as `__main__`, with its folder in front of the path."""
    sys.argv[:] = arguments
    sys.path.insert(0, folder)
    module = ModuleType("__main__")
    vars(module).update(names)
    if file != "<code>":
        vars(module)["__file__"] = file
    sys.modules["__main__"] = module
    try:
        exec(compile(source, file, "exec"), vars(module))
        return 0
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as error:
        traceback.print_exception(type(error), error, _below_us(error.__traceback__))
        return 1


def _below_us(trace: TracebackType | None) -> TracebackType | None:
    """A traceback from the person's code on; as it is where none of it was reached."""
    return trace.tb_next if trace is not None else None


def _interact(names: dict[str, Any], lab: str, ports: Any) -> None:
    from scapy.config import conf
    from scapy.main import interact

    pods = [port.name for port in ports.by_name.values() if port.kind == "pod"]
    more = f", and {len(pods) - 6} more" if len(pods) > 6 else ""
    one, other = (pods[0], pods[-1]) if pods else ("web-1", "web-3")
    print(
        f"Lab {lab}: pods {', '.join(pods[:6])}{more}. Every port is an interface; `lab` is the lab.\n"
        f"  srp1(Ether()/IP(dst={other!r})/ICMP(), iface={one!r})   sniff(iface={one!r}, count=4)\n"
        f"  lab.trace({one!r}, IP(dst={other!r})/ICMP())   lab.ports   conf.ifaces   conf.route\n"
        f"Without iface=, {conf.iface} speaks (conf.iface); within `with pod({other!r}):` that one does."
    )
    # What Scapy says while it looks for a better prompt than Python's own is of no use here.
    logging.getLogger("scapy.loading").setLevel(logging.ERROR)
    conf.fancy_banner = False
    interact(mydict=names, argv=["emunet shell"], loglevel=logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
