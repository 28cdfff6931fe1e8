"""The plane process and what it answers, run in a thread of the test: on memory wires, without a kernel."""

from __future__ import annotations

import os
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emunet.cluster.assign import assign
from emunet.cluster.build import build
from emunet.cluster.load import load_files
from emunet.cluster.plan import target
from emunet.daemon.pings import echo_packet
from emunet.daemon.plane_process import PlaneProcess
from emunet.fabric.config import WorldConfig
from emunet.linux import messages
from emunet.packet.address import parse_ip

TWO_HOSTS = Path(__file__).parents[2] / "topologies" / "two-hosts.yaml"


def world() -> WorldConfig:
    desired = build(load_files([TWO_HOSTS]))
    return target(desired, assign(desired)).world


class Control:
    """Control's end of the socket, without an event loop."""

    def __init__(self, wires: str = "memory", speed: float = 1.0) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.settimeout(10)
        self.process = PlaneProcess(theirs, wires, 0, speed, flow_cache=True)
        self.numbers = 0
        self.answers: dict[int, dict[str, Any]] = {}
        self.thread = threading.Thread(target=self.process.run)
        self.thread.start()

    def send(self, call: str, descriptors: tuple[int, ...] = (), **arguments: Any) -> int:
        self.numbers += 1
        messages.send(self.channel, {"request": self.numbers, "call": call, **arguments}, descriptors)
        return self.numbers

    def receive(self) -> int:
        message = messages.receive(self.channel)
        assert message is not None
        number: int = message.body["request"]
        self.answers[number] = message.body
        return number

    def answer(self, number: int) -> dict[str, Any]:
        while number not in self.answers:
            self.receive()
        return self.answers.pop(number)

    def ask(self, call: str, descriptors: tuple[int, ...] = (), **arguments: Any) -> Any:
        answer = self.answer(self.send(call, descriptors, **arguments))
        assert "error" not in answer, answer
        return answer["result"]

    def refused(self, call: str, **arguments: Any) -> tuple[str, str]:
        answer = self.answer(self.send(call, **arguments))
        return answer["kind"], answer["error"]

    def configure(self, config: WorldConfig) -> None:
        memory = os.memfd_create("world")
        with open(memory, "wb") as file:
            pickle.dump(config, file)
            file.flush()
            self.ask("configure", (memory,))

    def close(self) -> None:
        self.channel.close()
        self.thread.join(10)
        assert not self.thread.is_alive(), "the plane does not end with its socket"
        self.process.loop.close()


@pytest.fixture
def control() -> Iterator[Control]:
    made = Control()
    made.configure(world())
    yield made
    made.close()


def request(source: str, target: str) -> str:
    return echo_packet(parse_ip(source), parse_ip(target)).hex()


def test_it_answers_what_people_ask(control: Control) -> None:
    assert "web-1" in control.ask("ports")
    assert {wire["name"] for wire in control.ask("wires")} == {"host1--switch1", "host2--switch1"}
    assert control.ask("counters")["world"]["received"] == 0
    assert any("stations" in name for name in control.ask("tables", device="host1"))
    rows = control.ask(
        "echo", port="web-1", targets=["10.244.2.2", "10.244.1.3"], count=2, timeout=1, interval=0, size=9
    )
    assert [[one is not None for one in row] for row in rows] == [[True, True], [True, True]]
    assert control.ask("counters")["world"]["received"] > 0


def test_an_element_that_fails_costs_frames_and_not_the_lab(
    control: Control, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(control.process.plane.world.devices["switch1"].elements["bridge"], "handle", fail)
        echo = {"port": "web-1", "targets": ["10.244.2.2"], "count": 1, "timeout": 0.2, "interval": 0, "size": 9}
        assert control.ask("echo", **echo) == [[None]]
    (fault,) = control.ask("counters")["faults"]
    assert (fault["device"], fault["element"], fault["error"]) == ("switch1", "bridge", "ZeroDivisionError: on purpose")
    said = capfd.readouterr().err
    assert "emunet has a fault, please report it: bridge of switch1 failed; the frame was ffffffffffff" in said
    assert "Traceback" in said
    assert control.ask("echo", **echo | {"timeout": 5})[0][0] is not None


def test_a_host_pings_from_the_address_that_leads_there(control: Control) -> None:
    for target_address in ("10.244.1.2", "10.244.2.2", "192.168.9.12", "10.244.2.1"):
        rows = control.ask("echo", port="host1", targets=[target_address], count=1, timeout=1, interval=0, size=56)
        assert rows[0][0] is not None, target_address


def test_a_dry_trace_changes_nothing_and_a_live_one_counts(control: Control) -> None:
    data = request("10.244.1.2", "10.244.2.2")
    dry = control.ask("trace", port="web-1", data=data, is_frame=False, live=False)
    assert dry["verdict"] == "delivered"
    assert dry["text"].endswith("delivered: reaches web-3")
    assert control.ask("counters")["world"]["received"] == 0
    live = control.ask("trace", port="web-1", data=data, is_frame=False, live=True)
    assert live["verdict"] == "delivered"
    assert control.ask("counters")["world"]["received"] > 0


def test_a_live_trace_that_waits_holds_up_no_other_question(control: Control) -> None:
    slow = control.send("trace", port="web-1", data=request("10.244.1.2", "10.244.2.77"), is_frame=False, live=True)
    assert "web-1" in control.ask("ports")
    assert slow not in control.answers
    control.ask("jump", nanoseconds=10 * 10**9)
    answer = control.answer(slow)["result"]
    assert (answer["verdict"], answer["reason"]) == ("dropped", "NEIGHBOR_UNREACHABLE")


def test_an_echo_without_an_answer_ends_in_lab_time(control: Control) -> None:
    number = control.send("echo", port="web-1", targets=["10.244.2.77"], count=1, timeout=60, interval=0, size=56)
    assert control.ask("ports")
    control.ask("jump", nanoseconds=61 * 10**9)
    assert control.answer(number)["result"] == [[None]]


def test_speed_is_lab_seconds_per_second() -> None:
    control = Control(speed=100.0)
    try:
        control.configure(world())
        before = control.ask("counters")["now_ns"]
        time.sleep(0.05)
        assert control.ask("counters")["now_ns"] - before >= 100 * 0.05 * 10**9
    finally:
        control.close()


def test_a_wire_is_taken_down_and_up(control: Control) -> None:
    data = request("10.244.1.2", "10.244.2.2")
    control.ask("change_wire", wire="host1--switch1", change={"up": False})
    assert control.ask("trace", port="web-1", data=data, is_frame=False, live=False)["reason"] != "RECEIVED"
    control.ask("change_wire", wire="host1--switch1", change={"up": True})
    assert control.ask("trace", port="web-1", data=data, is_frame=False, live=False)["reason"] == "RECEIVED"


def test_what_makes_no_sense_is_refused_with_a_kind_and_a_sentence(control: Control) -> None:
    kind, sentence = control.refused("trace", port="web-9", data="45", is_frame=False, live=False)
    assert kind == "unknown"
    assert "there is no pod or host web-9" in sentence
    kind, sentence = control.refused("trace", port="web-1", data="00", is_frame=False, live=False)
    assert kind == "invalid"
    assert "neither an IPv4 nor an IPv6 packet" in sentence
    kind, sentence = control.refused("tables", device="nope")
    assert (kind, sentence.startswith("there is no device nope")) == ("unknown", True)


def test_a_fault_of_ours_is_told_and_ends_nothing(control: Control, capfd: pytest.CaptureFixture[str]) -> None:
    kind, sentence = control.refused("echo", port="web-1")
    assert kind == "fault"
    assert "KeyError" in sentence
    assert "Traceback" in capfd.readouterr().err
    assert control.ask("ports")


def test_a_tap_that_has_not_come_is_named() -> None:
    control = Control(wires="tap")
    memory = os.memfd_create("world")
    try:
        with open(memory, "wb") as file:
            pickle.dump(world(), file)
            file.flush()
            answer = control.answer(control.send("configure", (memory,)))
        assert answer["kind"] == "refused"
        assert answer["error"].startswith("no TAP has come for web-1, web-2, ")
        assert control.refused("jump", nanoseconds=1)[0] == "refused"
    finally:
        control.close()


def test_control_that_reads_no_answers_holds_up_nothing(control: Control) -> None:
    """More answers wait than the socket holds: what is asked is still done, and all come in the end, in order."""
    numbers = [control.send("counters") for _ in range(40)]
    sent = threading.Event()

    def ask_much() -> None:
        numbers.extend(control.send("tables", device="host1") for _ in range(2000))
        sent.set()

    asker = threading.Thread(target=ask_much)
    asker.start()
    assert sent.wait(30), "the plane takes no more questions"
    asker.join()
    assert [control.receive() for _ in numbers] == numbers


def test_configuring_again_keeps_what_was_learned(control: Control) -> None:
    control.ask("echo", port="web-1", targets=["10.244.2.2"], count=1, timeout=1, interval=0, size=56)
    before = control.ask("tables", device="host1")
    control.configure(world())
    assert control.ask("tables", device="host1") == before
