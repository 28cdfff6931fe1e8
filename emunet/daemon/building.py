"""From what a person asked for to a running lab: every step of `emunet up`, in order.

    what is wanted, as a state                           (`caretaker`; nothing is started yet)
    run folder taken, log opened
    keeper -> sandboxes with their TAPs                  (on TAP wires)
    plane told what it is, captures in place, TAPs handed over, World configured

Rule of this file: each step either is done or raises `CannotBuild` (or what the cluster
found wrong), and whoever called ends what was made until then.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from emunet.cluster.desired import Gateway
from emunet.cluster.gateway import NAME, OUTSIDE
from emunet.cluster.plan import PodState, State
from emunet.daemon.capture_file import CaptureFile
from emunet.daemon.capture_filter import BadFilter
from emunet.daemon.folder import FolderError, HeldFolder, folder_of, try_hold
from emunet.daemon.frame_channel import FrameChannelError
from emunet.daemon.internet import Internet, Outlet
from emunet.daemon.keeper_link import KeeperLink
from emunet.daemon.names import Names
from emunet.daemon.plane_client import PlaneClient
from emunet.daemon.port_facts import ports_of
from emunet.daemon.recordings import record
from emunet.daemon.running import RunningLab
from emunet.daemon.sandboxes import host_interfaces, host_spec, hosts_file
from emunet.daemon.settings import CaptureWish, Settings
from emunet.linux import limits
from emunet.linux.keeper_client import Keeper, KeeperGone, KeeperRefused, ProcessExited, SandboxEnded
from emunet.linux.keeper_requests import CreateSandbox, Sandbox
from emunet.linux.refusals import LinuxRefused
from emunet.linux.specification import SandboxSpec
from emunet.linux.way_out import Guest
from emunet.packet.address import format_ip

HOLD_SECONDS = 30.0
"""How long an `up` waits for another lab of that name to end, or to have begun."""

BEGIN_SECONDS = 2.0
"""How long to wait until containers are executed, or are found not to be there."""

Tell = Callable[[str, str], None]


Loaded = TypeVar("Loaded")


class CannotBuild(Exception):
    """The lab cannot be made: a sentence."""


@dataclass(slots=True)
class Site:
    """All that was made so far, for whoever must end it."""

    plane: PlaneClient
    folder: HeldFolder | None = None
    keeper: KeeperLink | None = None
    way_out: Outlet | None = None
    captures: list[CaptureFile] = field(default_factory=list)
    lab: RunningLab | None = None
    notices: list[ProcessExited | SandboxEnded] = field(default_factory=list)

    def notice(self, what: ProcessExited | SandboxEnded) -> None:
        """Something ended; kept while there is no lab yet to tell."""
        if self.lab is not None:
            self.lab.notice(what)
        else:
            self.notices.append(what)


async def hold(name: str, tell: Tell) -> HeldFolder:
    """The run folder of a lab, ours and empty. CannotBuild where a lab of that name is running."""
    folder = folder_of(name)
    waited = 0.0
    while True:
        held = try_hold(folder)
        if held is not None:
            held.clear()
            return held
        if folder.answers():
            raise CannotBuild(f"the lab {name} is running already: `emunet down --lab {name}` ends it")
        if waited >= HOLD_SECONDS:
            holder = folder.holder()
            who = f" (process {holder[0]})" if holder is not None else ""
            raise CannotBuild(
                f"another lab {name} has been beginning or ending for {waited:.0f} s{who}: "
                f"`emunet down --lab {name}` ends it by force"
            )
        if waited == 0:
            tell("progress", f"waiting for another lab {name} to begin or end")
        await asyncio.sleep(0.02)
        waited += 0.02


async def make(
    site: Site, settings: Settings, name: str, state: State, log: int, tell: Tell, load: Callable[[], Loaded],
    specify: Callable[[PodState, State], SandboxSpec], gateway: Gateway | None = None,
) -> tuple[RunningLab, Loaded]:  # fmt: skip
    """The running lab, and what `load` gives, which runs beside, while others work for us.

    `specify` says what the sandbox of a pod is to be, given all of the lab; `gateway` is its way out, if it has one.

    `site.folder` is held already, and `site` has at any moment all that was made.
    """
    assert site.folder is not None
    sandboxes: dict[str, Sandbox] = {}
    wires: Literal["tap", "memory"] = "memory"
    reason = ""
    loading: asyncio.Task[Loaded] | None = None
    if settings.wires != "memory":
        try:
            count, interfaces = _counted(state)
            limits.check(count, interfaces)
            warning = limits.crowding(count)
            if warning:
                tell("warning", warning)
            keeper = await asyncio.to_thread(Keeper.start)
            site.keeper = KeeperLink(keeper, site.notice)
            loading = asyncio.create_task(asyncio.to_thread(load))
            sandboxes = await _make_sandboxes(site.keeper, state, settings, tell, specify)
            wires = "tap"
        except (LinuxRefused, KeeperRefused, KeeperGone) as error:
            if settings.wires == "tap":
                raise CannotBuild(str(error)) from None
            reason = error.what if isinstance(error, LinuxRefused) else str(error)
            if site.keeper is not None:
                keeper_link, site.keeper = site.keeper, None
                await keeper_link.stop()
    loading = loading or asyncio.create_task(asyncio.to_thread(load))
    await site.plane.ask(
        "begin", [log], wires=wires, seed=settings.seed, speed=settings.speed, flow_cache=settings.flow_cache
    )
    lab = RunningLab(
        name, settings, wires, reason, site.folder, site.plane, site.keeper, state, Names(state), sandboxes
    )
    lab.captures = site.captures
    if gateway is not None:
        lab.internet = await _open_way_out(site, state, gateway)
    site.lab = lab
    for notice in site.notices:
        if isinstance(notice, SandboxEnded):
            raise CannotBuild(f"the first process of {notice.sandbox} was killed before the lab was ready")
        lab.notice(notice)
    listener = site.folder.bind(site.folder.folder.frames, socket.SOCK_SEQPACKET)
    await site.plane.ask("frames", [listener.fileno()])
    listener.close()
    if settings.record:
        try:
            await record(site.plane, settings.record)
        except ValueError as error:
            raise CannotBuild(f"--record: {error}") from None
    if settings.captures:
        # Ports exist once the devices do; nothing passes them before the edges are joined.
        await site.plane.configure(replace(state.world, pods=(), host_edges=()))
        for wish in settings.captures:
            await _begin_capture(site, state, name, wish)
    await _join(lab, state)
    return lab, await loading


async def _open_way_out(site: Site, state: State, gateway: Gateway) -> Internet:
    """Run the program at the other end of the gateway, for as long as the lab runs."""
    assert site.folder is not None
    router = next(one for one in state.world.routers if one.name == NAME)
    mac = next(one.mac for one in router.interfaces if one.name == OUTSIDE)
    ways = [(way.outside.address, way.next_hop) for way in gateway.ways]
    guest = Guest(mac, router.neighbors[0].mac, *ways)
    resolver = None if gateway.resolver is None else format_ip(gateway.resolver)
    ipv6 = None if gateway.ipv6 is None else format_ip(gateway.ipv6.inside.address)
    found = Internet("", format_ip(gateway.ipv4.inside.address), ipv6, resolver)
    outlet = Outlet(site.plane, guest, site.folder.folder.path, found)
    try:
        await outlet.open()
    except LinuxRefused as error:
        raise CannotBuild(str(error)) from None
    site.way_out = outlet
    return found


def _counted(state: State) -> tuple[int, int]:
    """How many sandboxes a lab has, and how many TAPs."""
    taps = sum(pod.edge is not None for pod in state.pods)
    return len(state.hosts) + len(state.pods), taps + len(state.world.host_edges)


async def _make_sandboxes(
    keeper: KeeperLink, state: State, settings: Settings, tell: Tell, specify: Callable[[PodState, State], SandboxSpec]
) -> dict[str, Sandbox]:
    names = hosts_file(state)
    specs: list[SandboxSpec] = [host_spec(state.world, host, names, settings.offload) for host in state.world.hosts]
    guests = [specify(pod, state) for pod in state.pods if pod.edge is None]
    specs += [specify(pod, state) for pod in state.pods if pod.edge is not None]
    tell("progress", f"making {len(specs) + len(guests)} sandboxes")
    made = await keeper.ask_all([CreateSandbox(spec) for spec in specs])
    made += await keeper.ask_all([CreateSandbox(spec) for spec in guests])  # in networks that are there now
    return {sandbox.id: sandbox for sandbox in made}


async def _begin_capture(site: Site, state: State, name: str, wish: CaptureWish) -> None:
    assert site.folder is not None
    frames = site.folder.folder.frames
    try:
        # The plane does not know yet what will be behind its ports.
        facts = ports_of(state.world)
        capture = await asyncio.to_thread(
            CaptureFile.open, frames, wish.ports, wish.file, lab=name, filter=wish.filter, facts=facts
        )
    except BadFilter as error:
        raise CannotBuild(f"--capture-filter: {error}") from None
    except FrameChannelError as error:
        raise CannotBuild(f"--capture: {error}") from None
    except OSError as error:
        raise CannotBuild(f"--capture: cannot write {wish.file}: {error.strerror or error}") from None
    site.captures.append(capture)
    loop = asyncio.get_running_loop()
    descriptor = capture.fileno()

    def read() -> None:
        if not capture.read():
            loop.remove_reader(descriptor)

    loop.add_reader(descriptor, read)


async def _join(lab: RunningLab, state: State) -> None:
    """Hand the TAPs to the plane and let it have its World: from here on frames move."""
    taps: list[tuple[str, int]] = []
    if lab.wires == "tap":
        for host in state.world.hosts:
            made = lab.sandboxes[host.name].taps
            interfaces = host_interfaces(state.world, host)
            taps += [(f"{host.name}:{one.name}", tap) for one, tap in zip(interfaces, made, strict=True)]
        for place in lab.names.pods:
            taps.append((place.name, lab.sandboxes[place.sandbox].taps[0]))
    await lab.plane.give_taps(taps)
    await lab.plane.configure(state.world)


def take_log(folder: HeldFolder) -> int:
    """The lab's log, opened; from here on what this process has to say goes there."""
    log = os.open(folder.folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    for standard in (1, 2):
        os.dup2(log, standard)
    return log


def write_holder(folder: HeldFolder, start_time: int) -> None:
    """Say which process holds the folder, for whoever must end it by force."""
    with suppress(OSError):
        folder.folder.process.write_text(f"{os.getpid()} {start_time}\n")


__all__ = ["CannotBuild", "FolderError", "Site", "Tell", "hold", "make", "take_log", "write_holder"]
