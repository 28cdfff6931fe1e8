"""Lanes: each setting by itself on the wire between two switches' ends, in lab time, counted and balanced."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator

import pytest

from emunet.fabric.impaired import Lane
from emunet.fabric.impairment import Impairment, format_flap, parse_flap
from emunet.packet.offload import GSO_TCPV4, NEEDS_CSUM, Offload
from emunet.packet.view import Packet
from emunet.plane.reason import Reason

MS = 1_000_000
SECOND = 1_000_000_000
FRAME = bytes(12) + b"\x88\xb5" + bytes(86)


class Far:
    """The far end of a lane: what came off, what was lost, and a clock that jumps from event to event."""

    def __init__(self, impairment: Impairment, seed: int = 1) -> None:
        self.now = 0
        self.came: list[tuple[int, bytes]] = []
        self.lost: list[tuple[Reason, bytes]] = []
        self.queued = 0
        self.copied = 0
        self.retired = 0
        self._due: list[int] = []
        self.lane = Lane("wire", "far", "port", impairment, seed, self)

    def come_off(self, device: str, port: str, packet: Packet, now: int) -> None:
        assert (device, port) == ("far", "port")
        self.queued -= 1
        self.came.append((now, packet.frame))

    def pass_on(self, *_: object) -> bool:
        return False

    def put_on(self, frames: int, copies: int) -> None:
        self.queued += frames
        self.copied += copies

    def lose(self, wire: str, packet: Packet, reason: Reason, now: int) -> None:
        self.lost.append((reason, packet.frame))

    def wake_lane(self, lane: Lane, due: int) -> None:
        self._due.append(due)

    def retire(self, lane: Lane) -> None:
        self.retired += 1

    def send(self, *frames: bytes, every: int = 0) -> None:
        """Frames enter, so many ns apart."""
        for frame in frames:
            self.lane.send(Packet(frame), self.now)
            if every:
                self.run(self.now + every)

    def run(self, until: int = 1 << 60) -> None:
        """Let everything happen that is due by then."""
        while self._due and min(self._due) <= until:
            self.now = min(self._due)
            self._due.remove(self.now)
            self.lane.wake(self.now)
        if until < 1 << 60:
            self.now = until

    @property
    def numbers(self) -> list[int]:
        """The numbers of the frames that came off, in order."""
        return [int.from_bytes(frame[14:18], "big") for _, frame in self.came]


def numbered(count: int, size: int = 100) -> Iterator[bytes]:
    """Frames with their numbers in them."""
    for number in range(count):
        yield FRAME[:14] + number.to_bytes(4, "big") + bytes(size - 18)


def sent(impairment: Impairment, count: int = 2000, every: int = MS, seed: int = 1) -> Far:
    """A lane that got so many frames, one each ms, and has let go of all."""
    far = Far(impairment, seed)
    far.send(*numbered(count), every=every)
    far.run()
    assert far.queued == 0
    assert len(far.came) + len(far.lost) == count + far.copied
    return far


def test_the_same_seed_loses_the_same_sequence_numbers() -> None:
    runs = [sent(Impairment(loss=0.1), seed=seed).numbers for seed in (5, 5, 6)]
    assert runs[0] == runs[1] != runs[2]
    assert 1720 < len(runs[0]) < 1880


def test_other_settings_do_not_shift_the_dice_of_loss() -> None:
    """Delay and rate draw nothing, so what is lost stays the same."""
    plain = sent(Impairment(loss=0.1)).numbers
    assert sent(Impairment(loss=0.1, delay=20 * MS, rate=10_000_000)).numbers == plain


def test_bursts_lose_in_a_row() -> None:
    """Gilbert-Elliott: the share of bad time is p / (p + r), the mean burst 1 / r."""
    far = sent(Impairment(burst=(0.02, 0.25)), count=20_000)
    came = set(far.numbers)
    lost = [number for number in range(20_000) if number not in came]
    assert 0.05 < len(lost) / 20_000 < 0.10  # 0.02 / 0.27 = 7.4 %
    bursts = 1 + sum(after != before + 1 for before, after in itertools.pairwise(lost))
    assert 3.4 < len(lost) / bursts < 4.6


def test_every_nth() -> None:
    assert sent(Impairment(every=4), count=12).numbers == [0, 1, 2, 4, 5, 6, 8, 9, 10]


def test_only_what_a_filter_takes() -> None:
    """The others neither get lost nor count."""
    far = Far(Impairment(loss=1.0, match="ether proto 0x88b5"))
    other = FRAME[:12] + b"\x88\xb6" + FRAME[14:]
    far.send(FRAME, other, FRAME, other)
    far.run()
    assert [frame for _, frame in far.came] == [other, other]
    assert [reason for reason, _ in far.lost] == [Reason.WIRE_LOST] * 2
    far = Far(Impairment(every=2, match="greater 101"))
    far.send(*[frame for pair in zip(numbered(4), numbered(4, 102), strict=True) for frame in pair])
    far.run()
    assert far.numbers == [0, 0, 1, 2, 2, 3]


def test_duplicates_are_copies() -> None:
    far = sent(Impairment(duplicate=0.25))
    assert 400 < far.copied < 600
    assert sorted(set(far.numbers)) == list(range(2000))


def test_reordered_frames_pass_those_that_wait() -> None:
    far = sent(Impairment(delay=10 * MS, reorder=0.1))
    late = {number for number, after in itertools.pairwise(far.numbers) if after < number}
    assert 100 < len(late) < 260
    passed = [at - number * MS for (at, _), number in zip(far.came, far.numbers, strict=True)]
    assert set(passed) == {0, 10 * MS}


def test_corruption_flips_one_bit() -> None:
    far = sent(Impairment(corrupt=0.5), count=400)
    originals = list(numbered(400))
    flipped = 0
    for (_, frame), original in zip(far.came, originals, strict=True):
        bits = (int.from_bytes(frame, "big") ^ int.from_bytes(original, "big")).bit_count()
        assert bits in (0, 1)
        flipped += bits
    assert 150 < flipped < 250


def test_delay_is_exact_and_jitter_keeps_within_its_bounds() -> None:
    assert {at - n * MS for n, (at, _) in enumerate(sent(Impairment(delay=7 * MS)).came)} == {7 * MS}
    far = sent(Impairment(delay=20 * MS, jitter=5 * MS), every=50 * MS)
    took = [at - number * 50 * MS for number, (at, _) in enumerate(far.came)]
    assert 15 * MS <= min(took) < 15.1 * MS
    assert 24.9 * MS < max(took) <= 25 * MS
    assert statistics.mean(took) == pytest.approx(20 * MS, rel=0.02)
    assert statistics.stdev(took) == pytest.approx(10 * MS / 12**0.5, rel=0.05)


def test_normal_jitter_has_a_tail_but_no_frame_comes_before_it_was_sent() -> None:
    far = sent(Impairment(delay=50 * MS, jitter=5 * MS, distribution="normal"), every=100 * MS)
    took = [at - number * 100 * MS for number, (at, _) in enumerate(far.came)]
    assert statistics.mean(took) == pytest.approx(50 * MS, rel=0.01)
    assert statistics.stdev(took) == pytest.approx(5 * MS, rel=0.05)
    within = sum(abs(one - 50 * MS) < 5 * MS for one in took) / len(took)
    assert within == pytest.approx(0.683, abs=0.03)
    far = sent(Impairment(delay=MS, jitter=5 * MS, distribution="normal"), every=100 * MS)
    assert min(at - number * 100 * MS for number, (at, _) in enumerate(far.came)) == 0


def test_jitter_keeps_the_order() -> None:
    far = sent(Impairment(delay=20 * MS, jitter=20 * MS))
    assert far.numbers == list(range(2000))


def test_a_rate_spaces_frames_and_its_queue_drops_from_the_tail() -> None:
    """100-byte frames and 24 bytes of preamble, checksum and gap at 992 kbit/s: one each ms."""
    far = Far(Impairment(rate=992_000, queue=3))
    far.send(*numbered(6))
    far.run()
    assert far.numbers == [0, 1, 2, 3]
    assert [at for at, _ in far.came] == [MS, 2 * MS, 3 * MS, 4 * MS]
    assert [reason for reason, _ in far.lost] == [Reason.WIRE_QUEUE_FULL] * 2


def test_what_is_longer_than_its_mtu_is_lost_in_silence() -> None:
    far = Far(Impairment(mtu=86))
    tagged = FRAME[:12] + b"\x81\x00\x00\x05" + FRAME[12:]
    far.send(FRAME, tagged, FRAME + b"x")
    far.run()
    assert [frame for _, frame in far.came] == [FRAME, tagged]
    assert [reason for reason, _ in far.lost] == [Reason.WIRE_TOO_LONG]


def test_what_is_on_the_wire_keeps_its_time_when_settings_change() -> None:
    far = Far(Impairment(delay=100 * MS))
    far.send(*numbered(2))
    far.run(10 * MS)
    far.lane.change(Impairment(delay=5 * MS))
    far.send(*list(numbered(3))[2:])
    far.run()
    assert far.came[0][0] == far.came[1][0] == 100 * MS
    assert far.numbers == [0, 1, 2]  # and nobody is overtaken
    far.lane.change(Impairment())
    far.send(FRAME)
    far.run()
    assert far.retired


def test_a_superframe_is_lost_by_wire_frames() -> None:
    head = bytes.fromhex("020000000002020000000001080045000fc800004000400600000a0000010a000002")
    tcp = bytes.fromhex("1f90005000000001000000005010ffff00000000")
    far = Far(Impairment(every=2))
    packet = Packet(head + tcp + bytes(4000), Offload(NEEDS_CSUM, GSO_TCPV4, 54, 1000, 34, 16))
    far.lane.send(packet, 0)
    far.run()
    assert (len(far.came), len(far.lost)) == (2, 2)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"delay": "20"}, "delay: expected a time with its unit, like 20ms or 20s (got '20')"),
        ({"jitter": "5ms"}, "jitter cannot be larger than delay: a frame would arrive before it was sent"),
        ({"colour": "red"}, "a link has no colour; it has: delay, jitter, distribution, loss, burst, every, match, "
         "duplicate, reorder, corrupt, rate, queue, mtu"),
        ({"burst": "1%"}, "burst: expected two shares like 1%,30%: how often it goes bad, and how often good again "
         "(got '1%')"),
        ({"burst": "1%,0"}, "burst: expected a second share above 0%: else what has gone bad stays bad (got '1%,0')"),
        ({"match": "udp prot 1"}, "match: not a filter: expected `and`, `or` or the end at 'prot' (like `udp and dst "
         "port 53`) (got 'udp prot 1')"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole sentence is compared below
        Impairment().changed(settings)
    assert str(error.value) == said


def test_settings_as_words_come_back() -> None:
    impairment = Impairment(20 * MS, 5 * MS, "normal", 0.01, (0.01, 0.3), 7, "udp", 0.02, 0.03, 0.04, 10**7, 9, 1400)
    words = impairment.as_text()
    assert words == {
        "delay": "20ms", "jitter": "5ms", "distribution": "normal", "loss": "1%", "burst": "1%,30%", "every": "7",
        "match": "udp", "duplicate": "2%", "reorder": "3%", "corrupt": "4%", "rate": "10mbit", "queue": "9",
        "mtu": "1400",
    }  # fmt: skip
    assert Impairment().changed(words) == impairment
    off = dict.fromkeys(words, "off") | {"distribution": "uniform", "queue": "1000", "every": "0"}
    assert impairment.changed(off) == Impairment()
    assert parse_flap(format_flap((10 * SECOND, 500 * MS))) == (10 * SECOND, 500 * MS)
