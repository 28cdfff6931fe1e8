"""The API server: who may ask, where a path leads, in which form the answer goes back.

Rule of this file: every answer that is no success is a Status in the API's own form, never a bare text
and never a hang; what went wrong in here says so and leaves the rest standing.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import socket
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import yaml
from aiohttp import web

from emunet.cluster import status
from emunet.cluster.requests import Validation
from emunet.cluster.status import StatusError
from emunet.cluster.store import Object
from emunet.daemon.kube import discovery, openapi, protobuf, resources, streams, tables, watching
from emunet.daemon.kube.backend import Backend, CannotServe
from emunet.daemon.kube.encoding import encode
from emunet.daemon.kube.paths import Target, is_set, parse
from emunet.daemon.kube.remembered import remembered
from emunet.daemon.kube.resources import Question

MAXIMUM_BODY = 16 << 20
_CLOSING_SECONDS = 0.5
_PROTO_V2 = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_TEXT_PATHS = ("/healthz", "/readyz", "/livez")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ApiServer:
    """The Kubernetes API of one lab."""

    def __init__(self, backend: Backend, token: str) -> None:
        self._backend = backend
        self._token = token
        application = web.Application(middlewares=[self._guard], client_max_size=MAXIMUM_BODY)
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=_CLOSING_SECONDS)

    async def open(self, context: ssl.SSLContext) -> int:
        """Answer on a free loopback port; gives its number."""
        await self._runner.setup()
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        await web.SockSite(self._runner, listener, ssl_context=context).start()
        port: int = listener.getsockname()[1]
        return port

    async def close(self) -> None:
        """Answer no more."""
        await self._runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Who has the token may ask; whatever goes wrong is told as a Status."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        allowed = scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token.encode())
        if not allowed and request.path not in _TEXT_PATHS:
            return _failure(StatusError(401, "Unauthorized", "Unauthorized"))
        return await guarded(request, handler)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        return await answer(self._backend, self._token, request, "/" + request.match_info["path"])


async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The answer of a handler, or the Status of what went wrong in it."""
    try:
        return await handler(request)
    except StatusError as error:
        return _failure(error)
    except CannotServe as error:
        return _failure(status.bad_request(str(error)))
    except web.HTTPRequestEntityTooLarge:
        message = f"the body is longer than {MAXIMUM_BODY} bytes"
        return _failure(StatusError(413, "RequestEntityTooLarge", message))
    except (ConnectionResetError, web.HTTPException):
        raise
    except Exception as error:  # a fault of ours in one answer must not end the others
        traceback.print_exc()
        message = f"emunet has a fault ({error!r}); the lab's log has the place"
        return _failure(StatusError(500, "InternalError", message))


async def answer(backend: Backend, token: str, request: web.Request, path: str) -> web.StreamResponse:
    """The answer to a request that may be asked."""
    path = path.rstrip("/") or "/"
    target = parse(path)
    if target is None:
        return _about_itself(backend, request, path)
    kind = backend.control.store.kinds.at(target.api_version, target.plural)
    if kind is None:
        if any(target.plural == plural for plural, _ in discovery.REVIEWS.get(target.api_version, ())):
            body = await _object(request)
            return _json(resources.review(target.api_version, body), 201)
        raise _not_served(path)
    query = dict(request.query)
    wish = backend.control.request(
        backend.now(), target.api_version, _validation(query), dry_run="All" in request.query.getall("dryRun", [])
    )
    question = Question(backend, target, kind, query, wish)
    if target.subresource:
        return await _subresource(question, token, request)
    match request.method, bool(target.name):
        case "GET", True:
            return _one(question, request, resources.get(question))
        case "GET", False:
            return await _many(question, request)
        case "POST", False:
            return _one(question, request, resources.create(question, await _object(request)), 201)
        case "PUT", True:
            return _one(question, request, resources.update(question, await _object(request)))
        case "PATCH", True:
            return await _patched(question, request)
        case "DELETE", True:
            options = await _delete_options(question, request)
            return _json(resources.delete(question, options))
        case "DELETE", False:
            options = await _delete_options(question, request)
            return _json(resources.delete_all(question, options))
    raise status.method_not_allowed("the server does not allow this method on the requested resource")


async def _subresource(question: Question, token: str, request: web.Request) -> web.StreamResponse:
    kind, name, method = question.kind, question.target.subresource, request.method
    if kind.name == "Pod" and name in ("log", "exec", "attach", "portforward"):
        return await streams.answer(question, request)
    match name, method:
        case "status", "GET":
            return _json(resources.get(question))
        case "status", "PUT":
            return _json(resources.update(question, await _object(request)))
        case "status", "PATCH":
            return await _patched(question, request)
        case "ephemeralcontainers", "PATCH" if kind.name == "Pod":
            return await _patched(question, request)
        case "ephemeralcontainers", "PUT" if kind.name == "Pod":
            return _json(resources.update(question, await _object(request)))
        case "scale", _ if kind.scale:
            if method == "GET":
                return _json(resources.scale_of(question))
            if method in ("PUT", "PATCH"):
                return _json(resources.set_scale(question, await _object(request)))
        case "eviction", "POST" if kind.name == "Pod":
            return _json(resources.evict(question, await _object(request)), 201)
        case "binding", "POST" if kind.name == "Pod":
            return _json(resources.bind(question, await _object(request)), 201)
        case "finalize", "PUT" if kind.name == "Namespace":
            return _json(resources.finalize(question, await _object(request)))
        case "token", "POST" if kind.name == "ServiceAccount":
            resources.get(question)
            body = await _object(request)
            expires = question.backend.control.store.moment(question.backend.now() + 3600 * 10**9)
            named = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
            return _json({**named, **body, "status": {"token": token, "expirationTimestamp": expires}}, 201)
    hint = f"; {_INSTEAD[name]}" if name in _INSTEAD else ""
    message = f'{kind.plural} of a lab have no subresource "{name}" that takes {method}{hint}'
    raise StatusError(404, "NotFound", message)


# Forms of answers


def _one(question: Question, request: web.Request, item: Object, code: int = 200) -> web.Response:
    """One object: as a table where that is asked for."""
    as_table, include = _wants_table(request)
    if as_table and request.method == "GET":
        backend = question.backend
        made = tables.table(backend.control.store, question.kind, [item], backend.now(), include=include)
        made["metadata"] = {"resourceVersion": item["metadata"]["resourceVersion"]}
        return _json(made)
    return _json(item, code, question.request.warnings)


async def _many(question: Question, request: web.Request) -> web.StreamResponse:
    as_table, include = _wants_table(request)
    if is_set(question.query, "watch"):
        watching.check(question)
        return await _stream(request, watching.watch(question, as_table=as_table, include=include))
    backend = question.backend
    if question.shows_time and not as_table:
        return _json(_list(question))
    if not as_table:
        body = remembered(backend.control.store, request.path_qs, lambda: encode(_list(question)))
        return web.Response(body=body, content_type="application/json")
    items, metadata = resources.select(question)
    seen = map(question.view, items) if include == "Object" else items
    made = tables.table(backend.control.store, question.kind, seen, backend.now(), include=include)
    return _json({**made, "metadata": metadata})


def _list(question: Question) -> Object:
    items, metadata = resources.select(question)
    return {
        "kind": f"{question.kind.name}List",
        "apiVersion": question.target.api_version,
        "metadata": metadata,
        "items": list(map(question.view, items)),
    }


async def _patched(question: Question, request: web.Request) -> web.Response:
    body = await _body(request)
    target = question.target
    namespace = target.namespace if question.kind.namespaced else ""
    known = question.backend.control.store.get(question.kind.resource, namespace, target.name) is not None
    item = resources.patch(question, body, request.content_type)
    return _json(item, 200 if known else 201, question.request.warnings)


async def _stream(request: web.Request, lines: AsyncIterator[bytes]) -> web.StreamResponse:
    """A watch: its headers go at once, each line as it comes."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        async for line in lines:
            await response.write(line)
        await response.write_eof()
    return response


def _about_itself(backend: Backend, request: web.Request, path: str) -> web.Response:
    kinds = backend.control.store.kinds
    if path in _TEXT_PATHS:
        return web.Response(text="ok")
    parts = path.strip("/").split("/")
    found: Any = None
    if path == "/openapi/v2":
        return web.Response(body=openapi.document_v2(kinds), headers={"Content-Type": _PROTO_V2})
    if path == "/version":
        found = discovery.version()
    elif path == "/api":
        found = discovery.core_versions()
    elif path == "/apis":
        found = discovery.groups(kinds)
    elif path == "/openapi/v3":
        found = openapi.index_v3(kinds)
    elif parts[:2] == ["openapi", "v3"] and len(parts) > 3:
        found = openapi.document_v3(kinds, "/".join(parts[3:]))
    elif parts[0] == "api" and len(parts) == 2:
        found = discovery.resources(kinds, parts[1])
    elif parts[0] == "apis" and len(parts) == 2:
        found = discovery.group(kinds, parts[1])
    elif parts[0] == "apis" and len(parts) == 3:
        found = discovery.resources(kinds, f"{parts[1]}/{parts[2]}")
    if found is None:
        raise _not_served(path)
    return _json(found)


_INSTEAD = {
    "proxy": "`kubectl port-forward` or `emunet forward` leads there",
    "ephemeralcontainers": "it takes PATCH and PUT, as of kubectl 1.23; `kubectl exec` starts a program in a pod too",
    "resize": "a lab limits no resources",
    "metrics.k8s.io": "a lab measures no use of resources; `emunet top` has the figures of its network",
    "metrics": "`emunet top` and `emunet status -o json` have the figures of a lab",
    "logs": "`kubectl logs` has those of containers",
}
"""What to do instead of asking for what a lab does not serve, by a word of the path."""


def _not_served(path: str) -> StatusError:
    words = path.strip("/").split("/")
    hint = next(
        (_INSTEAD[word] for word in words if word in _INSTEAD), "`kubectl api-resources` lists what a lab serves"
    )
    return StatusError(404, "NotFound", f"the server could not find the requested resource: {hint}")


def _wants_table(request: web.Request) -> tuple[bool, str]:
    accepted = request.headers.get("Accept", "")
    return "as=Table" in accepted, request.query.get("includeObject", "Metadata")


def _validation(query: dict[str, str]) -> Validation:
    """How unknown fields are taken. An old kubectl checks nothing by itself here, and so wants it done."""
    asked = query.get("fieldValidation")
    if asked in ("Strict", "Warn", "Ignore"):
        return asked  # type: ignore[return-value]
    return "Strict" if query.get("fieldManager", "").startswith("kubectl") else "Warn"


async def _delete_options(question: Question, request: web.Request) -> Object:
    options: Object = await _object(request)
    if "All" in (options.get("dryRun") or ()):
        question.request.dry_run = True
    return options


async def _object(request: web.Request) -> Object:
    """The body, which must be an object."""
    body = await _body(request)
    if not isinstance(body, dict):
        raise status.bad_request(f"the body must be an object, and is {json.dumps(body)[:80]}")
    return body


async def _body(request: web.Request) -> Any:
    """The body as data: JSON where nothing is said, YAML where it is, protobuf by its first bytes."""
    data = await request.read()
    if not data.strip():
        return {}
    if data.startswith(protobuf.MAGIC):
        return protobuf.decode(data)
    try:
        return json.loads(data)
    except ValueError as error:
        if "yaml" not in request.content_type:
            raise status.bad_request(f"the object provided is not JSON: {error}") from None
    try:
        return yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise status.bad_request(f"the object provided is not YAML: {error}") from None


def _json(body: Any, code: int = 200, warnings: list[str] | None = None) -> web.Response:
    response = web.Response(body=encode(body), status=code, content_type="application/json")
    for warning in dict.fromkeys(warnings or ()):
        told = warning.replace("\\", "\\\\").replace('"', '\\"').encode("ascii", "replace").decode()
        response.headers.add("Warning", f'299 - "{told}"')
    return response


def _failure(error: StatusError) -> web.Response:
    return _json(error.body(), error.code)


__all__ = ["ApiServer", "Target", "answer", "guarded"]
