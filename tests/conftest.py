"""What all tests share: how hypothesis searches, and which tests need a kernel.

A test under tests/kernel (or marked `kernel` elsewhere) uses TAPs and namespaces.
Where the machine does not give them it is skipped with the reason; CI fails on such
a skip (.ci/skipped.py). Those that measure time run on one worker of xdist, one after
the other, those with clients of others on another, and the other labs on a third: labs
wait more than they compute.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis
import pytest

from emunet.fabric.world import World

MEASURES = frozenset(
    f"test_{name}"
    for name in (
        "bridge_router_vxlan",
        "capture",
        "delay",
        "endpoint_tcp",
        "interoperation",
        "netfilter",
        "reno",
        "silence",
    )
)
"""Kernel tests that measure time, or judge by it: one after the other, beside those that run labs."""

CLIENTS = frozenset(f"test_{name}" for name in ("dns", "docker", "forward", "pages", "wireshark"))
"""Kernel tests with real clients of a lab's servers, besides those of Kubernetes."""

LONG = frozenset(
    f"test_{name}"
    for name in (
        "adversity",
        "bridge_router_vxlan",
        "delay",
        "dns",
        "endpoint_tcp",
        "examples",
        "interoperation",
        "isolation",
        "kubectl",
        "kubectl_pods",
        "kubectl_verbs",
        "lab_ends",
        "lab_services",
        "netfilter",
        "outside",
        "policies",
        "responder",
        "scale",
        "silence",
        "soak",
        "trouble",
        "users_lab",
        "wireshark",
    )
)
"""Kernel tests that take long, all of their file: slow, and so for CI."""

KERNEL_TESTS = Path(__file__).parent / "kernel"

# A deadline would measure the machine, not the code. CI repeats the same examples every time, so that a change
# that fails there fails because of the change; at a developer's desk the search goes on with new ones, fewer at a time.
hypothesis.settings.register_profile("desk", deadline=None, max_examples=40)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "desk")


# A shell that starts the tests in the background has them ignore what a keyboard sends, and nohup a hang-up: they would
# hand that on to every program that they start and interrupt.
for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)


@functools.cache
def missing_from_kernel() -> str | None:
    """What this machine lacks for kernel tests, as a sentence; None where it lacks nothing."""
    if sys.platform != "linux":
        return f"TAPs and namespaces need Linux; this is {sys.platform}"
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        return f"/dev/net/tun cannot be opened: {error.strerror}"
    # In a child, since a process cannot leave a user namespace; as a program, since it must have a single thread.
    unshare = ["unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "true"]
    try:
        tried = subprocess.run(unshare, capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        return "unshare is missing: install util-linux"
    if tried.returncode:
        return f"this machine allows no user namespace: {tried.stderr.strip()}"
    return None


def group(file: str) -> str:
    """Which kernel tests run one after the other."""
    if file in MEASURES:
        return "measures"
    return "clients" if file in CLIENTS or file.startswith("test_kube") else "labs"


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook, and must find them set
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark, group and, where need be, skip the tests that need a kernel."""
    for item in items:
        if KERNEL_TESTS in item.path.parents:
            item.add_marker("kernel")
            if item.path.stem in LONG:
                item.add_marker("slow")
        if item.get_closest_marker("kernel") is None:
            continue
        item.add_marker(pytest.mark.xdist_group(group(item.path.stem)))
        item.user_properties.append(("kernel", "yes"))  # into the JUnit report, for .ci/skipped.py
        if (missing := missing_from_kernel()) is not None:
            item.add_marker(pytest.mark.skip(reason=missing))


@pytest.fixture(autouse=True)
def _the_law_holds_in_every_world(request: pytest.FixtureRequest) -> Iterator[None]:
    """No frame is lost to the books: at its end each World that a test made in this process is balanced.

    A test that breaks a counter, to see that it is noticed, says so by the marker `breaks_the_law`.
    """
    worlds: deque[World] = deque(maxlen=100)  # the last ones of a property test; they stay alive until then
    make = World.__init__

    def making(self: World, *arguments: Any, **named: Any) -> None:
        make(self, *arguments, **named)
        worlds.append(self)

    with mock.patch.object(World, "__init__", making):
        yield
    if request.node.get_closest_marker("breaks_the_law") is None:
        for world in worlds:
            assert world.ledger.balance == 0, world.ledger.as_dict()
            for device in world.devices.values():
                assert device.ledger.balance == 0, (device.name, device.ledger.as_dict())
