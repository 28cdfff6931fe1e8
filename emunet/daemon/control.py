"""The control process: it builds a lab, answers for it, and ends it.

It ends for one of these reasons, and all of them end in the same way: somebody asked
(`emunet down`, SIGTERM); `emunet up` went away before the lab was ready; the plane or the
keeper died; the run folder or its socket was removed, so that no command finds the lab.
Then the captures get their last frames, plane and keeper are ended, and the run folder
goes. Only where a lab has not been asked to end its log stays in the folder, until the
next `up` or `down`.

If this process is killed, the kernel closes its sockets, which ends the other two.

Rule of this file: from the first thing made to the last thing gone, `Control.end` knows of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import traceback
from typing import Any

from emunet.cluster.gateway import NoGateway
from emunet.cluster.load import BadInput
from emunet.daemon import building
from emunet.daemon.caretaker import Caretaker
from emunet.daemon.docker.service import DockerService
from emunet.daemon.folder import FolderError, HeldFolder
from emunet.daemon.kube.certificate import Credentials
from emunet.daemon.kube.service import KubeService
from emunet.daemon.plane_client import PlaneClient, PlaneGone, PlaneRefused
from emunet.daemon.pod_clients import PodClients
from emunet.daemon.settings import Settings
from emunet.linux import syscalls, way_out
from emunet.linux.keeper_client import KeeperGone
from emunet.linux.refusals import LinuxRefused

LOOK_SECONDS = 1.0
"""How often control looks whether its run folder is still there: two system calls."""


class Control:
    """One lab, from its first process to its last."""

    def __init__(self, lifeline: socket.socket, settings: Settings) -> None:
        self.lifeline: socket.socket | None = lifeline
        self.settings = settings
        self.stop = asyncio.Event()
        """Set to end the lab."""
        self.gone = asyncio.Event()
        """Set when all processes but this one have ended."""
        self.ended_by_itself = ""
        """Which process of the lab has died, if one has."""
        self.lost = ""
        """Why the lab cannot be found any more, if so."""
        self._caretaker: Caretaker | None = None
        self._caretaking: asyncio.Task[None] | None = None
        self._kube: KubeService | None = None
        self._docker: DockerService | None = None

    async def run(self, process: subprocess.Popen[bytes], channel: socket.socket) -> int:
        """Build the lab, answer for it until it is to end, end it; gives the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self.stop.set)
        site = building.Site(PlaneClient(process, channel))
        if self.lifeline is not None:
            self.lifeline.setblocking(False)
            loop.add_reader(self.lifeline, self._abandoned)
        server = None
        try:
            server = await self._unless_it_ends(site, self._build(site))
            if server is not None:
                await self._wait_for_end(site)
        finally:
            await self.end(site)
            if server is not None:
                await server.close()
            if site.folder is not None:
                self._leave(site.folder)
            self._let_go()
        return 0 if server is not None and not self.ended_by_itself and not self.lost else 1

    # Building

    async def _build(self, site: building.Site) -> Any:
        """The server of a lab that is ready; None where it could not be made, and `emunet up` was told why."""
        try:
            if self.settings.internet:
                way_out.find()
                way_out.check_route()
            making = asyncio.create_task(asyncio.to_thread(Credentials.make))  # beside the files, which take as long
            caretaker = Caretaker(self.settings, self._tell)
            credentials = await making
            caretaker.control.trust(credentials.certificate.decode())
            caretaker.control.settle(0)
            name = self.settings.lab or caretaker.desired.cluster.name
            site.folder = await building.hold(name, self._tell)
            building.write_holder(site.folder, syscalls.start_time(os.getpid()))
            caretaker.stores = site.folder.folder.path / "hosts"
            log = building.take_log(site.folder)
            os.chdir("/")
            try:
                state = caretaker.state
                lab, api = await building.make(
                    site, self.settings, name, state, log, self._tell, _load_api, caretaker.specify,
                    caretaker.desired.cluster.gateway,
                )  # fmt: skip
            finally:
                os.close(log)
            self._caretaker = caretaker
            await caretaker.begin(lab, self._tell)
            self._caretaking = asyncio.create_task(caretaker.run())
            self._kube = KubeService(name, PodClients(caretaker), site.folder.folder.path, credentials)
            self._docker = DockerService(lab, caretaker, caretaker.programs, site.folder)
            self._docker.open()
            for problem in await self._docker.furnish():
                self._tell("warning", problem)
            server = api.Server(lab, self, caretaker, self._kube, self._docker)
            await server.open(site.folder.bind(site.folder.folder.api, socket.SOCK_STREAM))
            gc.freeze()
            gc.enable()
            self._tell("ready", await lab.status())
            self._kube.open()  # not before: it loads much, and nobody waits for it
            return server
        except BadInput as error:
            self._tell("error", str(error))
        except (building.CannotBuild, FolderError, PlaneRefused, LinuxRefused, NoGateway) as error:
            self._tell("error", str(error))
        except (PlaneGone, KeeperGone) as error:
            said = site.folder.folder.log.read_text(errors="replace") if site.folder is not None else ""
            self._tell("error", "\n".join([*said.splitlines()[-20:], f"{error}, before the lab was ready"]))
        except Exception:  # a fault of ours: whoever reports it should have all of it
            self._tell("error", f"emunet has a fault; please report this:\n{traceback.format_exc()}")
        return None

    async def _unless_it_ends(self, site: building.Site, building_it: Any) -> Any:
        """The result of building, or None where something ended it first."""
        task = asyncio.create_task(building_it)
        stop = asyncio.create_task(self.stop.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if task.done():
            return task.result()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return None

    def _abandoned(self) -> None:
        """The lifeline has something to say: only that `emunet up` is gone."""
        assert self.lifeline is not None
        with contextlib.suppress(BlockingIOError):
            try:
                gone = not self.lifeline.recv(1)
            except ConnectionError:
                gone = True
            if gone:
                self._let_go()
                self.stop.set()

    def _tell(self, kind: str, what: Any) -> None:
        """Tell `emunet up`; after `ready` or `error` there is nobody to tell."""
        if self.lifeline is None:
            return
        self.lifeline.setblocking(True)
        try:
            self.lifeline.sendall(json.dumps({kind: what}).encode() + b"\n")
        except OSError:  # it was killed just now
            self.stop.set()
        self.lifeline.setblocking(False)
        if kind in ("ready", "error"):
            self._let_go()

    def _let_go(self) -> None:
        if self.lifeline is not None:
            asyncio.get_running_loop().remove_reader(self.lifeline)
            self.lifeline.close()
            self.lifeline = None

    # Ending

    async def _wait_for_end(self, site: building.Site) -> None:
        """Return when somebody asked for the end, plane or keeper are gone, or nobody can ask any more."""
        assert site.folder is not None
        waits = {asyncio.create_task(self.stop.wait()): ""}
        waits[asyncio.create_task(site.plane.ended.wait())] = "the plane process"
        if site.keeper is not None:
            waits[asyncio.create_task(site.keeper.ended.wait())] = "the keeper"
        done: set[asyncio.Task[Any]] = set()
        while not done and not (lost := site.folder.lost()):
            done, _ = await asyncio.wait(waits, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for task in waits:
            task.cancel()
        self.lost = "" if done else lost
        self.ended_by_itself = next((waits[task] for task in done if waits[task]), "")

    async def end(self, site: building.Site) -> None:
        """End everything but this process and its server."""
        if site.folder is not None:  # whoever asks from now on finds a lab that is ending, not one that is running
            site.folder.unlink(site.folder.folder.api.name)
        if self._caretaking is not None:
            self._caretaking.cancel()
            await asyncio.gather(self._caretaking, return_exceptions=True)
        if self._caretaker is not None:
            self._caretaker.close()
        if self._kube is not None:
            await self._kube.close()
        if self._docker is not None:
            await self._docker.close()
        for capture in site.captures:
            asyncio.get_running_loop().remove_reader(capture.fileno())
            await asyncio.to_thread(capture.close)
        if site.way_out is not None:
            await site.way_out.close()  # before the plane, at whose end it would end too, and be begun again
        keeper = site.keeper
        await asyncio.gather(site.plane.stop(), *([keeper.stop()] if keeper is not None else []))
        if self.ended_by_itself:
            code = site.plane.process.returncode
            how = f" (killed by {signal.Signals(-code).name})" if code < 0 else ""
            who = self.ended_by_itself + (how if self.ended_by_itself == "the plane process" else "")
            print(f"{who} has ended by itself, and so the lab had to end", flush=True)
        elif self.lost:
            print(f"{self.lost}, so that no command would find the lab: it has ended", flush=True)
        self.gone.set()

    def _leave(self, folder: HeldFolder) -> None:
        """Remove the run folder; of a lab that was not asked to end, all but its log."""
        if not self.ended_by_itself and not self.lost:
            folder.remove()
            return
        for path in (folder.folder.api, folder.folder.frames, folder.folder.process):
            folder.unlink(path.name)


def main(plane: subprocess.Popen[bytes], channel: socket.socket) -> None:
    """Become the control process of a lab, with the plane process that `start.launch_plane` has started."""
    lifeline = socket.socket(fileno=int(sys.argv[1]))
    lifeline.set_inheritable(False)
    settings = Settings.decode(_first_line(lifeline))
    syscalls.set_process_name("emunet-control")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    async def run() -> int:
        return await Control(lifeline, settings).run(plane, channel)

    sys.exit(asyncio.run(run()))


def _load_api() -> Any:
    """The server takes longer to load than a small lab to make."""
    return importlib.import_module("emunet.daemon.api")


def _first_line(lifeline: socket.socket) -> str:
    received = b""
    while not received.endswith(b"\n"):
        part = lifeline.recv(65536)
        if not part:
            sys.exit(1)
        received += part
    return received.decode()
