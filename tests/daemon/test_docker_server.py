"""The Docker Engine API without a lab behind it: containers are placeholders, and every answer is looked at closely.

What real clients make of it is in tests/kernel/test_docker.py. Here is what they would hang on.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout, UnixConnector

from emunet.cluster.docker.containers import Containers
from emunet.cluster.docker.networks import Networks, NetworkWish
from emunet.daemon.docker.engine import Engine
from emunet.daemon.docker.server import DockerServer
from emunet.daemon.docker.stats_api import account

Ask = Callable[..., Awaitable[tuple[int, Any]]]


class Nowhere:
    """What an engine stands on, where there is nothing: sandboxes are names."""

    def __init__(self) -> None:
        self.lab = SimpleNamespace(keeper=None, sandboxes={}, off=set())
        self.programs = None
        self.made: list[str] = []

    async def reshape(self) -> None:
        """No World."""

    async def make(self, host: str, container: str, *_: Any) -> str:
        self.made.append(container)
        return container

    async def add(self, *_: Any) -> None:
        """No interface."""

    async def answer(self, *_: Any) -> None:
        """No responder."""

    def silence(self, container: str) -> None:
        """No responder."""

    async def remove(self, sandbox: str) -> None:
        self.made.remove(sandbox)


class Site:
    """An engine on a socket, and a client."""

    def __init__(self, engine: Engine, session: ClientSession, path: str) -> None:
        self.engine = engine
        self.session = session
        self.path = path

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """The status and the JSON of an answer; what is no JSON in the exact form fails."""
        async with self.session.request(method, f"http://x{path}", json=body) as answer:
            text = await answer.text()
            if text:
                assert answer.headers["Content-Type"] == "application/json"
            return answer.status, json.loads(text) if text else None

    async def create(self, name: str, **host_config: Any) -> str:
        """A placeholder."""
        status, made = await self.ask(
            "POST", f"/v1.47/containers/create?name={name}", {"Image": "thing", "HostConfig": host_config}
        )
        assert status == 201, made
        return str(made["Id"])


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/d.sock"
        engine = Engine("host1", Containers(Networks("host1")), Nowhere(), Path(folder))  # type: ignore[arg-type]
        engine.images["thing:latest"] = 0
        import socket

        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        listener.setblocking(False)
        server = DockerServer(engine)
        await server.open(listener)
        timeout = ClientTimeout(total=5)
        async with ClientSession(connector=UnixConnector(path), timeout=timeout) as session:
            try:
                yield Site(engine, session, path)
            finally:
                engine.close()
        await server.close()


def run(story: Callable[[Site], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with site() as one, asyncio.timeout(10):
            await story(one)

    asyncio.run(whole())


def test_the_first_words() -> None:
    async def story(one: Site) -> None:
        for method in ("HEAD", "GET"):
            async with one.session.request(method, "http://x/_ping") as answer:
                assert (answer.status, answer.headers["Ostype"]) == (200, "linux")
                assert answer.headers["Api-Version"] == "1.47"
        for path in ("/version", "/v1.24/version", "/v1.99/version"):
            assert (await one.ask("GET", path))[1]["ApiVersion"] == "1.47"

    run(story)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/containers/nosuch/json", None, 404),
        ("GET", "/networks/nosuch", None, 404),
        ("GET", "/images/nosuch/json", None, 404),
        ("GET", "/volumes/nosuch", None, 404),
        ("GET", "/plugins/x/json", None, 404),
        ("GET", "/exec/nosuch/json", None, 404),
        ("GET", "/swarm", None, 404),
        ("POST", "/swarm/init", {}, 501),
        ("POST", "/commit", {}, 501),
        ("POST", "/images/thing/push", None, 501),
        ("GET", "/images/get?names=thing", None, 501),
        ("GET", "/services", None, 404),
        ("PUT", "/containers/nosuch/archive?path=/", None, 404),
        ("GET", "/containers/nosuch/stats?stream=0", None, 404),
        ("POST", "/version", None, 405),
        ("POST", "/containers/create", {}, 400),
        ("POST", "/containers/create", [1], 400),
        ("POST", "/containers/create", {"Image": "never"}, 404),
        ("POST", "/containers/create?name=x", {"Image": "thing"}, 400),
        ("POST", "/networks/create", {}, 400),
        ("POST", "/networks/create", {"Name": "host"}, 403),
        ("POST", "/networks/create", {"Name": "a", "Driver": "overlay"}, 404),
        ("POST", "/networks/create", {"Name": "a", "IPAM": {"Config": [{"Subnet": "10.9.0.0/33"}]}}, 400),
        ("POST", "/networks/create", {"Name": "a", "IPAM": {"Config": [{"Subnet": "10.9.0.7/24"}]}}, 400),
        ("DELETE", "/networks/bridge", None, 403),
        ("GET", "/containers/json?filters={", None, 400),
        ("GET", '/containers/json?filters={"nonsense":["x"]}', None, 400),
        ("GET", '/containers/json?filters={"status":["odd"]}', None, 400),
        ("GET", '/containers/json?filters={"name":["["]}', None, 400),
        ("GET", '/networks?filters={"odd":{"x":true}}', None, 400),
        ("GET", "/events?since=yesterday", None, 400),
        ("POST", "/containers/create?name=ok", {"Image": "thing", "HostConfig": {"Binds": ["/etc:/x"]}}, 400),
        ("POST", "/containers/create?name=ok", {"Image": "thing", "HostConfig": {"Binds": ["a/b:/x"]}}, 400),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_in_the_engines_form(method: str, path: str, body: Any, status: int) -> None:
    async def story(one: Site) -> None:
        got, answer = await one.ask(method, path, body)
        assert got == status
        assert answer["message"]
        assert not one.engine.records

    run(story)


def test_wait_sends_its_headers_before_its_end() -> None:
    async def story(one: Site) -> None:
        number = await one.create("web")
        async with one.session.post(f"http://x/containers/{number}/wait?condition=next-exit") as waiting:
            assert waiting.status == 200  # so the headers are here, and nothing has begun
            assert (await one.ask("POST", "/containers/web/start"))[0] == 204
            assert (await one.ask("POST", "/containers/web/start"))[0] == 304
            assert (await one.ask("POST", "/containers/web/kill"))[0] == 204
            assert json.loads(await waiting.text()) == {"StatusCode": 137}
        assert (await one.ask("POST", "/containers/web/kill"))[0] == 409
        assert (await one.ask("POST", "/containers/web/stop"))[0] == 304

    run(story)


def test_removed_is_told_after_the_removal() -> None:
    async def story(one: Site) -> None:
        await one.create("web", AutoRemove=True)
        async with one.session.post("http://x/containers/web/wait?condition=removed") as waiting:
            await one.ask("POST", "/containers/web/start")
            assert (await one.ask("DELETE", "/containers/web"))[0] == 409
            await one.ask("POST", "/containers/web/stop")
            assert json.loads(await waiting.text()) == {"StatusCode": 0}
            assert not one.engine.records
            assert not one.engine.containers.items

    run(story)


async def take_over(one: Site, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    reader, writer = await asyncio.open_unix_connection(one.path)
    writer.write(
        f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    return reader, writer, head


def test_an_attached_client_hears_the_end_after_it_has_closed_its_side() -> None:
    async def story(one: Site) -> None:
        number = await one.create("web")
        reader, writer, head = await take_over(one, f"/v1.47/containers/{number}/attach?stream=1&stdout=1&stderr=1")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"application/vnd.docker.multiplexed-stream" in head
        writer.write_eof()
        await one.ask("POST", "/containers/web/start")
        process = one.engine.find("web").process
        assert process is not None
        await process.say(1, b"hello\n")
        await process.say(2, b"why\n")
        assert await reader.readexactly(14 + 12) == b"\1\0\0\0\0\0\0\6hello\n\2\0\0\0\0\0\0\4why\n"
        await one.ask("POST", "/containers/web/kill")
        assert await reader.read() == b""
        writer.close()

    run(story)


def test_a_start_that_fails_lets_everybody_go() -> None:
    async def story(one: Site) -> None:
        await one.create("web", NetworkMode="nowhere", AutoRemove=True)
        reader, writer, _ = await take_over(one, "/v1.41/containers/web/attach?stream=1&stdout=1")
        async with one.session.post("http://x/containers/web/wait?condition=removed") as waiting:
            status, answer = await one.ask("POST", "/containers/web/start")
            assert (status, answer["message"]) == (404, "network nowhere not found")
            assert json.loads(await waiting.text())["StatusCode"]
        assert await reader.read() == b""
        writer.close()
        assert not one.engine.records
        assert one.engine.ground.made == []  # type: ignore[attr-defined]

    run(story)


def test_past_output_without_a_stream_ends_at_once() -> None:
    async def story(one: Site) -> None:
        await one.create("web")
        await one.ask("POST", "/containers/web/start")
        process = one.engine.find("web").process
        assert process is not None
        await process.say(1, b"one\ntwo\n")
        reader, writer, _ = await take_over(one, "/containers/web/attach?logs=1&stdout=1")
        assert await reader.read() == b"\1\0\0\0\0\0\0\4one\n\1\0\0\0\0\0\0\4two\n"
        writer.close()
        async with one.session.get("http://x/containers/web/logs?stdout=1&tail=1") as logs:
            assert await logs.read() == b"\1\0\0\0\0\0\0\4two\n"
        assert (await one.ask("GET", "/containers/web/logs"))[0] == 400

    run(story)


def test_followed_logs_end_with_the_container() -> None:
    async def story(one: Site) -> None:
        await one.create("web")
        async with one.session.get("http://x/containers/web/logs?stdout=1&follow=1") as logs:
            await one.ask("POST", "/containers/web/start")
            process = one.engine.find("web").process
            assert process is not None
            await process.say(1, b"last words")
            await one.ask("POST", "/containers/web/kill")
            assert (await logs.read())[8:] == b"last words"

    run(story)


def test_who_goes_away_leaves_no_waiting_behind() -> None:
    async def story(one: Site) -> None:
        await one.create("web")
        await one.ask("POST", "/containers/web/start")
        found = one.engine.find("web")
        waiting = asyncio.create_task(one.ask("POST", "/containers/web/wait?condition=next-exit"))
        while not found.exits:
            await asyncio.sleep(0.001)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        while found.exits:
            await asyncio.sleep(0.001)

    run(story)


def test_filters_come_as_lists_and_as_maps() -> None:
    async def story(one: Site) -> None:
        await one.ask("POST", "/networks/create", {"Name": "blue", "Labels": {"a": "b"}, "Options": None, "IPAM": None})
        for form in ('{"label":["a=b"]}', '{"label":{"a=b":true}}', '{"type":{"custom":true}}', '{"name":["lu"]}'):
            _, rows = await one.ask("GET", f"/networks?filters={form}")
            assert [row["Name"] for row in rows] == ["blue"]
        await one.create("web")
        await one.ask("POST", "/containers/web/start")
        for form in (
            '{"name":["^/we"]}',
            '{"status":{"running":true}}',
            '{"network":["bridge"]}',
            '{"ancestor":["thing"]}',
        ):
            _, rows = await one.ask("GET", f"/containers/json?filters={form}")
            assert [row["Names"] for row in rows] == [["/web"]]
            assert isinstance(rows[0]["Created"], int)
        _, rows = await one.ask("GET", '/containers/json?limit=-1&filters={"name":["b$"]}&all=False')
        assert len(rows) == 1

    run(story)


def test_networks_come_and_go_before_the_start() -> None:
    async def story(one: Site) -> None:
        one.engine.networks.create(NetworkWish("blue"))
        await one.create("web")
        assert (await one.ask("POST", "/networks/bridge/disconnect", {"Container": "web"}))[0] == 200
        body = {"Container": "web", "EndpointConfig": {"Aliases": ["w"], "IPAMConfig": {"IPv4Address": "172.18.0.9"}}}
        assert (await one.ask("POST", "/networks/blue/connect", body))[0] == 200
        assert (await one.ask("POST", "/networks/blue/connect", body))[0] == 403
        await one.ask("POST", "/containers/web/start")
        _, shown = await one.ask("GET", "/containers/web/json")
        networks = shown["NetworkSettings"]["Networks"]
        assert list(networks) == ["blue"]
        assert (networks["blue"]["IPAddress"], networks["blue"]["Aliases"]) == ("172.18.0.9", ["w"])
        assert shown["State"]["Running"] is True

    run(story)


def test_an_ambiguous_beginning_of_an_id_is_told() -> None:
    async def story(one: Site) -> None:
        for number in range(17):
            await one.create(f"c{number}")
        seen = [identity[0] for identity in one.engine.records]
        twice = next(digit for digit in seen if seen.count(digit) > 1)
        status, answer = await one.ask("GET", f"/containers/{twice}/json")
        assert (status, answer["message"]) == (400, f"multiple IDs found with provided prefix: {twice}")

    run(story)


def test_a_dark_host_does_not_answer_as_if_nothing_were() -> None:
    async def story(one: Site) -> None:
        one.engine.ground.lab.off.add("host1")
        status, answer = await one.ask("GET", "/containers/json")
        assert status == 503
        assert "emunet host host1 --on" in answer["message"]

    run(story)


def test_a_placeholder_uses_nothing_and_has_no_files() -> None:
    async def story(site: Site) -> None:
        await site.create("idle")
        await site.ask("POST", "/containers/idle/start")
        status, told = await site.ask("GET", "/containers/idle/stats?stream=0&one-shot=1")
        assert (status, told["name"], told["memory_stats"]["usage"], told["pids_stats"]) == (
            200,
            "/idle",
            0,
            {"current": 0},
        )
        assert told["cpu_stats"]["system_cpu_usage"] > 0
        status, told = await site.ask("GET", "/containers/idle/archive?path=/etc/hosts")
        assert (status, told["message"]) == (409, "idle is a network stack in memory without files")
        assert (await site.ask("GET", "/containers/idle/archive"))[0] == 400
        assert await site.ask("GET", "/plugins") == (200, [])
        status, told = await site.ask("POST", "/swarm/init", {})
        assert "`emunet kubeconfig`" in told["message"], "what a refusal says helps on"

    run(story)


def test_the_account_of_a_process_counts_its_children_too() -> None:
    before = account(os.getpid())
    child = subprocess.Popen(["sleep", "100"])
    try:
        now = account(os.getpid())
    finally:
        child.kill()
        child.wait()
    assert now.processes == before.processes + 1
    assert now.memory > 0
    assert now.user + now.kernel >= before.user + before.kernel
    assert account(child.pid).processes == 0, "it has gone"
