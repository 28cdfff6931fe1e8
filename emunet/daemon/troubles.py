"""Trouble that is more than the data plane's: hosts without power and frozen pods, with their processes.

A host that loses its power loses all that ran on it: its device drops what reaches it, and
the programs of its pods are killed. With its power it gets back the programs that its
pods' containers name; what `emunet exec` had brought in is gone. A frozen pod's processes
are stopped (SIGSTOP): its kernel goes on answering ARP, echo and handshakes, as it does
for a program that hangs. On memory wires the stack itself is what stops.

Rule of this file: the data plane is asked first; what it refuses is not done by half.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from emunet.daemon.names import Place, UnknownName
from emunet.daemon.running import NotOnTheseWires, RunningLab
from emunet.linux.processes import signal_network


async def told(lab: RunningLab) -> dict[str, Any]:
    """Which devices have power, which pods are frozen, how the hosts are parted."""
    found: dict[str, Any] = await lab.plane.ask("trouble")
    return found | {"frozen": sorted(lab.frozen), "dns": lab.names_on}


async def set_power(lab: RunningLab, device: str, *, on: bool) -> dict[str, Any]:
    """Switch a host or a switch off or on."""
    done: dict[str, Any] = await lab.plane.ask("power", device=device, on=on)
    was_off = device in lab.off
    if on:
        lab.off.discard(device)
    else:
        lab.off.add(device)
    there = [place for place in lab.names.places.values() if place.host == device]
    lab.frozen -= {place.name for place in there}
    if was_off is on:
        lab.power_changed(device, on)
    if lab.keeper is None or was_off is not on:
        return done
    if not on:
        found = [(place, pid) for place in there if (pid := _pause(lab, place))]
        pauses = {pid for _, pid in found}
        networks = [pid for place, pid in found if place.kind == "host" or not place.in_host]
        killed = [await asyncio.to_thread(signal_network, pid, signal.SIGKILL, pauses) for pid in networks]
        return done | {"killed": sum(killed)}
    return done


async def set_names(lab: RunningLab, *, on: bool) -> dict[str, Any]:
    """End the cluster's name servers, or let them begin again. Their pods, and what they are behind, stay."""
    done: dict[str, Any] = await lab.plane.ask("name_servers", on=on)
    if lab.names_on is not on:
        lab.names_on = on
        lab.names_changed(on)
    return done


async def freeze(lab: RunningLab, name: str, *, frozen: bool) -> dict[str, Any]:
    """Stop a pod, or let it go on."""
    place = lab.names.find(name)
    if place.kind != "pod":
        raise UnknownName(f"{name} is a host: `emunet host {name} --off` takes its power, only pods freeze")
    if place.host in lab.off:
        raise NotOnTheseWires(f"{name} is not running: `emunet host {place.host} --on` gives its host power")
    if lab.keeper is None:
        done: dict[str, Any] = await lab.plane.ask("freeze", pod=place.name, frozen=frozen)
        _note(lab, place, frozen)
        return done
    pause = _pause(lab, place)
    if place.in_host:
        raise NotOnTheseWires(f"{name} lives in the network of {place.host}: its processes cannot be told apart there")
    if pause is None:
        raise NotOnTheseWires(f"{name} has ended, since its first process was killed: start the lab anew")
    number = signal.SIGSTOP if frozen else signal.SIGCONT
    reached = await asyncio.to_thread(signal_network, pause, number)
    lab.freeze_changed(place.sandbox, frozen)
    _note(lab, place, frozen)
    now: dict[str, Any] = await lab.plane.ask("pause", pod=place.name, paused=frozen)
    return now | {"processes": reached}


def _note(lab: RunningLab, place: Place, frozen: bool) -> None:
    (lab.frozen.add if frozen else lab.frozen.discard)(place.name)


def _pause(lab: RunningLab, place: Place) -> int | None:
    sandbox = lab.sandboxes.get(place.sandbox)
    return None if sandbox is None else sandbox.pid
