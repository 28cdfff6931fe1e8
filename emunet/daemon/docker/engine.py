"""The container engine of one host: what `docker run` and its relatives change.

    create -> start (addresses, sandbox, World, program) -> the program ends -> its network goes -> exited

Rule of this file: a container's network is taken and given back by one task at a time; whatever fails on
the way to a start is undone, and whoever waits for that container hears of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any

from emunet.cluster.docker.begin import network_wish, port_wishes
from emunet.cluster.docker.containers import Containers, Place
from emunet.cluster.docker.networks import NetworkWish, Refused
from emunet.cluster.docker.values import Furniture, Network
from emunet.daemon.docker import container_files, record
from emunet.daemon.docker.commands import PATH, directory_of, missing, signal_number, user_of, variables_of
from emunet.daemon.docker.events import Events
from emunet.daemon.docker.execs import Execs
from emunet.daemon.docker.ground import Ground
from emunet.daemon.docker.process import Log, Process
from emunet.daemon.docker.proxy import Proxies
from emunet.daemon.docker.record import Body, Record
from emunet.daemon.docker.resolver import Resolvers
from emunet.daemon.docker.volumes import read_binds
from emunet.daemon.kube.backend import CannotServe
from emunet.linux.keeper_client import KeeperGone, KeeperRefused
from emunet.linux.specification import ProgramSpec

STOP_SECONDS = 10
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 60.0
_NEVER_RAN = 128


class Engine:
    """One host's engine. `containers` is its part in the World."""

    def __init__(self, host: str, containers: Containers, ground: Ground, folder: Path) -> None:
        self.host = host
        self.containers = containers
        self.networks = containers.networks
        self.ground = ground
        self.folder = folder
        """Where volumes are."""
        self.records: dict[str, Record] = {}
        self.execs = Execs(self)
        self.images: dict[str, int] = {}
        """When each image was named first (seconds since 1970)."""
        self.events = Events()
        self.began = time.time_ns()
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._proxies = Proxies(ground, host)
        self._resolvers = Resolvers(ground, containers)

    def find(self, word: str) -> Record:
        """The container of that id, name, or beginning of an id. Refused."""
        return self.records[self.containers.find(word).id]

    @property
    def is_dark(self) -> bool:
        """Whether its host has no power."""
        return self.host in self.ground.lab.off

    def close(self) -> None:
        """The lab is ending."""
        for task in self._tasks:
            task.cancel()
        self._proxies.close_all()
        self._resolvers.close_all()

    async def furnish(self, furniture: Furniture) -> list[str]:
        """What the topology puts into this engine; what could not be begun is told."""
        problems = []
        for network in furniture.networks:
            await self.create_network(network_wish(network))
        for wanted in furniture.containers:
            self.images.setdefault(record.short_image(wanted.image), self.began // 10**9)
            try:
                made, _ = self.create(record.body_of(wanted, port_wishes(wanted)), wanted.name)
                await self.start(made)
            except Refused as error:
                problems.append(f"{self.host}/{wanted.name}: {error}")
        return problems

    # Containers

    def create(self, body: Body, name: str) -> tuple[Record, list[str]]:
        """A container that does not run yet, and what is worth knowing."""
        image = record.short_image(str(body.get("Image") or ""))
        if not body.get("Image"):
            raise Refused(400, "no image was named")
        if image not in self.images:
            raise Refused(404, f"No such image: {image}")
        mode, warnings = record.network_mode(body), []
        host_config = body.get("HostConfig") or {}
        if mode.startswith("container:"):
            for field, what in (("Dns", "dns"), ("ExtraHosts", "custom host-to-IP mapping"), ("Links", "links")):
                if host_config.get(field):
                    raise Refused(400, f"conflicting options: {what} and the network mode")
            if body.get("Hostname"):
                raise Refused(400, "conflicting options: hostname and the network mode")
        if host_config.get("Links"):
            raise Refused(400, "links are not supported by the engines of a lab: use a network of your own and names")
        if mode == "host" and (host_config.get("PortBindings") or host_config.get("PublishAllPorts")):
            warnings.append("Published ports are discarded when using host network mode")
        read_binds(self.folder, host_config)  # so that a wrong one is told now
        network = self.containers.add(
            name, mode, record.places(body), record.port_wishes(body), record.exposed(body),
            publish_all=bool(host_config.get("PublishAllPorts")),
        )  # fmt: skip
        found = Record(network, body, image, time.time_ns(), Log(bool(body.get("Tty"))))
        if not found.argv:
            told = f"{image} is a placeholder, whose ports a responder answers; name a command to run"
            warnings.append(f"a lab keeps no images: {told}")
        self.records[network.id] = found
        found.attached = self.new_process(found)
        self.tell(found, "create")
        return found, warnings

    async def start(self, found: Record) -> bool:
        """Let it run; False where it does. Refused, and then it has not begun."""
        async with self._changing:
            if found.is_running:
                return False
            process = found.attached or self.new_process(found)
            found.attached = None
            try:
                await self._begin(found, process)
            except Refused as error:
                await self._did_not_begin(found, process, error)
                raise
            except (CannotServe, KeeperRefused, KeeperGone, OSError) as error:
                refused = Refused(500, f"cannot start the container {found.name}: {error}")
                await self._did_not_begin(found, process, refused)
                raise refused from None
            found.process = process
            found.state, found.started, found.stopping, found.error = "running", time.time_ns(), False, ""
            found.settled.clear()
            process.on_end = lambda: self._note_end(found, process)
            self.task(self._watch(found, process))
        for network in self._networks_of(found):
            self.tell_network(network, "connect", found)
        self.tell(found, "start")
        return True

    async def stop(self, found: Record, seconds: float | None, which: int | None = None) -> bool:
        """Ask it to end, and make it end; False where it has."""
        process = found.process
        if not found.is_running or process is None:
            return False
        found.stopping = True
        which = which or signal_number(str(found.body.get("StopSignal") or "TERM"))
        if seconds is None:
            seconds = float(found.body.get("StopTimeout") or STOP_SECONDS)
        await self.signal(found, which)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.ended.wait(), None if seconds < 0 else seconds)
        if not process.ended.is_set():
            await self.signal(found, signal.SIGKILL)
        await self._settled(found)
        self.tell(found, "stop")
        return True

    async def signal(self, found: Record, which: int) -> None:
        """Send a signal to its main program. Refused where it does not run."""
        process = found.process
        if not found.is_running or process is None:
            message = f"cannot kill container: {found.name}: container {found.id} is not running"
            raise Refused(409, message)
        if which in (signal.SIGKILL, signal_number(str(found.body.get("StopSignal") or "TERM"))):
            found.stopping = True  # somebody wants it to end: it is not started again
        self.tell(found, "kill", signal=str(int(which)))
        if process.number:
            if found.state == "paused" and which == signal.SIGKILL:
                await process.signal(signal.SIGCONT)
            await process.signal(which)
        elif which in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            # A placeholder: nothing is there that could do otherwise.
            process.finish(128 + which if which == signal.SIGKILL else 0)

    async def pause(self, found: Record, *, paused: bool) -> None:
        """Stop its main program in its tracks, or let it go on. Refused."""
        wanted = "running" if paused else "paused"
        if found.state != wanted or found.process is None:
            raise Refused(409, f"container {found.name} is not {wanted}")
        await found.process.signal(signal.SIGSTOP if paused else signal.SIGCONT)
        found.state = "paused" if paused else "running"
        self.tell(found, "pause" if paused else "unpause")

    async def remove(self, found: Record, *, force: bool = False) -> None:
        """Forget it. Refused while it runs, unless by force."""
        if found.is_running:
            if not force:
                message = f'cannot remove container "/{found.name}": container is running'
                raise Refused(409, f"{message}: stop the container before removing or force remove")
            found.stopping = True
            with contextlib.suppress(Refused):  # it has just ended
                await self.signal(found, signal.SIGKILL)
            await self._settled(found)
        if found.id not in self.records:
            return
        found.state = "removing"
        self._resolve(found.exits, found.code)
        if found.attached is not None:
            found.attached.finish(found.code)
        del self.records[found.id]
        self.containers.remove(found.network)
        self.execs.forget(found)
        self.tell(found, "destroy")
        self._resolve(found.removals, found.code)

    def rename(self, found: Record, name: str) -> None:
        """Call it otherwise. Its port in the World keeps its name until it is started again."""
        old = found.name
        self.containers.rename(found.network, name.removeprefix("/"))
        self.tell(found, "rename", oldName=f"/{old}")

    async def wait(self, found: Record, condition: str) -> int:
        """Its exit code, once it has ended (`next-exit`, `not-running`) or is gone (`removed`)."""
        if condition in ("", "not-running") and not found.is_running:
            return found.code
        waiting: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        rows = found.removals if condition == "removed" else found.exits
        rows.append(waiting)
        try:
            return await waiting
        finally:
            if waiting in rows:
                rows.remove(waiting)

    # Networks

    async def create_network(self, wish: NetworkWish) -> Network:
        """Make a network and its bridge. Refused."""
        network = self.networks.create(wish, time.time_ns())
        await self.ground.reshape()
        self.tell_network(network, "create")
        return network

    async def remove_network(self, word: str) -> Network:
        """Take a network and its bridge away. Refused where somebody is on it."""
        network = self.networks.find(word)
        self.networks.remove(word, (one.name for one, _ in self.containers.on(network)))
        await self.ground.reshape()
        self.tell_network(network, "destroy")
        return network

    async def connect(self, found: Record, word: str, place: Place) -> None:
        """Join a container to one more network. Refused."""
        async with self._changing:
            network = self.containers.connect(found.network, word, place)
            attachment = found.network.attachments.get(network.id)
            if attachment is None:
                return
            try:
                await self.ground.add(found.sandbox, attachment, network.mtu)
            except (KeeperRefused, ValueError) as error:
                self.containers.disconnect(found.network, network.id)
                raise Refused(500, f"cannot connect {found.name} to {network.name}: {error}") from None
            await self.ground.reshape()
            await self._proxies.serve(found.network)
            if container_files.has_names(self, found):
                await self._resolvers.serve(found)
                await self._write(found, "/etc/resolv.conf", container_files.resolver(self, found))
        self.tell_network(network, "connect", found)

    async def disconnect(self, found: Record, word: str, *, force: bool) -> None:
        """Take a container off a network. Refused."""
        async with self._changing:
            network = self.containers.disconnect(found.network, word, force=force)
            if found.is_running:
                await self.ground.reshape()
                await self._proxies.serve(found.network)
        self.tell_network(network, "disconnect", found)

    # What is told

    def tell(self, found: Record, action: str, **more: str) -> None:
        """An event of a container."""
        labels = {name: str(text) for name, text in (found.body.get("Labels") or {}).items()}
        self.events.tell("container", action, found.id, {**labels, "image": found.image, "name": found.name, **more})

    def tell_network(self, network: Network, action: str, found: Record | None = None) -> None:
        """An event of a network."""
        more = {} if found is None else {"container": found.id}
        self.events.tell("network", action, network.id, {**more, "name": network.name, "type": network.driver})

    def new_process(self, found: Record) -> Process:
        """What its next run will be, for clients who attach before that."""
        return Process(terminal=found.terminal, stdin=bool(found.body.get("OpenStdin")), log=found.log)

    # Within

    async def _begin(self, found: Record, process: Process) -> None:
        variables = variables_of(found, terminal=found.terminal)
        argv = found.argv
        if argv and self.ground.programs is not None:
            why = missing(argv[0], variables.get("PATH", PATH))
            if why:
                message = "failed to create task for container: OCI runtime create failed: unable to start container"
                raise Refused(400, f"{message} process: {why}: unknown")
        self.containers.join(found.network)
        try:
            await self._make_sandbox(found)
            await self.ground.reshape()
            await self._proxies.serve(found.network)
            if container_files.has_names(self, found):
                await self._resolvers.serve(found)
            if argv and self.ground.programs is not None:
                spec = ProgramSpec(
                    tuple(argv),
                    variables,
                    directory_of(found),
                    found.terminal,
                    own_processes=True,
                    user=user_of(str(found.body.get("User") or "")),
                )
                await process.start(self.ground.programs, found.sandbox, spec)
            elif not argv:
                ports = {(one.protocol.upper(), one.target) for one in found.network.bindings}
                ports |= {(protocol.upper(), port) for port, protocol in found.network.exposed}
                await self.ground.answer(self.host, found.id, found.name, found.sandbox, sorted(ports))
        except BaseException:
            await self._leave(found)
            raise

    async def _make_sandbox(self, found: Record) -> None:
        found.own_sandbox = False
        if found.network.mode == "host":
            found.sandbox = self.host
        elif found.network.shares:
            found.sandbox = self.records[found.network.shares].sandbox
        else:
            mtus = {network.id: network.mtu for network in self.networks}
            files = container_files.files_of(self, found)
            binds = read_binds(self.folder, found.host_config)
            sysctls = {str(name): str(text) for name, text in (found.host_config.get("Sysctls") or {}).items()}
            found.sandbox = await self.ground.make(
                self.host,
                found.id,
                found.hostname,
                list(found.network.attachments.values()),
                mtus,
                files,
                binds,
                sysctls,
            )
            found.own_sandbox = True

    async def _write(self, found: Record, path: str, text: str) -> None:
        """Change a file of a container that runs."""
        if self.ground.programs is None:
            return
        done = asyncio.Event()
        spec = ProgramSpec(("/bin/sh", "-c", 'printf %s "$1" > "$2"', "sh", text, path), {"PATH": PATH})
        with contextlib.suppress(KeeperRefused):  # it has just ended
            await self.ground.programs.start(found.sandbox, spec, lambda _: done.set())
            await done.wait()

    async def _leave(self, found: Record) -> None:
        """Its network and its sandbox go, and those who live in them."""
        self._proxies.end(found.id)
        self._resolvers.end(found.id)
        self.ground.silence(found.id)
        had = self._networks_of(found)
        self.containers.leave(found.network)
        await self.ground.reshape()
        if found.own_sandbox:
            await self.ground.remove(found.sandbox)
            found.own_sandbox = False
        for network in had:
            self.tell_network(network, "disconnect", found)

    async def _did_not_begin(self, found: Record, process: Process, error: Refused) -> None:
        text = str(error)
        found.code = 127 if "not found" in text or "no such file" in text else _NEVER_RAN
        found.error, found.finished = text, time.time_ns()
        process.finish(found.code)
        self._resolve(found.exits, found.code)
        if found.host_config.get("AutoRemove"):
            await self.remove(found)

    async def _watch(self, found: Record, process: Process) -> None:
        """Until its program has ended; then what follows from that."""
        await process.ended.wait()
        async with self._changing:
            await self._leave(found)
        found.settled.set()
        self._resolve(found.exits, found.code)
        policy = (found.host_config.get("RestartPolicy") or {}).get("Name") or "no"
        if found.host_config.get("AutoRemove"):
            await self.remove(found)
        elif not found.stopping and (policy in ("always", "unless-stopped") or (policy == "on-failure" and found.code)):
            found.restarts += 1
            pause = FIRST_PAUSE * 2 ** (found.restarts - 1)
            await asyncio.sleep(min(pause, LONGEST_PAUSE))
            while self.is_dark:
                await asyncio.sleep(LONGEST_PAUSE / 60)
            if found.id in self.records and not found.is_running:
                with contextlib.suppress(Refused):  # it is told in its state
                    await self.start(found)

    def _note_end(self, found: Record, process: Process) -> None:
        found.state, found.code, found.finished = "exited", process.code, time.time_ns()
        seconds = (found.finished - found.started) // 10**9
        self.tell(found, "die", exitCode=str(found.code), execDuration=str(seconds))

    async def _settled(self, found: Record) -> None:
        """Until it has ended and its network is gone."""
        if found.process is not None:
            await found.settled.wait()

    def _networks_of(self, found: Record) -> list[Network]:
        return [self.networks.items[number] for number in found.network.attachments]

    def _resolve(self, rows: Iterable[asyncio.Future[int]], code: int) -> None:
        for waiting in list(rows):
            if not waiting.done():
                waiting.set_result(code)

    def task(self, work: Coroutine[Any, Any, Any]) -> None:
        """Let something go on as long as the lab does."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
