"""A sandbox at rest sends nothing: its TAP is read for three seconds after it was made."""

from __future__ import annotations

import os
import select
import socket
import time

import pytest
from kernel_bench import Bench, in_own_network

from emunet.linux import tap
from emunet.linux.netlink import Rtnetlink
from emunet.linux.specification import InterfaceSpec, ProbeSpec, RouteSpec, SandboxSpec

LISTEN = 3.0
"""Seconds: MLD reports come within 1 s, router solicitations within 1 s of DAD, gratuitous ARP at once."""

POD = InterfaceSpec("eth0", "02:00:00:00:00:01", ("10.244.0.1/24", "fd00::1/64", "fe80::1/64", "fd00:1::1/64"))
HOST = (
    InterfaceSpec("eth0", "02:00:00:00:00:01", ("192.168.9.11/24", "fd01::11/64"), arp=False),
    InterfaceSpec("cni0", "02:00:00:00:00:02", ("10.244.1.1/24", "fd00:1::1/64"), arp=False),
)
OFFLOADED = InterfaceSpec(
    "eth0", "02:00:00:00:00:01", ("10.244.0.1/24", "fd00::1/64"), vnet_header=True, offload=tap.OFFLOAD_ALL_TCP
)


def heard(taps: tuple[int, ...] | list[int], seconds: float) -> list[str]:
    """Every frame that a kernel sends within some seconds."""
    frames = []
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        for descriptor in select.select(taps, [], [], left)[0]:
            frames.append(os.read(descriptor, 70_000).hex())
    return frames


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(SandboxSpec("pod", "pod", (POD,), (RouteSpec("::/0", "fd00::fe"),)), id="a pod"),
        pytest.param(SandboxSpec("host", "host", HOST, forwarding=True), id="a host that forwards"),
        pytest.param(SandboxSpec("pod", "pod", (OFFLOADED,)), id="a pod with offloads"),
    ],
)
def test_a_new_sandbox_sends_nothing(bench: Bench, spec: SandboxSpec) -> None:
    sandbox = bench.make(spec)
    assert heard(sandbox.taps, LISTEN) == []
    assert all(tap.read_tx_dropped(counter) == 0 for counter in sandbox.drop_counters)


def test_twenty_made_at_once_send_nothing(bench: Bench) -> None:
    specs = [SandboxSpec(f"pod{number}", "pod", (POD,)) for number in range(20)]
    sandboxes = bench.keeper.create_sandboxes(specs)
    for sandbox in sandboxes:
        bench.own(sandbox)
    assert heard([sandbox.taps[0] for sandbox in sandboxes], LISTEN) == []


def test_an_interface_added_later_sends_nothing(bench: Bench) -> None:
    from emunet.linux.keeper_requests import AttachInterfaces

    bench.pod(1)
    added = InterfaceSpec("eth1", "02:00:00:00:01:01", ("10.245.0.1/24", "fd02::1/64"))
    interfaces = bench.keeper.call(AttachInterfaces("pod1", (added,)))
    bench.descriptors += [*interfaces.taps, *interfaces.drop_counters]
    assert heard(interfaces.taps, LISTEN) == []


def test_both_families_work_after_the_silence(bench: Bench) -> None:
    bench.connect(bench.pod(1), bench.pod(2))
    for origin, other in ((1, 2), (2, 1)):
        targets = (f"10.244.0.{other}", f"fd00::{other}")
        assert all(result[0] is not None for result in bench.keeper.probe(f"pod{origin}", ProbeSpec(targets)))


def test_groups_that_a_program_joins_are_reported_as_usual(bench: Bench) -> None:
    sandbox = bench.pod(1)
    with bench.open_socket("pod1", socket.AF_INET6, socket.SOCK_DGRAM) as joiner:
        group = socket.inet_pton(socket.AF_INET6, "ff05::1234") + (2).to_bytes(4, "little")
        joiner.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
        reports = heard(sandbox.taps, 1.5)
    assert reports
    assert all(report.startswith("333300000016") for report in reports), "MLDv2 goes to ff02::16 (RFC 3810 5.2.14)"


def test_a_kernel_left_to_itself_is_heard() -> None:
    # The check of the checks: without `silence`, the same interface speaks.
    def work() -> None:
        descriptor = tap.open_tap("eth0")
        with Rtnetlink() as changes:
            index = socket.if_nametoindex("eth0")
            changes.address(index, socket.inet_pton(socket.AF_INET6, "fd00::1"), 64)
            changes.link(index, up=True)
            changes.commit()
        assert heard([descriptor], LISTEN) != []

    in_own_network(work)
