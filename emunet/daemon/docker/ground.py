"""What an engine stands on: the lab's keeper, its plane, and the way by which its networks become part of the World.

    model says what is to be -> a sandbox with its TAPs -> TAPs to the plane -> the World takes them

Rule of this file: it makes and removes what lives in the kernel; what there should be is decided elsewhere.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Sequence

from emunet.cluster.docker.values import Attachment
from emunet.daemon.programs import Programs
from emunet.daemon.responders import Declared, Responders
from emunet.daemon.running import RunningLab
from emunet.daemon.sandboxes import GSO_MAX_SIZE, container_sandbox
from emunet.elements.responder import Identity
from emunet.linux.keeper_client import KeeperRefused
from emunet.linux.keeper_requests import AttachInterfaces, CreateSandbox, RemoveSandbox
from emunet.linux.specification import BindSpec, InterfaceSpec, RouteSpec, SandboxSpec
from emunet.linux.tap import OFFLOAD_ALL_TCP
from emunet.packet.address import format_ip, format_mac


class Ground:
    """The running lab, for its engines. `reshape` lets the World become what the engines say."""

    def __init__(
        self, lab: RunningLab, programs: Programs | None, reshape: Callable[[], Awaitable[None]],
        responders: Responders | None = None,
    ) -> None:  # fmt: skip
        self.lab = lab
        self._responders = responders
        self.programs = programs
        self.reshape = reshape

    async def make(
        self, host: str, container: str, hostname: str, attachments: Sequence[Attachment],
        mtus: dict[str, int], files: dict[str, str], binds: tuple[BindSpec, ...], sysctls: dict[str, str],
    ) -> str:  # fmt: skip
        """Make a container's sandbox, its TAPs with the plane; gives the sandbox's id. KeeperRefused."""
        name = container_sandbox(host, container)
        if self.lab.keeper is None:
            return name
        rows = sorted(attachments, key=lambda one: one.interface)
        spec = SandboxSpec(
            id=name,
            hostname=hostname,
            interfaces=tuple(self._interface(one, mtus[one.network]) for one in rows),
            routes=tuple(route for one in rows for route in _routes(one)),
            files=files,
            sysctls=sysctls,
            root="isolated",
            binds=binds,
        )
        made = await self.lab.keeper.ask(CreateSandbox(spec))
        self.lab.sandboxes[name] = made
        await self.lab.plane.give_taps([(one.port, tap) for one, tap in zip(rows, made.taps, strict=True)])
        return name

    async def add(self, sandbox: str, attachment: Attachment, mtu: int) -> None:
        """Give a running container one more interface. KeeperRefused."""
        if self.lab.keeper is None:
            return
        interface = self._interface(attachment, mtu)
        added = await self.lab.keeper.ask(AttachInterfaces(sandbox, (interface,), tuple(_routes(attachment))))
        for descriptor in added.drop_counters:
            os.close(descriptor)
        await self.lab.plane.give_taps([(attachment.port, added.taps[0])])

    async def answer(
        self, host: str, container: str, name: str, sandbox: str, ports: Sequence[tuple[str, int]]
    ) -> None:
        """Let the responder answer on ports, (TCP or UDP, number), of a container that runs no program."""
        if self._responders is not None and ports:
            await self._responders.serve(Declared(container, sandbox, Identity(name, "", host), tuple(ports)))

    def silence(self, container: str) -> None:
        """Answer for it no more."""
        if self._responders is not None:
            self._responders.leave(container)

    async def remove(self, sandbox: str) -> None:
        """End a container's sandbox, with all that runs there."""
        if self.lab.keeper is None or sandbox not in self.lab.sandboxes:
            return
        self.lab.let_go(sandbox)
        with contextlib.suppress(KeeperRefused):  # it has ended by itself
            await self.lab.keeper.ask(RemoveSandbox(sandbox))

    def _interface(self, one: Attachment, mtu: int) -> InterfaceSpec:
        return InterfaceSpec(
            one.interface,
            format_mac(one.mac),
            tuple(map(str, one.addresses)),
            mtu=mtu,
            vnet_header=True,
            offload=OFFLOAD_ALL_TCP if self.lab.settings.offload else 0,
            gso_max_size=GSO_MAX_SIZE,
        )


def _routes(attachment: Attachment) -> list[RouteSpec]:
    return [
        RouteSpec("0.0.0.0/0" if len(gateway) == 4 else "::/0", format_ip(gateway), attachment.interface)
        for gateway in attachment.gateways
    ]
