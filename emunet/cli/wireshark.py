"""`emunet wireshark`: make the ports of running labs interfaces of Wireshark and tshark, or no more.

Two files of the user's own are touched, and nothing of the system's: a script in Wireshark's
folder for such programs (extcap), and one line for each tunnel port in `decode_as_entries`.

Rule of this file: what it wrote it can tell from what others wrote, and only that is removed.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from emunet.cli.options import output_option, print_json
from emunet.daemon.folder import running_labs
from emunet.daemon.frame_channel import FrameChannel, FrameChannelError
from emunet.daemon.start import python_environment, python_program

SCRIPT = "emunet"
_MARK = "# written by `emunet wireshark --install`"
_PORTS = "# shown as VXLAN: UDP "
_DECODED_BY_ITSELF = 4789
_FLANNELS_OWN = 8472


@dataclass(frozen=True, slots=True)
class Folders:
    """Where the installed Wireshark looks for what is the user's own."""

    extcap: Path
    configuration: Path

    @property
    def script(self) -> Path:
        """The program that Wireshark starts."""
        return self.extcap / SCRIPT

    @property
    def decode_as(self) -> Path:
        """Which protocol a port means."""
        return self.configuration / "decode_as_entries"


def find_folders() -> Folders:
    """As the installed version says: the folder for such programs moved with 4.2."""
    program = shutil.which("tshark") or shutil.which("wireshark")
    if program is None:
        raise click.ClickException("neither Wireshark nor tshark is installed: apt-get install wireshark (or tshark)")
    told = subprocess.run([program, "-G", "folders"], capture_output=True, text=True, check=False)
    rows: dict[str, str] = {}
    for line in told.stdout.splitlines():
        name, colon, path = line.partition(":")
        if colon:
            rows.setdefault(name.strip().lower(), path.strip())
    configuration = rows.get("personal configuration")
    if not configuration:
        raise click.ClickException(
            f"`{program} -G folders` does not say where its personal configuration is: {told.stderr.strip()}"
        )
    extcap = rows.get("personal extcap path") or os.path.join(configuration, "extcap")
    return Folders(Path(extcap), Path(configuration))


def script(ports: Iterable[int]) -> str:
    """The program for Wireshark's folder: it starts `emunet.cli.extcap` with this Python.

    It remembers which lines of `decode_as_entries` are ours: Wireshark keeps no comments there when it writes it.
    """
    path = python_environment().get("PYTHONPATH", "")
    environment = f"PYTHONPATH={shlex.quote(path)} " if path else ""
    command = shlex.join(python_program("emunet.cli.extcap"))
    ours = f"{_PORTS}{' '.join(map(str, sorted(ports)))}"
    return f'#!/bin/sh\n{_MARK}; `emunet wireshark --remove` removes it\n{ours}\n{environment}exec {command} "$@"\n'


def install(folders: Folders, ports: Iterable[int]) -> None:
    """Write the script, and a line for each UDP port that is a tunnel's. OSError."""
    folders.extcap.mkdir(parents=True, exist_ok=True)
    if folders.script.exists() and not _is_ours(folders.script):
        raise click.ClickException(
            f"{folders.script} is there already, and emunet did not write it: move it away first"
        )
    kept = _without(folders.decode_as, _ports_of(folders.script))
    added = [port for port in sorted(ports) if _line(port) not in kept]
    fresh = folders.script.with_name(f".{SCRIPT}.new")
    fresh.write_text(script(added))
    fresh.chmod(0o755)
    fresh.replace(folders.script)
    _write(folders.decode_as, [*kept, *map(_line, added)])


def remove(folders: Folders) -> bool:
    """Take away what `install` wrote; whether there was anything. OSError."""
    if not (folders.script.exists() and _is_ours(folders.script)):
        return False
    _write(folders.decode_as, _without(folders.decode_as, _ports_of(folders.script)))
    folders.script.unlink()
    return True


def _is_ours(path: Path) -> bool:
    return _MARK in path.read_text(errors="replace")


def _ports_of(path: Path) -> list[int]:
    """The ports whose lines an installed script says are ours."""
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return [int(word) for line in lines if line.startswith(_PORTS) for word in line[len(_PORTS) :].split()]


def _line(port: int) -> str:
    return f"decode_as_entry: udp.port,{port},(none),VXLAN"


def _without(file: Path, ports: Iterable[int]) -> list[str]:
    """The lines of `decode_as_entries` but for those of these ports."""
    ours = set(map(_line, ports))
    return [line for line in file.read_text().splitlines() if line not in ours] if file.exists() else []


def _write(file: Path, lines: list[str]) -> None:
    """Have these lines in a file; a file without any is none."""
    if lines:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{line}\n" for line in lines))
    else:
        file.unlink(missing_ok=True)


def _tunnel_ports() -> set[int]:
    """Every tunnel port of the running labs that Wireshark does not know by itself, and flannel's own."""
    ports = {_FLANNELS_OWN}
    for folder in running_labs():
        try:
            ports |= set(FrameChannel.describe(folder.frames).vxlan_ports)
        except FrameChannelError as error:
            click.echo(f"{error}", err=True)
    return ports - {_DECODED_BY_ITSELF}


@click.command()
@click.option("--install", "wish", flag_value="install", help="List the ports of running labs in Wireshark.")
@click.option("--remove", "wish", flag_value="remove", help="List them no more.")
@output_option
def wireshark(wish: str | None, output: str) -> None:
    """Make every port of every running lab an interface of Wireshark and tshark.

    \b
    emunet wireshark --install     once; then start Wireshark, and choose web-1
    tshark -i web-1 -c 5           the same without a window
    emunet wireshark --remove
    """  # noqa: D301 - click knows the character by this escape
    folders = find_folders()
    try:
        if wish == "install":
            ports = _tunnel_ports()
            install(folders, ports)
            told = f"installed as {folders.script}: Wireshark and tshark list the ports of running labs from now on"
            told += f"\nUDP ports {', '.join(map(str, sorted(ports)))} are shown as VXLAN, as 4789 is anyway"
        elif wish == "remove":
            told = "removed" if remove(folders) else "there was nothing to remove"
        elif folders.script.exists() and _is_ours(folders.script):
            told = f"installed as {folders.script}"
        else:
            told = "not installed: `emunet wireshark --install` lists the ports of running labs in Wireshark"
    except OSError as error:
        raise click.ClickException(f"cannot write {error.filename}: {error.strerror or error}") from None
    if output == "json":
        there = folders.script.exists() and _is_ours(folders.script)
        print_json({"installed": there, "script": str(folders.script), "decode_as": str(folders.decode_as)})
    else:
        click.echo(told)
