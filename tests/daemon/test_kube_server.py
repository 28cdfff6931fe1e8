"""The API server over TLS, with a control plane alone behind it: no processes, no kernel, no kubectl."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from emunet.daemon.kube.certificate import Credentials, kubeconfig
from emunet.daemon.kube.server import ApiServer
from tests.daemon.alone import Alone

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


class Client:
    """A session with the server's own certificate as its authority, and its token."""

    def __init__(self, session: aiohttp.ClientSession, base: str, backend: Alone) -> None:
        self.session = session
        self.base = base
        self.backend = backend

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, list[str]]:
        """The code, the answer, the warnings."""
        data = None if body is None else json.dumps(body)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.request(method, self.base + path, data=data, headers=names) as response:
            return response.status, json.loads(await response.read()), response.headers.getall("Warning", [])


Story = Callable[[Client], Awaitable[None]]


@pytest.fixture
def served(tmp_path: Path) -> Callable[[Story], None]:
    """Runs a story with a server."""

    def run(story: Story) -> None:
        async def all_of_it() -> None:
            backend, credentials = Alone(), Credentials.make()
            server = ApiServer(backend, credentials.token)
            port = await server.open(credentials.context(tmp_path))
            config = json.loads(kubeconfig("lab", port, credentials))
            trust = ssl.create_default_context(cadata=credentials.certificate.decode())
            headers = {"Authorization": f"Bearer {config['users'][0]['user']['token']}"}
            connector = aiohttp.TCPConnector(ssl=trust)
            try:
                async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
                    await story(Client(session, config["clusters"][0]["cluster"]["server"], backend))
            finally:
                await server.close()

        asyncio.run(all_of_it())
        assert list(tmp_path.iterdir()) == []  # the key was in a file for a moment only

    return run


def config_map(name: str, **data: str) -> dict[str, Any]:
    """A ConfigMap."""
    return {"metadata": {"name": name}, "data": data}


MAPS = "/api/v1/namespaces/default/configmaps"


def test_without_the_token_there_is_only_the_health(served: Callable[[Story], None]) -> None:
    async def story(client: Client) -> None:
        for given in ("", "Bearer ", "Bearer guessed", "Basic guessed"):
            code, answer, _ = await client.ask("GET", "/api/v1/pods", Authorization=given)
            assert (code, answer["kind"], answer["reason"]) == (401, "Status", "Unauthorized")
        async with client.session.get(client.base + "/healthz", headers={"Authorization": ""}) as response:
            assert await response.text() == "ok"

    served(story)


def test_the_life_of_an_object(served: Callable[[Story], None]) -> None:
    async def story(client: Client) -> None:
        code, made, _ = await client.ask("POST", MAPS, config_map("a", x="1"))
        assert (code, made["metadata"]["namespace"]) == (201, "default")
        code, answer, _ = await client.ask("POST", MAPS, config_map("a"))
        assert (code, answer["reason"], answer["message"]) == (409, "AlreadyExists", 'configmaps "a" already exists')
        code, now, _ = await client.ask(
            "PATCH", f"{MAPS}/a", {"data": {"y": "2"}}, Content_Type="application/merge-patch+json"
        )
        assert now["data"] == {"x": "1", "y": "2"}
        code, answer, _ = await client.ask("PATCH", f"{MAPS}/a", {}, Content_Type="text/plain")
        assert (code, answer["reason"]) == (415, "UnsupportedMediaType")
        code, answer, _ = await client.ask("PUT", f"{MAPS}/a", {**made, "data": {}})
        assert (code, answer["reason"]) == (409, "Conflict")
        code, answer, _ = await client.ask("DELETE", f"{MAPS}/a")
        assert (answer["status"], answer["details"]["uid"]) == ("Success", made["metadata"]["uid"])
        code, answer, _ = await client.ask("GET", f"{MAPS}/a")
        assert (code, answer["message"]) == (404, 'configmaps "a" not found')
        code, answer, _ = await client.ask("GET", "/api/v1/nothing")
        assert (code, answer["kind"]) == (404, "Status")
        code, answer, _ = await client.ask("POST", "/api/v1/nodes/host1")
        assert (code, answer["reason"]) == (405, "MethodNotAllowed")
        code, answer, _ = await client.ask("GET", f"{MAPS}?labelSelector=a(b")
        assert (code, answer["reason"]) == (400, "BadRequest")

    served(story)


@pytest.mark.parametrize(
    ("method", "path", "code", "told"),
    [
        ("GET", "/metrics", 404, "emunet top"),
        ("GET", "/apis/metrics.k8s.io/v1beta1/nodes", 404, "emunet top"),
        ("GET", "/api/v1/nodes/host1/proxy/stats/summary", 404, "kubectl port-forward"),
        ("GET", "/api/v1/namespaces/default/services/web:80/proxy/", 404, "kubectl port-forward"),
        ("GET", "/api/v1/namespaces/default/pods/web/ephemeralcontainers", 404, "kubectl exec"),
        ("GET", "/apis/nothing.io/v1/things", 404, "kubectl api-resources"),
        ("GET", "/api/v1/pods?fieldSelector=spec.colour=red", 400, "field label not supported: spec.colour"),
        ("GET", "/api/v1/pods?resourceVersion=new", 400, "not a whole number"),
        ("DELETE", "/api/v1/pods?fieldSelector=spec.colour=red", 400, "field label not supported"),
    ],
)
def test_what_is_not_served_is_refused_with_what_to_do(
    served: Callable[[Story], None], method: str, path: str, code: int, told: str
) -> None:
    async def story(client: Client) -> None:
        found, answer, _ = await client.ask(method, path)
        assert (found, answer["kind"], answer["code"]) == (code, "Status", code)
        assert told in answer["message"]

    served(story)


def test_the_lease_of_a_node_is_renewed_until_its_host_falls_silent(served: Callable[[Story], None]) -> None:
    async def story(client: Client) -> None:
        path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        moments = []
        for seconds in (0, 60, 65, 200):
            client.backend.seconds = seconds
            if seconds == 65:
                client.backend.control.set_power("host1", on=False, now=client.backend.now())
            _, found, _ = await client.ask("GET", path)
            spec = next(one for one in found["items"] if one["metadata"]["name"] == "host1")["spec"]
            assert (spec["holderIdentity"], spec["leaseDurationSeconds"]) == ("host1", 40)
            moments.append(spec["renewTime"])
        assert moments[0] == spec["acquireTime"] < moments[1] == moments[2] == moments[3]

    served(story)


def test_an_old_version_is_another_view_of_the_same_object(served: Callable[[Story], None]) -> None:
    async def story(client: Client) -> None:
        old, new = (f"/apis/{version}/namespaces/default/deployments" for version in ("extensions/v1beta1", "apps/v1"))
        template = {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "x"}]},
        }
        _, made, _ = await client.ask("POST", old, {"metadata": {"name": "web"}, "spec": {"template": template}})
        _, same, _ = await client.ask("GET", f"{new}/web")
        assert (made["apiVersion"], same["apiVersion"]) == ("extensions/v1beta1", "apps/v1")
        assert made["metadata"]["uid"] == same["metadata"]["uid"]
        _, scale, _ = await client.ask("PUT", f"{new}/web/scale", {"spec": {"replicas": 7}})
        assert (scale["kind"], scale["spec"], scale["status"]["selector"]) == ("Scale", {"replicas": 7}, "app=web")

    served(story)


def test_pages_tables_and_warnings(served: Callable[[Story], None]) -> None:
    async def story(client: Client) -> None:
        for number in range(5):
            await client.ask("POST", MAPS, config_map(f"m{number}"))
        names: list[str] = []
        path = f"{MAPS}?limit=2"
        while path:
            _, page, _ = await client.ask("GET", path)
            names += [item["metadata"]["name"] for item in page["items"]]
            token = page["metadata"].get("continue")
            path = f"{MAPS}?limit=2&continue={token}" if token else ""
        assert names == [f"m{number}" for number in range(5)]
        _, table, _ = await client.ask("GET", MAPS, Accept=TABLE)
        assert (table["kind"], table["rows"][0]["cells"][:2]) == ("Table", ["m0", 0])
        assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
        role = {"metadata": {"name": "r"}, "rules": [], "bogus": 1}
        path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles"
        code, _, warnings = await client.ask("POST", f"{path}?fieldValidation=Warn", role)
        assert code == 201
        assert warnings == [
            '299 - "unknown field \\"bogus\\""',
            '299 - "emunet keeps this Role and lists it; it has no effect on the network"',
        ]
        code, answer, _ = await client.ask(
            "POST", f"{path}?fieldManager=kubectl-create", {**role, "metadata": {"name": "s"}}
        )
        assert (code, answer["reason"]) == (400, "BadRequest")

    served(story)


def test_a_dry_run_answers_and_stores_nothing(served: Callable[[Story], None]) -> None:
    async def story(client: Client) -> None:
        version = client.backend.control.store.version
        code, made, _ = await client.ask("POST", f"{MAPS}?dryRun=All", config_map("a"))
        assert (code, made["metadata"]["name"]) == (201, "a")
        assert (await client.ask("GET", f"{MAPS}/a"))[0] == 404
        assert client.backend.control.store.version == version

    served(story)


async def watched(client: Client, query: str, number: int, act: Callable[[], Awaitable[Any]]) -> list[tuple[str, str]]:
    """What a watch tells, up to `number` events, of something that is done once it has begun."""
    seen: list[tuple[str, str]] = []
    async with client.session.get(f"{client.base}{MAPS}?{query}") as response:
        assert response.status == 200
        acting = asyncio.create_task(act())  # type: ignore[arg-type]
        async for line in response.content:
            event = json.loads(line)
            seen.append((event["type"], event["object"].get("metadata", {}).get("name", "")))
            if len(seen) == number:
                break
        await acting
    return seen


def test_a_watch_misses_nothing(served: Callable[[Story], None]) -> None:
    """What was there, then each change, however fast they come; by selector, what begins and ceases to match."""

    async def story(client: Client) -> None:
        await client.ask("POST", MAPS, config_map("old"))

        async def many() -> None:
            for number in range(200):
                await client.ask("POST", MAPS, config_map(f"m{number:03}"))

        seen = await watched(client, "watch=True&timeoutSeconds=20", 201, many)
        assert seen == [("ADDED", "old"), *(("ADDED", f"m{number:03}") for number in range(200))]

        async def relabel() -> None:
            for labels in ({"a": "b"}, {"a": "c"}):
                change = {"metadata": {"labels": labels}}
                await client.ask("PATCH", f"{MAPS}/old", change, Content_Type="application/merge-patch+json")

        version = client.backend.control.store.version
        seen = await watched(client, f"watch=1&resourceVersion={version}&labelSelector=a%3Db", 2, relabel)
        assert seen == [("ADDED", "old"), ("DELETED", "old")]

        async def nothing() -> None:
            return None

        query = "watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
        seen = await watched(client, query, 202, nothing)
        assert seen[-1] == ("BOOKMARK", "")
        code, answer, _ = await client.ask("GET", f"{MAPS}?watch=true&resourceVersion=x")
        assert (code, answer["reason"]) == (400, "BadRequest")

    served(story)


def test_what_cannot_run_says_why(served: Callable[[Story], None]) -> None:
    async def story(client: Client) -> None:
        spec = {"containers": [{"name": "c", "image": "x"}, {"name": "d", "image": "x"}], "nodeName": "host1"}
        pods = "/api/v1/namespaces/default/pods"
        await client.ask("POST", pods, {"metadata": {"name": "a"}, "spec": spec})
        code, answer, _ = await client.ask("GET", f"{pods}/a/log")
        assert (code, answer["message"]) == (
            400,
            "a container name must be specified for pod a, choose one of: [c d]",
        )
        code, answer, _ = await client.ask("POST", f"{pods}/a/exec?command=sh&container=c")
        assert (code, answer["reason"]) == (400, "BadRequest")
        assert "not running" in answer["message"]
        code, answer, _ = await client.ask("GET", f"{pods}/a/proxy")
        assert (code, answer["kind"]) == (404, "Status")
        async with client.session.get(f"{client.base}{pods}/a/log?container=c") as response:
            assert await response.text() == "a line\n"

    served(story)


def test_a_list_is_what_there_is_now_however_often_it_was_asked_for(served: Callable[[Story], None]) -> None:
    async def names(client: Client, path: str) -> list[str]:
        _, answer, _ = await client.ask("GET", path)
        return [item["metadata"]["name"] for item in answer["items"]]

    async def story(client: Client) -> None:
        before = await names(client, MAPS)
        for number in range(10):  # more than are remembered
            path = f"{MAPS}?labelSelector=x%3D{number}"
            assert await names(client, path) == await names(client, path) == []
        await client.ask("POST", MAPS, config_map("one"))
        assert await names(client, MAPS) == await names(client, MAPS) == sorted([*before, "one"])
        await client.ask("DELETE", f"{MAPS}/one")
        assert await names(client, MAPS) == before

    served(story)
