"""The container engine of a lab's host, in memory: `lab.docker("host1")`.

    docker = lab.docker("host1")
    docker.run("web", ports=["8080:80"]).serve(80)
    docker.network("blue", subnet="10.9.0.0/24")

A container is a stack on memory wires, as a pod is, and is reached by its port's name (`host1/web`).

Rule of this file: it asks `cluster.docker` and lets the lab become what follows from that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from emunet.cluster.docker.containers import Container, Containers, Place
from emunet.cluster.docker.networks import NetworkWish, PoolWish
from emunet.cluster.docker.text import read_port
from emunet.cluster.docker.values import Network
from emunet.elements.responder import Identity
from emunet.lab.plane import Answers
from emunet.packet.address import Prefix, parse_ip


class LabDocker:
    """One host's engine. What cannot be raises `cluster.docker.networks.Refused`."""

    def __init__(self, containers: Containers, changed: Callable[[], None]) -> None:
        self.containers = containers
        self._changed = changed

    def answers(self) -> list[Answers]:
        """The published ports that are answered for containers, each of which is a placeholder here."""
        found = []
        for one in self.containers.items.values():
            ports = tuple(dict.fromkeys((row.protocol.upper(), row.target) for row in one.bindings))
            attachment = next(iter(one.attachments.values()), None)
            if ports and attachment is not None:
                host = self.containers.networks.host
                found.append(Answers(attachment.port, Identity(one.name, "", host), ports))
        return found

    @property
    def networks(self) -> list[Network]:
        """What `docker network ls` lists."""
        return list(self.containers.networks)

    def network(
        self, name: str, *, subnet: str | None = None, gateway: str | None = None, ipv6: bool = False,
        internal: bool = False, options: Iterable[tuple[str, str]] = (),
    ) -> Network:  # fmt: skip
        """Make a network."""
        pool = PoolWish(
            None if subnet is None else Prefix.parse(subnet), None if gateway is None else parse_ip(gateway)
        )
        pools = () if subnet is None else (pool,)
        made = self.containers.networks.create(
            NetworkWish(name, pools=pools, ipv6=ipv6, internal=internal, options=tuple(options))
        )
        self._changed()
        return made

    def remove_network(self, name: str) -> None:
        """Take a network away that nobody uses."""
        networks = self.containers.networks
        networks.remove(name, (one.name for one, _ in self.containers.on(networks.find(name))))
        self._changed()

    def run(
        self, name: str, *, network: str = "bridge", ip: str | None = None, aliases: Iterable[str] = (),
        ports: Iterable[str] = (), more: Iterable[str] = (),
    ) -> Container:  # fmt: skip
        """Start a container. `ports` are as `-p` takes them (`8080:80/tcp`), `more` further networks."""
        places = {word: Place() for word in (network, *more)}
        places[network] = Place(() if ip is None else (parse_ip(ip),), aliases=tuple(aliases))
        if network in ("none", "host") or network.startswith("container:"):
            places = {}
        wishes = [wish for text in ports for wish in read_port(text)]
        container = self.containers.add(name, network, places, wishes)
        try:
            self.containers.join(container)
        except Exception:
            self.containers.remove(container)
            raise
        self._changed()
        return container

    def stop(self, name: str) -> None:
        """End a container and forget it; those that live in its network end with it."""
        container = self.containers.find(name)
        for other in list(self.containers.items.values()):
            if other.shares == container.id:
                self.containers.leave(other)
        self.containers.leave(container)
        self.containers.remove(container)
        self._changed()

    def connect(self, name: str, network: str, *, ip: str | None = None, aliases: Iterable[str] = ()) -> None:
        """Join a container to one more network."""
        place = Place(() if ip is None else (parse_ip(ip),), aliases=tuple(aliases))
        self.containers.connect(self.containers.find(name), network, place)
        self._changed()

    def disconnect(self, name: str, network: str) -> None:
        """Take a container off a network."""
        self.containers.disconnect(self.containers.find(name), network)
        self._changed()
