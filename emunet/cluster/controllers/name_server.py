"""The cluster's name server: the Service `kube-dns` and the Deployment `coredns` behind it, made once.

By default they are made when the cluster has its first Service: a lab without one has no name that its hosts'
files do not have. What a person makes of them afterwards (more of them, none, one's own) stays as it is.

Rule of this file: objects as any others; whoever runs pods knows the name server by its image
(`desired.NAME_SERVER_IMAGE`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from emunet.cluster.controllers.actions import NOTHING, Action, Create, Outcome, Watch
from emunet.cluster.desired import NAME_SERVER_IMAGE, Cluster, DnsWish
from emunet.cluster.store import Change, Key, Object, View, meta
from emunet.cluster.zone import DNS_SERVICE, dns_address
from emunet.packet.address import format_ip

DEPLOYMENT = ("kube-system", "coredns")
_LABELS = {"k8s-app": "kube-dns"}
_FIRST = {("default", "kubernetes"), DNS_SERVICE}
"""Services that ask for no name server."""


class NameServer:
    """Makes the name server when it is wanted. `cluster` says whether it is."""

    name = "name-server"
    key = Key("services", *DNS_SERVICE)

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.watches: Mapping[str, Watch] = {"services": self._of_service}
        self._made = False

    def step(self, view: View, key: Key, now: int) -> Outcome:
        """Make what is not there, unless it was made before."""
        if self._made or not self._is_wanted(view):
            return NOTHING
        self._made = True
        actions: list[Action] = []
        if view.get("services", *DNS_SERVICE) is None:
            actions.append(Create(_service(self.cluster)))
        if view.get("deployments.apps", *DEPLOYMENT) is None:
            actions.append(Create(_deployment()))
        return Outcome(tuple(actions))

    def _of_service(self, view: View, change: Change) -> Iterator[Key]:
        if not self._made and change.verb != "DELETED":
            yield self.key

    def _is_wanted(self, view: View) -> bool:
        wish = self.cluster.dns.wish
        if wish is not DnsWish.AUTO:
            return wish is DnsWish.ON
        return any((meta(one)["namespace"], meta(one)["name"]) not in _FIRST for one in view.items("services"))


def _service(cluster: Cluster) -> Object:
    namespace, name = DNS_SERVICE
    labels = {**_LABELS, "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}
    address = format_ip(dns_address(cluster.ranges.services[0]))
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {
            "clusterIP": address,
            "selector": _LABELS,
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ],
        },
    }


def _deployment() -> Object:
    namespace, name = DEPLOYMENT
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"namespace": namespace, "name": name, "labels": _LABELS},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": _LABELS},
            "template": {
                "metadata": {"labels": _LABELS},
                "spec": {
                    "dnsPolicy": "Default",
                    "containers": [{"name": "coredns", "image": NAME_SERVER_IMAGE, "imagePullPolicy": "Never"}],
                },
            },
        },
    }
