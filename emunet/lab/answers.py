"""Which declared ports are answered by the responder, of which pods; and where hosts tell of the health of Services.

Rule of this file: a container that runs a program of its own answers for itself, its pod's others do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from emunet.cluster.desired import Container, Pod
from emunet.cluster.service_rows import HealthCheck
from emunet.elements.responder import Health, Identity
from emunet.lab.plane import Answers


def answers_of(pods: Iterable[Pod], is_program: Callable[[Pod, Container], bool]) -> tuple[Answers, ...]:
    """What is answered, in the order of the pods; `is_program` says of a container that it is no placeholder."""
    found = []
    for pod in pods:
        ports = dict.fromkeys(
            (port.protocol, port.number)
            for container in pod.containers
            if not is_program(pod, container)
            for port in container.ports
            if port.protocol in ("TCP", "UDP")
        )
        if ports:
            edge = f"{pod.host}:eth0" if pod.host_network else pod.port
            found.append(Answers(edge, Identity(pod.name, pod.namespace, pod.host), tuple(ports)))
    return tuple(found)


def health_answers(checks: Iterable[HealthCheck], hosts: Iterable[str]) -> tuple[Answers, ...]:
    """Each host tells how many endpoints of each such Service are on it."""
    names = tuple(hosts)
    return tuple(
        Answers(
            f"{host}:eth0",
            Health(one.service, one.namespace, host, dict(one.endpoints).get(host, 0)),
            (("TCP", one.port),),
        )
        for one in checks
        for host in names
    )
