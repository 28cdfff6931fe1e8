"""Generated policies over three namespaces of three pods, judged by an oracle written from the specification.

500 sets of policies follow one another in worlds that go on, so that each is reached by rows from the
one before. Every pair of pods is probed at two ports by real frames, each the first of a connection;
some of them are asked for in dry runs as well.
"""

from __future__ import annotations

import random

import pytest

from emunet.packet.address import format_ip
from tests.cluster.test_policing import random_policy
from tests.policy_oracle import End, allowed
from tests.policy_worlds import NAMES, PORTS, PROTOCOLS, SPACES, Policed

CASES = 50
DECLARED = tuple((f"serve-{port}-{protocol.lower()}", protocol, port) for port in PORTS for protocol in PROTOCOLS)


def end(net: Policed, name: str, family: int) -> End:
    """A pod as the oracle sees it."""
    pod = next(one for one in net.desired.pods if one.port == name)
    return End(format_ip(net[name].address(family)), pod.namespace, dict(pod.labels), DECLARED)


@pytest.mark.rule("NP-01", "NP-02", "NP-03", "NP-06", "NP-07", "NP-08", "NP-10", "NP-12", element="policy")
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))])
def test_who_reaches_whom_is_what_the_specification_says(seed: int) -> None:
    """50 cases a seed: 144 probes each."""
    draw = random.Random(seed)
    net = Policed(mode=draw.choice(["connection", "packet"]))
    seen = {True: 0, False: 0}
    for case in range(CASES):
        policies = [random_policy(draw, f"p{number}") for number in range(draw.randrange(1, 7))]
        if draw.random() < 0.3:
            net.relabel(draw.choice(NAMES), pod=draw.choice("abc"))
        if draw.random() < 0.2:
            net.spaces[draw.choice(SPACES)]["ns"] = draw.choice(SPACES)
        net.apply(*policies)
        net.world.advance(net.world.now + 130 * 1_000_000_000)  # what was begun before is forgotten
        net.teach()
        family = draw.choice([4, 16])
        ends = {name: end(net, name, family) for name in NAMES}
        for source in NAMES:
            for target in NAMES:
                for port in PORTS if source != target else ():
                    protocol = draw.choice(PROTOCOLS)
                    expected = allowed(policies, net.spaces, ends[source], ends[target], protocol, port)
                    seen[expected] += 1
                    question = (seed, case, source, target, protocol, port, policies)
                    if draw.random() < 0.03:
                        assert net.asked(source, target, protocol, port, family) is expected, question
                    assert net.passes(source, target, protocol, port, family) is expected, question
        net.balanced()
    assert min(seen.values()) > 500, seen
