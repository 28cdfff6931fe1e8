"""What `docker-proxy` is for, on sockets of this machine's loopback; and whom a container asks for names.

A lab's keeper gives sockets of the host's network; here they are those of this process.
"""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from emunet.cluster.docker.containers import Containers, Place, PortWish
from emunet.cluster.docker.networks import Networks, NetworkWish
from emunet.cluster.docker.values import Binding
from emunet.daemon.docker import container_files
from emunet.daemon.docker.proxy import Proxies
from emunet.linux.keeper_requests import OpenSockets
from emunet.packet.address import parse_ip


class Keeper:
    """Opens sockets here."""

    async def ask(self, wanted: OpenSockets) -> list[socket.socket]:
        return [socket.socket(*one) for one in wanted.sockets]


@pytest.mark.parametrize(
    "protocol", [pytest.param("tcp", marks=pytest.mark.rule("DK-08", element="docker-proxy")), "udp"]
)
def test_the_host_reaches_a_published_port_and_the_server_sees_the_proxy(protocol: str) -> None:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    container = Containers(Networks("host1")).add("web", ports=[PortWish(80, protocol, 8080)])
    seen: list[Any] = []

    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, kind) as server, socket.socket(socket.AF_INET, kind) as caller:
            for one in (server, caller):
                one.setblocking(False)
            server.bind(("127.0.0.2", 0))
            caller.bind(("127.0.0.5", 0))
            with socket.socket(socket.AF_INET, kind) as free:
                free.bind(("127.0.0.3", 0))
                port = free.getsockname()[1]
            container.bindings = [
                Binding(container.id, protocol, parse_ip("127.0.0.3"), port, server.getsockname()[1],
                        (parse_ip("127.0.0.2"),), "docker0")
            ]  # fmt: skip
            proxies = Proxies(SimpleNamespace(lab=SimpleNamespace(keeper=Keeper())), "host1")  # type: ignore[arg-type]
            await proxies.serve(container)
            try:
                if protocol == "tcp":
                    server.listen()
                await loop.sock_connect(caller, ("127.0.0.3", port))
                await loop.sock_sendall(caller, b"hello")
                if protocol == "udp":
                    data, client = await loop.sock_recvfrom(server, 99)
                    await loop.sock_sendto(server, data.upper(), client)
                else:
                    accepted, client = await loop.sock_accept(server)
                    with accepted:
                        await loop.sock_sendall(accepted, (await loop.sock_recv(accepted, 99)).upper())
                seen.append((client, caller.getsockname()))
                return await loop.sock_recv(caller, 99)
            finally:
                proxies.close_all()

    assert asyncio.run(asyncio.wait_for(main(), 5)) == b"HELLO"
    ((client, caller),) = seen
    assert caller[0] == "127.0.0.5"
    assert client[0] != caller[0], "to the server it is the proxy who calls"


@pytest.mark.rule("DK-15", "DK-17", element="docker-files")
def test_whom_a_container_asks_for_names() -> None:
    engine = Containers(Networks("host1"))
    engine.networks.create(NetworkWish("blue"))
    texts = {}
    for name, network in (("own", "blue"), ("old", "bridge")):
        container = engine.add(name, network, {network: Place()})
        engine.join(container)
        record: Any = SimpleNamespace(network=container, host_config={"Dns": ["192.0.2.53"]})
        texts[name] = container_files.resolver(engine, record).splitlines()  # type: ignore[arg-type]
    assert texts["own"] == ["nameserver 127.0.0.11", "options ndots:0"]
    assert texts["old"] == ["nameserver 192.0.2.53"], "on the default bridge nobody knows names"
