"""What of a container is a program, whose, and with what around it."""

from __future__ import annotations

from typing import Any

import pytest

from emunet.daemon.pod_run import user_of, words_of


@pytest.mark.parametrize(
    ("container", "words"),
    [
        ({}, None),
        ({"command": ["sleep", "1"], "args": ["2"]}, ["sleep", "1", "2"]),
        ({"command": ["/bin/sleep", "1"]}, ["/bin/sleep", "1"]),
        ({"command": ["nosuch"]}, ["nosuch"]),  # it fails, as in Kubernetes
        ({"command": ["/app/server"]}, None),  # it belongs to an image
        ({"args": ["echo", "hi"]}, ["echo", "hi"]),
        ({"args": ["--port=80"]}, None),
        ({"args": ["serve", "80"]}, None),
        ({"stdin": True, "tty": True}, ["/bin/sh"]),
        ({"tty": True}, None),
    ],
)
def test_what_a_container_runs(container: dict[str, Any], words: list[str] | None) -> None:
    here = {"sleep", "/bin/sleep", "echo", "/bin/sh"}
    assert words_of(container, here.__contains__) == words


@pytest.mark.parametrize(
    ("of_pod", "of_container", "user"),
    [
        ({}, {}, None),
        ({"runAsUser": 0}, {}, None),
        ({"runAsUser": 1000}, {}, (1000, 0)),
        ({"runAsUser": 1000, "runAsGroup": 7}, {"runAsUser": 2}, (2, 7)),
        ({}, {"runAsGroup": 7}, (0, 7)),
        ({"runAsNonRoot": True}, {}, (65532, 0)),
        ({"runAsNonRoot": True}, {"runAsUser": 9}, (9, 0)),
    ],
)
def test_whose_program_it_is(
    of_pod: dict[str, Any], of_container: dict[str, Any], user: tuple[int, int] | None
) -> None:
    pod = {"spec": {"securityContext": of_pod}}
    assert user_of(pod, {"securityContext": of_container}) == user
