"""The control plane of a lab: the store, the controllers, and what both want of the network.

    plane = ControlPlane(cluster, seed=0)
    plane.apply(documents, now)         objects from files
    plane.request(now).create(...)      objects from clients
    plane.settle(now)                   let the controllers work; gives the pods that are wanted

Whoever builds the lab tells it what there is: `facts` of pods, hosts that are silent.

Rule of this file: it joins the parts and decides nothing that one of them could.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

from emunet.cluster import defaults
from emunet.cluster.bound import bound_pods
from emunet.cluster.controllers.actions import Note
from emunet.cluster.controllers.balancers import Pool
from emunet.cluster.controllers.everything import controllers
from emunet.cluster.controllers.kubelet import Kubelet, PodFact
from emunet.cluster.controllers.name_server import NameServer
from emunet.cluster.controllers.namespaces import Authority, Namespaces
from emunet.cluster.controllers.nodes import LEASES, Health, lease_of, node_of
from emunet.cluster.controllers.pods import is_terminating, pod_key
from emunet.cluster.controllers.runner import Runner
from emunet.cluster.controllers.scheduler import heeds_others
from emunet.cluster.custom import kind_of
from emunet.cluster.desired import Cluster, Host, Pod
from emunet.cluster.events import record
from emunet.cluster.kinds import Kind, NoSuchKind
from emunet.cluster.load import BadInput, Document, Problem
from emunet.cluster.moments import DEFAULT_EPOCH, to_text_micro
from emunet.cluster.policies import PolicyReader, PolicySet, policy_of
from emunet.cluster.policy_warnings import candidates, stored
from emunet.cluster.policy_warnings import warnings as policy_warnings
from emunet.cluster.refused import problems_of
from emunet.cluster.requests import Request, Rules, Validation
from emunet.cluster.service_rows import HealthCheck, ServiceRows
from emunet.cluster.status import StatusError
from emunet.cluster.store import Change, Key, Object, Store, meta
from emunet.cluster.zone import ZoneOf
from emunet.fabric.config import ServicePort
from emunet.packet.address import format_ip

FIRST_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


class ControlPlane:
    """The objects of one lab, and who keeps them."""

    def __init__(self, cluster: Cluster, seed: int = 0, epoch: int = DEFAULT_EPOCH, now: int = 0) -> None:
        self.cluster = cluster
        self.store = Store(seed, epoch)
        self.health = Health()
        self.kubelet = Kubelet(self.health)
        self.rules = Rules()
        self.pool = Pool()
        self._authority = Authority()
        self._built_in = {kind.resource for kind in self.store.kinds}
        self._retired: list[Kind] = []
        self._policies = PolicyReader(self.store)
        self.store.listeners.append(self._learn)
        self.names = ZoneOf(self.store, cluster)
        self.name_server = NameServer(cluster)
        self._service_rows = ServiceRows(self.store)
        self.store.listeners.append(self._service_rows.hear)
        kept = controllers(self.health, self.kubelet, self.pool, self._authority)
        self.runner = Runner(self.store, (self.name_server, *kept), self.rules)
        self._begin(now)

    # What may be asked

    def request(
        self, now: int, api_version: str = "", validation: Validation = "Warn", *, dry_run: bool = False
    ) -> Request:
        """A request of a client."""
        return Request(self.store, now, self.rules, api_version, validation, dry_run)

    def settle(self, now: int) -> tuple[Pod, ...]:
        """Let the controllers work until there is nothing left to do; the pods that are to be in the lab."""
        self.runner.run(now)
        for kind in self._retired:
            for item in list(self.store.items(kind.resource)):
                self.store.remove(self.store.key(kind, item))
            self.store.kinds.remove(kind.resource)
        self._retired.clear()
        return self.wanted()

    def wanted(self) -> tuple[Pod, ...]:
        """The pods that are to be in the lab: those that have stopped are not."""
        stopped = {uid for uid, fact in self.kubelet.facts.items() if fact.stopped}
        pods = bound_pods(self.store, self.cluster, self.health.silent)
        return tuple(pod for pod in pods if pod.uid not in stopped)

    def services(self) -> tuple[ServicePort, ...]:
        """The Services that hosts are to carry out: the same object while nothing changed."""
        return self._service_rows.rows()

    def health_checks(self) -> tuple[HealthCheck, ...]:
        """The Services of whose endpoints hosts tell: the same object while nothing changed."""
        return self._service_rows.health_checks()

    def policies(self) -> PolicySet:
        """The policies that are wanted; the same value while they are the same."""
        return self._policies.read()

    def due(self) -> int | None:
        """When the controllers have something to do by themselves."""
        return self.runner.due()

    def ending(self) -> list[Object]:
        """The pods that were asked to end and are still in the lab. A host that is silent does not hear of it."""
        return [
            pod
            for pod in self.store.items("pods")
            if is_terminating(pod) and pod["spec"].get("nodeName") and pod["spec"]["nodeName"] not in self.health.silent
        ]

    def find(self, word: str) -> Kind:
        """The kind that a person calls so: `pods`, `po`, `deploy`, `deployments.apps`. KeyError."""
        kind = self.store.kinds.find(word)
        if kind is None:
            raise KeyError(f"the server doesn't have a resource type {word!r}")
        return kind

    # What is told

    def tell(self, facts: Mapping[str, PodFact | None]) -> bool:
        """What there is of pods, by uid; None where there is nothing any more. True where that is news."""
        changed = []
        for uid, fact in facts.items():
            if self.kubelet.facts.get(uid) == fact:
                continue
            if fact is None:
                self.kubelet.facts.pop(uid, None)
            else:
                self.kubelet.facts[uid] = fact
            changed.append(uid)
        if changed:
            wanted = set(changed)
            keys = [pod_key(pod) for pod in self.store.items("pods") if meta(pod)["uid"] in wanted]
            self.runner.mark(self.kubelet.name, keys)
        return bool(changed)

    def trust(self, certificate: str) -> None:
        """The lab's API server has this certificate (PEM): each namespace has it in a config map."""
        self._authority.certificate = certificate
        keys = [Key("namespaces", "", meta(one)["name"]) for one in self.store.items("namespaces")]
        self.runner.mark(Namespaces.name, keys)

    def set_power(self, host: str, *, on: bool, now: int) -> None:
        """A host is switched on or off. KeyError where there is none of that name.

        Its kubelet registers it as it begins, where somebody has deleted its Node.
        """
        machine = self.cluster.host(host)
        if on:
            self.health.silent.pop(host, None)
            if self.store.get("nodes", "", host) is None:
                self._register(machine, now)
        else:
            self.health.silent.setdefault(host, now)
        self.runner.mark("node-controller", [Key("nodes", "", host)])
        self.runner.mark(self.kubelet.name, [pod_key(pod) for pod in self.store.pods_on(host)])

    def set_cluster(self, cluster: Cluster, now: int) -> None:
        """The machines have changed: nodes come, go and are relabelled."""
        self.cluster = cluster
        self.names.set_cluster(cluster)
        self.name_server.cluster = cluster
        self.runner.mark(self.name_server.name, [self.name_server.key])
        self._set_rules()
        names = {host.name for host in cluster.nodes}
        for node in list(self.store.items("nodes")):
            if meta(node)["name"] not in names:
                self.store.delete(Key("nodes", "", meta(node)["name"]), now)
        for host in cluster.nodes:
            wanted = node_of(host)
            old = self.store.get("nodes", "", host.name)
            if old is None:
                self._register(host, now)
            else:
                labels = {**meta(old).get("labels", {}), **meta(wanted)["labels"]}
                spec = {**old["spec"], **wanted["spec"]}
                state = {**old["status"], "addresses": wanted["status"]["addresses"]}
                changed = {**old, "metadata": {**meta(old), "labels": labels}, "spec": spec, "status": state}
                self.store.replace(changed, now)

    def _register(self, host: Host, now: int) -> None:
        """The kubelet of a host makes itself known."""
        node = self.store.insert(node_of(host), now)
        lease = lease_of(node, to_text_micro(now, self.store.epoch))
        old = self.store.get(self.store.kind_of(lease).resource, LEASES, host.name)
        if old is not None:  # of the Node before this one
            self.store.remove(self.store.key(self.store.kind_of(old), old))
        self.store.insert(lease, now)

    def note(self, pod: Object, reason: str, message: str, now: int, *, warning: bool = False) -> None:
        """Tell something of a pod, as the kubelet does."""
        record(self.store, Note(pod, reason, message, "kubelet", "Warning" if warning else "Normal"), now)

    # Objects from files

    def check(self, documents: Sequence[Document]) -> tuple[list[Problem], list[Problem]]:
        """(what is wrong with objects of files, what is worth knowing); nothing is stored."""
        faults: list[Problem] = []
        warnings: list[Problem] = []
        for document in documents:
            try:
                kind = self.store.kinds.of(str(document.data.get("apiVersion")), str(document.data.get("kind")))
            except NoSuchKind as error:
                faults.append(document.problem(("kind",), str(error)))
                continue
            if not kind.effect:
                message = f"kept and listed; a {kind.name} has no effect on the network"
                warnings.append(document.problem(("kind",), message))
            request = self.request(0, str(document.data["apiVersion"]), "Strict", dry_run=True)
            try:
                request.check_object(kind, document.data)
            except StatusError as error:
                faults += problems_of(document, error)
        warnings += self._policy_warnings([document for document in documents if not faults])
        return faults, warnings

    def _policy_warnings(self, documents: Sequence[Document]) -> Iterator[Problem]:
        """Of the policies among sound documents, with the pods that come with them."""
        pods = [*stored(self.store), *candidates(document.data for document in documents)]
        for document in documents:
            if document.data.get("kind") == "NetworkPolicy":
                item = copy.deepcopy(document.data)
                item["metadata"].setdefault("namespace", "default")
                defaults.fill("NetworkPolicy", item, str(item["apiVersion"]))
                for sentence in policy_warnings(policy_of(item), pods):
                    yield document.problem(("metadata", "name"), sentence)

    def apply(
        self, documents: Sequence[Document], now: int, places: Mapping[tuple[str, str], str] | None = None
    ) -> list[Object]:
        """Make objects of files, or change those that are there; BadInput with all that is wrong, and nothing done.

        Namespaces that objects are in and that nobody made are made. `places` binds new pods to hosts, unless where
        others are matters to them. A pod that cannot become what its file says is made anew.
        """
        faults, _ = self.check(documents)
        if faults:
            raise BadInput(faults)
        ordered = sorted(documents, key=lambda one: one.data["kind"] not in ("Namespace", "CustomResourceDefinition"))
        made = []
        for document in ordered:
            try:
                made.append(self._apply(document.data, now, places or {}))
            except StatusError as error:
                raise BadInput(problems_of(document, error)) from None
        return made

    def _apply(self, data: Object, now: int, places: Mapping[tuple[str, str], str]) -> Object:
        kind = self.store.kinds.of(data["apiVersion"], data["kind"])
        request = self.request(now, data["apiVersion"], "Strict")
        metadata = data.get("metadata") or {}
        namespace = (metadata.get("namespace") or "default") if kind.namespaced else ""
        if namespace and self.store.get("namespaces", "", namespace) is None:
            request.create(self.store.kind("namespaces"), {"metadata": {"name": namespace}})
        old = self.store.get(kind.resource, namespace, metadata.get("name") or "")
        if kind.name == "Pod":
            node = (data.get("spec") or {}).get("nodeName")
            is_placed = old is None and not heeds_others(data.get("spec") or {})
            host = node or (places.get((namespace, metadata.get("name", ""))) if is_placed else None)
            if old is not None and not host:
                host = old["spec"].get("nodeName")
            if host:
                data = {**data, "spec": {**data["spec"], "nodeName": host}}
        if old is None:
            return request.create(kind, data, namespace)
        try:
            return request.update(kind, namespace, meta(old)["name"], data)
        except StatusError:
            if kind.name != "Pod":
                raise
            self.store.delete(self.store.key(kind, old), now, grace=0)
            return request.create(kind, data, namespace)

    def _learn(self, change: Change) -> None:
        """A CustomResourceDefinition brings a kind, or takes it away with all its objects."""
        if change.kind.name in ("NetworkPolicy", "Namespace"):
            self._policies.changed()
        if change.kind.name != "CustomResourceDefinition":
            return
        kind = kind_of(change.item)
        if kind is None or kind.resource in self._built_in:
            return
        self._retired = [one for one in self._retired if one.resource != kind.resource]
        if change.verb == "DELETED":
            self._retired.append(kind)
        else:
            self.store.kinds.add(kind)

    # The beginning

    def _set_rules(self) -> None:
        links = {link.name: "link" for link in self.cluster.links}
        switches = {switch.name: "switch" for switch in self.cluster.switches}
        self.rules.names = links | switches | {host.name: "host" for host in self.cluster.hosts}
        self.rules.service_ranges = self.cluster.ranges.services
        self.pool.prefixes = self.cluster.ranges.balancers

    def _begin(self, now: int) -> None:
        self._set_rules()
        request = self.request(now)
        for name in FIRST_NAMESPACES:
            request.create(self.store.kind("namespaces"), {"metadata": {"name": name}})
        self.set_cluster(self.cluster, now)
        self._authority.address = format_ip(self.cluster.ranges.services[0].nth(1))
        self.runner.run(now)
