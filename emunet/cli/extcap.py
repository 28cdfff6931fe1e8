"""What Wireshark starts to list the ports of running labs, and to capture at one (its extcap interface).

    python -m emunet.cli.extcap --extcap-interfaces
    python -m emunet.cli.extcap --extcap-interface web-1 --capture --fifo FIFO [--extcap-capture-filter FILTER]

`emunet wireshark --install` puts a script into Wireshark's folder that starts this. A port has its
own name, with `@LAB` behind it where several running labs have it. What happens to a capture is
what happens to that of `emunet capture -w`: the same pcapng, into Wireshark's pipe.

Rule of this file: it is started several times for one capture, so it loads the standard library and
the frame channel only. What goes wrong is a sentence on standard error, which Wireshark shows.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from emunet import __version__
from emunet.cli.interrupt import until_interrupted
from emunet.cli.watching import watch
from emunet.daemon.capture_file import CaptureFile
from emunet.daemon.capture_filter import BadFilter, capture_filter
from emunet.daemon.folder import FolderError, running_labs
from emunet.daemon.frame_channel import FrameChannel, FrameChannelError
from emunet.daemon.frame_format import PortInfo

_HELP = "https://www.wireshark.org/docs/man-pages/extcap.html"


class NoSuchInterface(Exception):
    """Nothing that runs has this port: a sentence."""


@dataclass(frozen=True, slots=True)
class Interface:
    """A port of a running lab, as Wireshark is to name it."""

    name: str
    lab: str
    frames: Path
    port: PortInfo
    every: tuple[PortInfo, ...]


def interfaces() -> list[Interface]:
    """Every port of every running lab. A lab that does not answer has none; why is said on standard error."""
    found: list[tuple[str, Path, tuple[PortInfo, ...]]] = []
    for folder in running_labs():
        try:
            found.append((folder.name, folder.frames, FrameChannel.list_ports(folder.frames)))
        except FrameChannelError as error:
            print(f"emunet: {error}", file=sys.stderr)
    count: dict[str, int] = {}
    for _, _, ports in found:
        for port in ports:
            count[port.name] = count.get(port.name, 0) + 1
    return [
        Interface(port.name if count[port.name] == 1 else f"{port.name}@{lab}", lab, frames, port, ports)
        for lab, frames, ports in found
        for port in ports
    ]


def find(name: str) -> Interface:
    """The interface of that name; `@LAB` may always be said. NoSuchInterface."""
    known = interfaces()
    for one in known:
        if name in (one.name, f"{one.port.name}@{one.lab}"):
            return one
    labs = sorted({one.lab for one in known if one.port.name == name})
    if labs:
        raise NoSuchInterface(f"several labs have a port {name}: say {' or '.join(f'{name}@{lab}' for lab in labs)}")
    there = ", ".join(one.name for one in known) or "none: `emunet up` starts a lab"
    raise NoSuchInterface(f"no running lab has a port {name}; there are: {there}")


def _list() -> None:
    print(f"extcap {{version={__version__}}}{{help={_HELP}}}{{display=emunet}}")
    for one in interfaces():
        # The list of Wireshark ends a value at a brace; names and addresses have none.
        print(f"interface {{value={one.name}}}{{display={one.port.description} (emunet lab {one.lab})}}")


def _capture(name: str, fifo: str, filter: str) -> int:
    """Write what passes the port into Wireshark's pipe until that has gone, or a signal comes; gives the exit code.

    The pipe is opened before anything can go wrong: Wireshark waits for that, and would wait for ever.
    """
    with until_interrupted() as interrupted, open(fifo, "wb", 1 << 20) as stream:
        interface = find(name)
        capture = CaptureFile.into(
            interface.frames, [interface.port.name], stream, "Wireshark's pipe", lab=interface.lab, filter=filter
        )
        try:
            watch([capture], interrupted, pipe=stream.fileno())
        finally:
            capture.close()
    if capture.lost:
        print(f"emunet: {capture.lost:,} frames lost: they came faster than Wireshark took them", file=sys.stderr)
    if capture.failure:
        print(f"emunet: {capture.failure}", file=sys.stderr)
    return 1 if capture.failure else 0


def main() -> int:
    """Do what Wireshark asks; gives the exit code."""
    parser = argparse.ArgumentParser(prog="emunet extcap", allow_abbrev=False)
    for flag in ("interfaces", "dlts", "config"):
        parser.add_argument(f"--extcap-{flag}", action="store_true", dest=flag)
    parser.add_argument("--extcap-interface", dest="interface", default="")
    parser.add_argument("--extcap-capture-filter", dest="filter", nargs="?", default="", const="")
    parser.add_argument("--capture", action="store_true")
    parser.add_argument("--fifo", default="")
    wanted, _ = parser.parse_known_args()
    try:
        if wanted.interfaces:
            _list()
        elif wanted.dlts:
            print("dlt {number=1}{name=EN10MB}{display=Ethernet}")
        elif wanted.config:
            pass  # there is nothing to choose
        elif wanted.capture and wanted.fifo:
            return _capture(wanted.interface, wanted.fifo, wanted.filter or "")
        elif wanted.filter:
            _judge(wanted.interface, wanted.filter)
        else:
            print("emunet: Wireshark starts this program; `emunet wireshark` says how it stands", file=sys.stderr)
            return 2
    except (NoSuchInterface, FrameChannelError, FolderError, BadFilter) as error:
        print(f"emunet: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"emunet: cannot write to Wireshark: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def _judge(name: str, filter: str) -> None:
    """Say on standard output what is wrong with a filter; nothing where it is right, which is Wireshark's agreement."""
    try:
        capture_filter(filter, find(name).every)
    except (BadFilter, NoSuchInterface) as error:
        print(error)


if __name__ == "__main__":
    sys.exit(main())
