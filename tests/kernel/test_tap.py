"""TAPs by themselves: how they are opened, what they say of themselves, what they lose, how they close."""

from __future__ import annotations

import errno
import os
import socket
import time
from pathlib import Path

import pytest
from kernel_bench import in_own_network

from emunet.linux import tap
from emunet.linux.netlink import Rtnetlink


@pytest.fixture(params=["python-pytun", "our own ioctl"])
def _opener(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "our own ioctl":
        monkeypatch.setattr(tap, "pytun", None)
    elif tap.pytun is None:
        pytest.skip("python-pytun is not installed: pip install python-pytun (x86-64 only)")


def bring_up(name: str, *addresses: str) -> None:
    with Rtnetlink() as changes:
        for text in addresses:
            family = socket.AF_INET6 if ":" in text else socket.AF_INET
            changes.address(socket.if_nametoindex(name), socket.inet_pton(family, text), 24)
        changes.link(socket.if_nametoindex(name), generate_addresses=False)
        changes.link(socket.if_nametoindex(name), up=True)  # in one message it would be up first, and have an address
        changes.commit()


@pytest.mark.usefixtures("_opener")
def test_a_tap_never_waits_and_is_closed_by_exec() -> None:
    def work() -> None:
        descriptor = tap.open_tap("eth0")
        assert not os.get_blocking(descriptor)
        assert not os.get_inheritable(descriptor)
        bring_up("eth0")
        with pytest.raises(BlockingIOError):
            os.read(descriptor, 2048)
        os.close(descriptor)
        assert [name for _, name in socket.if_nameindex()] == ["lo"]

    in_own_network(work)


@pytest.mark.usefixtures("_opener")
def test_a_header_comes_before_each_frame_where_offloads_are_on() -> None:
    def work() -> None:
        descriptor = tap.open_tap("eth0", vnet_header=True, offload=tap.OFFLOAD_ALL_TCP)
        bring_up("eth0", "10.0.0.1")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sender.sendto(b"hello", ("10.0.0.255", 9))
        frame = os.read(descriptor, 2048)
        assert len(frame) == tap.VNET_HEADER_SIZE + 14 + 20 + 8 + 5
        assert frame[tap.VNET_HEADER_SIZE + 12 : tap.VNET_HEADER_SIZE + 14] == b"\x08\x00"
        os.close(descriptor)

    in_own_network(work)


@pytest.mark.usefixtures("_opener")
def test_a_name_taken_is_refused_in_a_sentence() -> None:
    def work() -> None:
        tap.open_tap("eth0")
        with pytest.raises(OSError, match="opening the TAP eth0 through /dev/net/tun") as refused:
            tap.open_tap("eth0")
        assert refused.value.errno == errno.EBUSY

    in_own_network(work)


@pytest.mark.parametrize("speed", [10, 1000, 10_000, 400_000])
def test_a_link_shows_the_speed_it_was_given(speed: int) -> None:
    def work() -> None:
        descriptor = tap.open_tap("eth0")
        tap.set_link_speed("eth0", speed)
        bring_up("eth0")
        assert Path("/sys/class/net/eth0/speed").read_text().strip() == str(speed)
        assert Path("/sys/class/net/eth0/duplex").read_text().strip() == "full"
        os.close(descriptor)

    in_own_network(work)


def test_frames_lost_before_anybody_saw_them_are_counted_by_the_tap() -> None:
    def work() -> None:
        descriptor = tap.open_tap("eth0")
        counter = tap.open_tx_dropped("eth0")
        with Rtnetlink() as changes:
            changes.link(socket.if_nametoindex("eth0"), queue_length=10)
            changes.commit()
        bring_up("eth0", "10.0.0.1")
        assert tap.read_tx_dropped(counter) == 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            for _ in range(50):
                sender.sendto(b"hello", ("10.0.0.255", 9))
        read = 0
        while True:
            try:
                os.read(descriptor, 2048)
            except BlockingIOError:
                break
            read += 1
        assert read > 0
        assert read + tap.read_tx_dropped(counter) == 50
        os.close(descriptor)
        with pytest.raises(OSError, match="No such device"):
            tap.read_tx_dropped(counter)

    in_own_network(work)


def test_many_close_side_by_side() -> None:
    def work() -> None:
        one = tap.open_tap("one")
        began = time.monotonic()
        os.close(one)
        one_by_one = time.monotonic() - began
        many = [tap.open_tap(f"tap{number}") for number in range(40)]
        began = time.monotonic()
        tap.close_many(many)
        together = time.monotonic() - began
        assert [name for _, name in socket.if_nameindex()] == ["lo"]
        print(f"one: {one_by_one * 1e3:.1f} ms; 40 side by side: {together * 1e3:.1f} ms")

    in_own_network(work)


def test_closing_none_is_nothing() -> None:
    tap.close_many([])
