"""What an engine of a lab does not have, in a sentence that says why and what to do.

Rule of this file: rows, one for each path that somebody may ask for.
"""

from __future__ import annotations

import re

_IMAGES = "a lab keeps no images, only their names"
_SWARM = "a lab's host is no part of a swarm; the lab itself is a cluster: `emunet kubeconfig` points kubectl to it"

_ROWS = tuple(
    (re.compile(pattern), why)
    for pattern, why in (
        (r"/(swarm|services|nodes|tasks|secrets|configs)(/.*)?", _SWARM),
        (r"/images/.+/push", f"{_IMAGES}, so there is nothing to push"),
        (r"/images/(get|.+/get)", f"{_IMAGES}, so there is nothing to save"),
        ("/images/load", f"{_IMAGES}: `docker pull NAME` notes a name"),
        ("/images/search", "a lab asks no registry; `docker pull NAME` notes any name"),
        (r"/distribution/.+", "a lab asks no registry; `docker pull NAME` notes any name"),
        ("/build", f"{_IMAGES}, so none is built: a container runs programs of this machine"),
        ("/session", f"{_IMAGES}, so none is built: a container runs programs of this machine"),
        ("/commit", f"{_IMAGES}, so a container cannot become one"),
        (r"/containers/[^/]+/export", "a container's root is this machine's programs: `docker cp` copies files of it"),
        (r"/containers/[^/]+/attach/ws", "attaching goes by a connection that is taken over, not by a WebSocket"),
        (r"/plugins(/.*)?", "the engines of a lab have no plugins"),
    )
)


def why(path: str) -> str | None:
    """Why there is no such thing; None where nobody has thought of it."""
    return next((sentence for pattern, sentence in _ROWS if pattern.fullmatch(path)), None)
