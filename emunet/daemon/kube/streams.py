"""What needs the pods themselves: logs, exec, attach, port-forward.

Rule of this file: it finds the pod and the container that are meant, and says what is wrong while it still
can: as a Status, before the connection is taken over.
"""

from __future__ import annotations

import contextlib

from aiohttp import web

from emunet.cluster import status
from emunet.cluster.defaults import containers_of
from emunet.cluster.store import Object, meta
from emunet.daemon.kube import commands, forwarding
from emunet.daemon.kube.backend import Connection, LogWish, Session
from emunet.daemon.kube.paths import is_set, number
from emunet.daemon.kube.resources import Question, get


async def answer(question: Question, request: web.Request) -> web.StreamResponse:
    """The answer to a request for `pods/NAME/log` and its kind."""
    pod = get(question)
    backend, query = question.backend, question.query
    if question.target.subresource == "portforward":
        _running(question, pod)

        async def connect(port: int) -> Connection:
            return await backend.connect(pod, port)

        return await forwarding.serve(request, connect)
    container = _container(question, pod)
    if question.target.subresource == "log":
        return await _log(question, request, pod, container)
    _running(question, pod)

    async def begin() -> Session:
        if question.target.subresource == "attach":
            return await backend.attach(pod, container)
        argv = request.query.getall("command", [])
        if not argv:
            raise status.bad_request("you must specify at least 1 command for the container")
        stdin, terminal = (is_set(query, name) for name in ("stdin", "tty"))
        return await backend.execute(pod, container, argv, stdin=stdin, terminal=terminal)

    return await commands.serve(request, query, begin)


async def _log(question: Question, request: web.Request, pod: Object, container: str) -> web.StreamResponse:
    query = question.query

    wish = LogWish(
        follow=is_set(query, "follow"),
        tail=number(query, "tailLines"),
        timestamps=is_set(query, "timestamps"),
        since=number(query, "sinceSeconds"),
        limit=number(query, "limitBytes"),
        previous=is_set(query, "previous"),
    )
    chunks = question.backend.logs(pod, container, wish)
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        async for chunk in chunks:
            await response.write(chunk)
        await response.write_eof()
    return response


def _container(question: Question, pod: Object) -> str:
    """The container that is meant. StatusError where it is none, or any of several."""
    names = [one["name"] for one in containers_of(pod["spec"])]
    wanted = question.query.get("container", "")
    name = meta(pod)["name"]
    if wanted:
        if wanted not in names:
            raise status.bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted
    plain = [one["name"] for one in pod["spec"]["containers"]]
    if len(plain) > 1:
        message = f"a container name must be specified for pod {name}, choose one of: [{' '.join(plain)}]"
        raise status.bad_request(message)
    return str(plain[0])


def _running(question: Question, pod: Object) -> None:
    phase = pod.get("status", {}).get("phase")
    if phase != "Running":
        message = f"cannot {question.target.subresource} in a pod that is not running; current phase is {phase}"
        raise status.bad_request(message)
