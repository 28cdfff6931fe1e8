"""The caretaker: keeps a running lab as its objects want it.

    objects change -> controllers work -> pods wanted -> plan -> sandboxes, World -> programs
                                                                      |
    facts (addresses, programs that run, have ended) <----------------+

It wakes when an object changes, when a controller is due, and when something of a pod has ended.

Rule of this file: one pass at a time; whatever cannot be built is told of its pod, and the rest goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from emunet.cluster.assign import Allocation, assign
from emunet.cluster.control_plane import ControlPlane
from emunet.cluster.controllers.kubelet import PodFact
from emunet.cluster.desired import Desired, Pod
from emunet.cluster.docker.containers import Containers as EngineContainers
from emunet.cluster.docker.values import Engine
from emunet.cluster.gateway import with_way_out
from emunet.cluster.load import BadInput, load_files
from emunet.cluster.manifests import read_manifests
from emunet.cluster.plan import AddPod, PodState, RemovePod, ReplacePod, State, plan, target
from emunet.cluster.pod_files import NO_SERVER
from emunet.cluster.policing import Policing
from emunet.cluster.service_rows import HealthCheck
from emunet.cluster.store import Key, Object, meta
from emunet.cluster.targets import cluster_addresses
from emunet.daemon.containers import Containers
from emunet.daemon.kube.backend import Bell
from emunet.daemon.names import Names
from emunet.daemon.pod_run import PodRun
from emunet.daemon.programs import Programs
from emunet.daemon.resolvers import Resolvers
from emunet.daemon.responders import Declared, Responders
from emunet.daemon.running import ContainerState, RunningLab
from emunet.daemon.sandboxes import bridge_spec, hosts_file, known_gateways, name_files, pod_spec
from emunet.daemon.settings import Settings
from emunet.daemon.supplies import Files, Supplies, parts
from emunet.daemon.volumes import MODE, binds_of, with_account
from emunet.elements.responder import to_row
from emunet.fabric.config import ServicePort
from emunet.lab.answers import answers_of, health_answers
from emunet.lab.plane import Answers
from emunet.linux import limits, way_out
from emunet.linux.keeper_client import KeeperGone, KeeperRefused, SandboxEnded
from emunet.linux.keeper_requests import AttachInterfaces, CreateSandbox, RemoveSandbox, WriteFiles
from emunet.linux.specification import SandboxSpec
from emunet.packet.address import format_ip

BEGIN_SECONDS = 2.0
"""How long `emunet up` waits until programs are executed, or are found not to be there."""

READY_SECONDS = 20.0
"""How long it waits besides for probes to succeed."""

RETRY_SECONDS = 5.0

Tell = Callable[[str, str], None]


class Caretaker:
    """The control plane of a running lab, and who carries out what it wants."""

    def __init__(self, settings: Settings, tell: Tell) -> None:
        """Read the files, and let the controllers make pods of what they say. BadInput with all that is wrong."""
        self.settings = settings
        self.stores: Path | None = None
        """The folder of the lab's own where each host has one that its pods may share (hostPath)."""
        self.bell = Bell()
        self._began = time.monotonic_ns()
        self._ahead = 0
        self._wake = asyncio.Event()
        self._lab: RunningLab | None = None
        self._programs: Programs | None = None
        self.engines: dict[str, EngineContainers] = {}
        """The container engines of hosts, as far as somebody has asked for them."""
        self._bridges: set[str] = set()
        """The engines' bridges that have their TAP in their host's sandbox, as edges (`host1:docker0`)."""
        self._building = asyncio.Lock()
        self._responders: Responders | None = None
        self._checks: tuple[HealthCheck, ...] = ()
        self._server: str | None = None
        """The address of the cluster's name server as pods were told of it; None where there is none."""
        self._told: list[str] = []
        """The pods that answer for names, on memory wires, as the plane was told."""
        before = os.getcwd()
        os.chdir(settings.directory)  # files are named as the person named them, in errors too
        try:
            documents = load_files(settings.files)
        finally:
            os.chdir(before)
        _, objects, desired = read_manifests(documents)
        if settings.internet:
            cluster = with_way_out(desired.cluster, way_out.machine_resolver(), way_out.carries_ipv6())
            desired = replace(desired, cluster=cluster)
        self.control = ControlPlane(desired.cluster, settings.seed, epoch=time.time_ns())
        faults, warnings = self.control.check(objects)
        if faults:
            raise BadInput(faults)
        for warning in sorted([*desired.warnings, *warnings]):
            tell("warning", str(warning))
        self._supplies = Supplies(self.control.store)
        self.control.apply(objects, 0, {(pod.namespace, pod.name): pod.host for pod in desired.pods})
        self._policing = Policing()
        self.desired = Desired(
            desired.cluster, self.control.settle(0), self.control.policies(), self.control.services()
        )
        self._server = self.control.names.server
        self._allocation = assign(self.desired, Allocation(), settings.seed)
        self.state = target(self.desired, self._allocation, settings.seed, self._policing)
        self.containers = Containers(self.control, None, self.now, self._wake.set)
        self.control.store.listeners.append(lambda _: self._changed())

    def _changed(self) -> None:
        self.bell.ring()
        self._wake.set()

    def now(self) -> int:
        """Lab time: that of the wall, as fast as the lab runs, and ahead by what was jumped."""
        return int((time.monotonic_ns() - self._began) * self.settings.speed) + self._ahead

    def jump(self, nanoseconds: int) -> None:
        """Lab time has jumped ahead."""
        self._ahead += nanoseconds
        self._wake.set()

    # From the lab's beginning to its end

    async def begin(self, lab: RunningLab, tell: Tell) -> None:
        """The sandboxes are there: start what is to run in them, and wait until it does."""
        self._lab = lab
        if lab.keeper is not None:
            self._programs = Programs(lab.keeper)
            self.containers = Containers(self.control, self._programs, self.now, self._wake.set)
            self.containers.register = self._register
            self.containers.missed = lab.notice
            self.containers.keeper = lab.keeper
            self.containers.resolvers = Resolvers(self.control.names)
            self._responders = Responders(lab.keeper, self._programs)
            lab.freeze_changed = self._responders.pause
        lab.listeners.append(self._hear)
        lab.power_changed = self.power
        lab.names_changed = self.containers.let_resolvers_run
        lab.is_ready = self._is_ready
        lab.names = Names(lab.state, self._services)
        await self._settle_in(lab.state.pods)
        await self._converge()
        deadline = time.monotonic() + BEGIN_SECONDS
        while self._is_starting() and time.monotonic() < deadline:
            await asyncio.sleep(0.002)
        await self._converge()
        deadline = time.monotonic() + READY_SECONDS
        while (waited := self._probed()) and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), 0.1)
            await self._converge()
        for name in waited:
            tell("warning", f"{name}: not ready after {READY_SECONDS:g} s: its probe has not succeeded")
        for state in lab.containers.values():
            if state.failure is not None:
                tell("warning", f"{state.pod}: the container {state.name} could not be started: {state.failure}")

    def power(self, device: str, on: bool) -> None:
        """A device lost its power or got it back. A host without power is a node that says nothing more."""
        if any(host.name == device for host in self.control.cluster.nodes):
            self.control.set_power(device, on=on, now=self.now())
            self.containers.power(device, on)
            if self._responders is not None:
                self._responders.power(device, on)
            self._wake.set()

    def _services(self) -> dict[str, list[bytes]]:
        """The addresses of each Service, as they are now."""
        return cluster_addresses(self.control.store)

    def _is_ready(self, uid: str, port: str) -> bool:
        """Whether a pod is ready by its own account: its programs run and its probes are content."""
        namespace, _, name = port.rpartition("/")
        item = self.control.store.get("pods", namespace or "default", name)
        if item is None or meta(item)["uid"] != uid:
            return False
        conditions = item.get("status", {}).get("conditions", ())
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def _probed(self) -> list[str]:
        """The containers that run and wait for a good answer to a probe."""
        return [
            f"{meta(run.pod)['name']}: the container {slot.name}"
            for run in self.containers.runs.values()
            for slot in run.slots.values()
            if slot.is_probed and slot.fact.state == "running" and not slot.fact.ready
        ]

    def _is_starting(self) -> bool:
        """Whether a program that the keeper has forked is not yet the program itself."""
        for run in self.containers.runs.values():
            for slot in run.slots.values():
                if slot.number < 0 or (slot.number and not _has_begun(slot.pid)):
                    return True
                if slot.feed is not None and not slot.feed.answers:
                    return True
        return False

    async def run(self) -> None:
        """Keep the lab, until cancelled."""
        while True:
            due = self.control.due()
            seconds = None if due is None else max(0.0, (due - self.now()) / 1e9 / self.settings.speed)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), seconds)
            try:
                await self._converge()
            except (KeeperGone, ConnectionError):
                return
            except Exception:  # a fault of ours must not end the lab: it tries again when something changes
                traceback.print_exc()
                await asyncio.sleep(RETRY_SECONDS)

    def close(self) -> None:
        """The lab is ending."""
        if self._responders is not None:
            self._responders.close()
        self.containers.close()

    def _hear(self, what: object) -> None:
        if self._programs is not None and not isinstance(what, SandboxEnded):
            self._programs.hear(what)  # type: ignore[arg-type]
        if isinstance(what, SandboxEnded):
            self._lost(what.sandbox)
            if self._responders is not None:
                self._responders.hear(what)
        self._wake.set()

    def _lost(self, sandbox: str) -> None:
        """The first process of a pod was killed. What a controller wants is made anew; others have failed."""
        for uid, run in list(self.containers.runs.items()):
            if run.sandbox != sandbox:
                continue
            pod = self.control.store.get("pods", meta(run.pod)["namespace"], meta(run.pod)["name"])
            self._forget(uid)
            if pod is not None and meta(pod)["uid"] == uid and meta(pod).get("ownerReferences"):
                self.control.note(pod, "SandboxChanged", "Pod sandbox was killed", self.now(), warning=True)
                status = {**pod.get("status", {}), "phase": "Failed", "reason": "SandboxKilled"}
                self.control.store.replace({**pod, "status": status}, self.now())

    def _forget(self, uid: str) -> None:
        """A pod's sandbox is gone, or about to go."""
        self.containers.forget(uid)
        self._supplies.forget(uid)
        if self._responders is not None:
            self._responders.leave(uid)

    # One pass

    async def _converge(self) -> None:
        """Until what is wanted is there and what is there is told."""
        while True:
            self._wake.clear()
            self._stop_ending()
            pods = self.control.settle(self.now())
            policies, services = self.control.policies(), self.control.services()
            wanted = replace(self.desired, pods=pods, policies=policies, services=services)
            if not wanted.differs_in_services_only(self.desired):
                async with self._building:
                    await self._build(replace(wanted, engines=self._wanted_engines()))
            elif services is not self.desired.services:
                async with self._building:
                    await self._serve(services)
            await self._tell_names()
            await self._tell_health()
            await self._supply()
            if not self.control.tell(self._facts()):
                if not self._wake.is_set():
                    return
                await asyncio.sleep(0)

    def _stop_ending(self) -> None:
        for pod in self.control.ending():
            uid = meta(pod)["uid"]
            if uid in self.containers.runs:
                self.containers.stop(uid, int(meta(pod).get("deletionGracePeriodSeconds", 0)))

    def _facts(self) -> dict[str, PodFact | None]:
        known = set(self.control.kubelet.facts)
        facts: dict[str, PodFact | None] = {uid: run.fact() for uid, run in self.containers.runs.items()}
        return facts | dict.fromkeys(known - facts.keys())

    async def _serve(self, services: tuple[ServicePort, ...]) -> None:
        """Let the lab's hosts carry out these Services; all else stays."""
        self.desired = replace(self.desired, services=services)
        self.state = replace(self.state, world=replace(self.state.world, services=services))
        if self._lab is not None:
            self._lab.state = self.state
            await self._lab.plane.change_services(services)

    async def reshape(self) -> None:
        """Take into the World what engines of hosts have come to want."""
        async with self._building:
            await self._build(replace(self.desired, engines=self._wanted_engines()))

    def _wanted_engines(self) -> tuple[Engine, ...]:
        return tuple(one.engine() for one in self.engines.values())

    async def _build(self, desired: Desired) -> None:
        """Make the lab one that has these pods and Services, under these policies, and what the engines of its hosts
        want.
        """
        lab = self._lab
        allocation = assign(desired, self._allocation, self.settings.seed)
        state = target(desired, allocation, self.settings.seed, self._policing)
        if lab is None:
            self.desired, self._allocation, self.state = desired, allocation, state
            return
        actions = plan(lab.state, state)
        old = {one.name: one for one in lab.state.pods}
        gone = [old[one.name] for one in actions if isinstance(one, RemovePod)]
        renewed = [old[one.pod.name] for one in actions if isinstance(one, ReplacePod)]
        new = [one.pod for one in actions if isinstance(one, (AddPod, ReplacePod))]
        names = Names(state, self._services)
        for pod in renewed:
            await self._remove(lab, pod)
        made = await self._make(lab, state, new)
        await self._make_bridges(lab, desired.engines)
        await lab.plane.configure(state.world)
        self.desired, self._allocation = desired, allocation
        lab.state = self.state = state
        lab.names = names
        for pod in gone:
            await self._remove(lab, pod)
        await self._settle_in([pod for pod in new if lab.keeper is None or pod.name in made])

    async def _make(self, lab: RunningLab, state: State, pods: list[PodState]) -> set[str]:
        """Make sandboxes and hand their TAPs over; the names of the pods that have one now."""
        if lab.keeper is None:
            return set()
        wanted = [(pod, self.specify(pod, state)) for pod in pods]
        answers = await asyncio.gather(
            *[lab.keeper.ask(CreateSandbox(spec)) for _, spec in wanted], return_exceptions=True
        )
        taps: list[tuple[str, int]] = []
        for (pod, spec), answer in zip(wanted, answers, strict=True):
            if isinstance(answer, BaseException):
                item = self._object_of(pod)
                if item is not None:
                    self.control.note(item, "FailedCreatePodSandBox", str(answer), self.now(), warning=True)
                raise answer
            lab.sandboxes[spec.id] = answer
            taps += [(pod.name, tap) for tap in answer.taps]
        await lab.plane.give_taps(taps)
        return {pod.name for pod, _ in wanted}

    async def _make_bridges(self, lab: RunningLab, engines: Sequence[Engine]) -> None:
        """The host's own side of each bridge of its engine that is new: a TAP in the host's sandbox."""
        wanted = {f"{one.host}:{network.interface}": (one.host, network) for one in engines for network in one.networks}
        self._bridges &= wanted.keys()
        for name in [name for name in wanted if name not in self._bridges and lab.keeper is not None]:
            host, network = wanted[name]
            assert lab.keeper is not None
            added = await lab.keeper.ask(AttachInterfaces(host, (bridge_spec(lab.settings, network),)))
            for descriptor in added.drop_counters:
                os.close(descriptor)
            await lab.plane.give_taps([(name, added.taps[0])])
            self._bridges.add(name)

    @property
    def responders(self) -> Responders | None:
        """What answers on ports that no program serves; None on memory wires."""
        return self._responders

    @property
    def programs(self) -> Programs | None:
        """What runs programs in sandboxes; None on memory wires."""
        return self._programs

    def specify(self, pod: PodState, state: State) -> SandboxSpec:
        """What the sandbox of a pod is to be: its network, the files of its volumes, those by which it finds names."""
        item = self._object_of(pod)
        known = known_gateways(pod, state.world) if limits.crowding(len(state.pods)) else ()
        if item is None:
            files = {"/etc/hosts": hosts_file(state), "/etc/resolv.conf": NO_SERVER}
            return pod_spec(pod, files, self.settings.offload, known)
        if item["spec"].get("setHostnameAsFQDN") and item["spec"].get("subdomain") and not pod.pod.full_name:
            why = "its full name has more than the 64 characters that Linux takes: the machine has its short one"
            self.control.note(item, "FailedSetHostnameAsFQDN", why, self.now(), warning=True)
        spec = pod_spec(pod, self._name_files(pod, item, state), self.settings.offload, known)
        assert self.stores is not None
        store = self.stores / pod.pod.host
        binds = binds_of(with_account(self.control.store, item), str(store))
        if any(one.within for one in binds):
            store.mkdir(parents=True, exist_ok=True)
        texts, modes = parts(self._supplies.first(item))
        return replace(spec, files={**spec.files, **texts}, modes=modes, binds=binds)

    def _name_files(self, pod: PodState, item: Object, state: State) -> dict[str, str]:
        return name_files(pod, item, state, self._server, self.control.cluster.dns.domain)

    async def _tell_names(self) -> None:
        """Let name servers know what has changed, and pods where the name server is."""
        update, lab = self.control.names.take(), self._lab
        if self.containers.resolvers is not None:
            self.containers.resolvers.tell(update)
        elif lab is not None:
            servers = [pod.port for pod in self.desired.pods if pod.is_name_server]
            if servers != self._told:
                update = self.control.names.whole()  # nobody was told of what has come and gone before
            if servers and update:
                await lab.plane.ask("names", line=update.encode().decode(), servers=servers)
            self._told = servers
        server = self.control.names.server
        if server == self._server:
            return
        self._server = server
        if lab is None or lab.keeper is None:
            return
        await self._write(lab, lambda pod, item: {
            path: (text, MODE) for path, text in self._name_files(pod, item, lab.state).items()
        })  # fmt: skip

    async def _supply(self) -> None:
        """Give pods what config maps and secrets say now; what waited for them begins."""
        if self._lab is not None and self._supplies.take_change():
            await self._write(self._lab, lambda _, item: self._supplies.news(item))
            self.containers.supplied()

    async def _write(self, lab: RunningLab, files: Callable[[PodState, Object], Files]) -> None:
        """Give each pod's sandbox files with another text, where it has any."""
        if lab.keeper is None:
            return
        requests = []
        for pod in lab.state.pods:
            item, place = self._object_of(pod), lab.names.places.get(pod.name)
            if item is not None and place is not None and place.sandbox in lab.sandboxes:
                wanted = files(pod, item)
                if wanted:
                    requests.append(WriteFiles(place.sandbox, *parts(wanted)))
        for answer in await asyncio.gather(*[lab.keeper.ask(one) for one in requests], return_exceptions=True):
            if isinstance(answer, KeeperRefused):  # it has ended meanwhile
                print(f"files of a pod stay as they were: {answer}", flush=True)
            elif isinstance(answer, BaseException):
                raise answer

    async def _remove(self, lab: RunningLab, pod: PodState) -> None:
        self._forget(pod.pod.uid)
        place = Names(State(self.state.world, self.state.hosts, (pod,))).places.get(pod.name)
        if lab.keeper is None or place is None:
            return
        for number in [number for number, one in lab.containers.items() if one.pod == pod.name]:
            del lab.containers[number]
        if place.sandbox in lab.sandboxes:
            lab.let_go(place.sandbox)
            with contextlib.suppress(KeeperRefused):
                await lab.keeper.ask(RemoveSandbox(place.sandbox))

    async def _settle_in(self, pods: Sequence[PodState]) -> None:
        """The networks of pods are there: their programs begin."""
        assert self._lab is not None
        runs: dict[str, PodRun] = {}
        for pod in pods:
            item = self._object_of(pod)
            if item is not None:
                place = self._lab.names.places[pod.name]
                addresses = tuple(format_ip(one.address) for one in place.addresses)
                runs[meta(item)["uid"]] = self.containers.add(item, place.sandbox, addresses)
        await self._respond({pod.pod.uid: pod.pod for pod in pods})
        self.control.tell({uid: run.fact() for uid, run in runs.items()})  # so that programs can be told their address
        self.control.settle(self.now())
        for uid in runs:
            self.containers.begin(uid)

    async def _respond(self, fresh: dict[str, Pod]) -> None:
        """Have declared ports answered, where no program of the pod's own will."""
        assert self._lab is not None
        runs = self.containers.runs
        if self._responders is None:
            answers = answers_of(self.desired.pods, lambda pod, container: False)
            told = [*answers, *self._health()]
            await self._lab.plane.ask("respond", answers=[[one.edge, to_row(one.identity), one.ports] for one in told])
            return
        served: list[tuple[PodRun, Declared]] = []
        for uid, pod in fresh.items():
            run = runs.get(uid)
            if run is None:
                continue
            for one in answers_of([pod], lambda _, container, run=run: container.name in run.slots):  # type: ignore[misc]
                served.append((run, Declared(uid, run.sandbox, one.identity, one.ports)))
        results = await asyncio.gather(
            *[self._responders.serve(declared) for _, declared in served], return_exceptions=True
        )
        for (run, _), answer in zip(served, results, strict=True):
            if isinstance(answer, BaseException) and not isinstance(answer, KeeperRefused):
                raise answer
            if answer:
                taken = [f"{port}/{protocol}" for protocol, port in answer] if isinstance(answer, list) else []
                why = f"taken already in this network: {', '.join(taken)}" if taken else str(answer)
                message = f"The responder cannot answer on all declared ports: {why}"
                self.control.note(run.pod, "FailedToRespond", message, self.now(), warning=True)

    def _health(self) -> tuple[Answers, ...]:
        """What hosts are to tell of Services."""
        return health_answers(self._checks, [host.name for host in self.control.cluster.nodes])

    async def _tell_health(self) -> None:
        """Let hosts tell what they have of Services now."""
        checks = self.control.health_checks()
        if self._lab is None or checks is self._checks:
            return
        self._checks = checks
        if self._responders is None:
            await self._respond({})
            return
        wanted = [
            Declared("/".join(map(str, to_row(one.identity)[:3])), one.identity.node, one.identity, one.ports)
            for one in self._health()
        ]
        for one in await self._responders.tell_health(wanted):
            name, namespace = to_row(one.identity)[:2]
            service = self.control.store.get("services", str(namespace), str(name).rpartition("/")[2])
            if service is not None:
                message = f"node {one.identity.node} cannot tell of it: its port {one.ports[0][1]} is taken already"
                self.control.note(service, "FailedToStartServiceHealthcheck", message, self.now(), warning=True)

    def _object_of(self, pod: PodState) -> Object | None:
        item = self.control.store.at(Key("pods", pod.pod.namespace, pod.pod.name))
        return item if item is not None and meta(item)["uid"] == pod.pod.uid else None

    def _register(self, run: PodRun, name: str, number: int, pid: int, program: str) -> None:
        """Let the lab know of a program, for its status and for those who join it."""
        assert self._lab is not None
        port = next((pod.name for pod in self._lab.state.pods if pod.pod.uid == meta(run.pod)["uid"]), "")
        known = self._lab.containers
        for old in [old for old, one in known.items() if (one.pod, one.name) == (port, name)]:
            del known[old]
        known[number] = ContainerState(port, name, program, pid)


def _has_begun(pid: int | None) -> bool:
    """Whether a process that the keeper has forked is the program by now; of one that has ended the keeper tells."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return bool(command) and b"emunet.linux.keeper" not in command
