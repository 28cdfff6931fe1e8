"""NetworkPolicy, as stories: who reaches whom, and what is said where somebody does not."""

from __future__ import annotations

import pytest

from emunet.packet import icmp, ipv4
from tests.policy_worlds import ACK, NAMES, SYN_ACK, Policed, labels, policy
from tests.worlds import datagram, echo, parse_ip, segment


@pytest.fixture
def net() -> Policed:
    return Policed()


def everybody(net: Policed, target: str, **more: object) -> set[str]:
    """Who reaches a pod."""
    return {name for name in NAMES if name != target and net.passes(name, target, **more)}  # type: ignore[arg-type]


OTHERS = set(NAMES) - {"x/a"}


@pytest.mark.rule("NP-01", element="policy")
def test_a_pod_that_no_policy_selects_is_reached_by_everybody(net: Policed) -> None:
    net.apply(policy("elsewhere", podSelector=labels(pod="b")))
    assert everybody(net, "x/a") == OTHERS
    assert everybody(net, "x/b") == set()
    assert net.passes("x/b", "x/a")  # isolated for ingress only
    assert net.ask("x/b", "x/a").codes.count("NO_POLICY") == 1


@pytest.mark.rule("NP-02", element="policy")
def test_policies_only_add(net: Policed) -> None:
    net.apply(
        policy("deny-all"),
        policy("from-b", podSelector=labels(pod="a"), ingress=[{"from": [{"podSelector": labels(pod="b")}]}]),
        policy("from-y", podSelector=labels(pod="a"), ingress=[{"from": [{"namespaceSelector": labels(ns="y")}]}]),
    )
    assert everybody(net, "x/a") == {"x/b", "y/a", "y/b", "y/c"}


@pytest.mark.rule("NP-03", element="policy")
def test_both_ends_must_permit(net: Policed) -> None:
    out = policy("out", podSelector=labels(pod="a"), policyTypes=["Egress"], egress=[{"to": [{"podSelector": {}}]}])
    net.apply(out, policy("in", podSelector=labels(pod="c")))
    trace = net.ask("x/a", "x/c")
    assert trace.sentence == ("x/a may not send to x/c: ingress of x/c is isolated by x/in; no rule permits anything")
    assert [step.element for step in trace.steps].count("policy") == 2
    assert net.passes("x/a", "x/b")
    trace = net.ask("x/a", "y/c")
    assert trace.sentence == (
        "x/a may not send to y/c: egress of x/a is isolated by x/out; "
        "port 80/TCP matches rule 1 of x/out, peer y/c does not (every pod of x)"
    )


@pytest.mark.rule("NP-04", element="policy")
@pytest.mark.parametrize("target", ["x/b", "x/c"])
def test_answers_pass_where_the_other_direction_is_denied(net: Policed, target: str) -> None:
    net.apply(policy("deny-in", podSelector=labels(pod="a"), policyTypes=["Ingress"]))
    assert not net.passes(target, "x/a")
    a, b = net["x/a"].address(), net[target].address()
    assert net.ask("x/a", target, sport=40000).verdict == "delivered"
    to = net.mac_for(target, "x/a")
    trace = net.say(target, segment(b, a, 80, 40000, SYN_ACK), to)
    assert trace.verdict == "delivered"
    assert "POLICY_CONNECTION" in trace.codes
    assert net.say(target, segment(b, a, 80, 40001, ACK), to).reason.name == "POLICY_INGRESS"  # type: ignore[union-attr]


@pytest.mark.rule("NP-04", element="connections")
def test_an_error_about_a_permitted_packet_passes(net: Policed) -> None:
    net.apply(policy("deny-in", podSelector=labels(pod="a"), policyTypes=["Ingress"]))
    a, b = net["x/a"].address(), net["x/c"].address()
    asked = datagram(a, b, 5000, 80, b"x")
    assert net.say("x/a", asked).verdict == "delivered"
    arrived = net["x/c"].got[-1][1][14:]
    message = icmp.Icmp(3, 3, bytes(4), arrived[:28]).pack()
    assert net.say("x/c", ipv4.IPv4(b, a, ipv4.ICMP).pack(message)).verdict == "delivered"
    other = datagram(a, b, 5001, 80, b"x")
    message = icmp.Icmp(3, 3, bytes(4), other[:28]).pack()
    assert net.say("x/c", ipv4.IPv4(b, a, ipv4.ICMP).pack(message)).verdict == "dropped"


@pytest.mark.rule("NP-05", element="policy")
def test_policy_types_that_are_not_said(net: Policed) -> None:
    net.apply(policy("in", podSelector=labels(pod="a")))
    assert not net.passes("x/b", "x/a")
    assert net.passes("x/a", "x/b")
    net.apply(policy("both", podSelector=labels(pod="a"), egress=[{"to": [{"podSelector": labels(pod="b")}]}]))
    assert not net.passes("x/b", "x/a")
    assert net.passes("x/a", "x/b")
    assert not net.passes("x/a", "x/c")
    net.apply(policy("out", podSelector=labels(pod="a"), policyTypes=["Egress"]))
    assert net.passes("x/b", "x/a")
    assert not net.passes("x/a", "x/b")


@pytest.mark.rule("NP-06", element="policy")
def test_an_empty_selector_is_the_namespace_and_an_empty_rule_everybody(net: Policed) -> None:
    net.apply(policy("all"))
    assert all(not everybody(net, name) for name in ("x/a", "x/b", "x/c"))
    assert everybody(net, "y/a") == set(NAMES) - {"y/a"}
    net.apply(policy("none", ingress=[]))
    assert everybody(net, "x/a") == set()
    net.apply(policy("open", ingress=[{}]))
    assert everybody(net, "x/a") == OTHERS


@pytest.mark.rule("NP-07", element="policy")
@pytest.mark.parametrize(
    ("peers", "who"),
    [
        ([{"podSelector": labels(pod="b")}], {"x/b"}),
        ([{"namespaceSelector": labels(ns="y")}], {"y/a", "y/b", "y/c"}),
        ([{"namespaceSelector": labels(ns="y"), "podSelector": labels(pod="b")}], {"y/b"}),
        ([{"namespaceSelector": labels(ns="y")}, {"podSelector": labels(pod="b")}], {"y/a", "y/b", "y/c", "x/b"}),
        ([{"namespaceSelector": {}}], OTHERS),
        ([{"podSelector": {}}], {"x/b", "x/c"}),
        ([{"namespaceSelector": {}, "podSelector": labels(pod="c")}], {"x/c", "y/c", "z/c"}),
    ],
)
def test_peers(net: Policed, peers: list[object], who: set[str]) -> None:
    net.apply(policy("peers", podSelector=labels(pod="a"), ingress=[{"from": peers}]))
    assert everybody(net, "x/a") == who
    assert everybody(net, "x/a", family=16) == who
    assert everybody(net, "x/a", protocol="SCTP") == who
    host, a = net["host2:eth0"].address(), net["x/a"].address()
    assert net.say("host2:eth0", segment(host, a, 5000, 80, 2)).verdict == "dropped"  # no pod, so nobody's peer


@pytest.mark.rule("NP-08", element="policy")
def test_peers_and_ports_of_a_rule_are_both_asked_for(net: Policed) -> None:
    rule = {"from": [{"podSelector": labels(pod="b")}], "ports": [{"port": 81, "protocol": "TCP"}]}
    net.apply(policy("both", podSelector=labels(pod="a"), ingress=[rule]))
    assert everybody(net, "x/a", port=81) == {"x/b"}
    assert everybody(net, "x/a", port=80) == set()
    assert net.ask("x/b", "x/a").sentence == (
        "x/b may not send to x/a: ingress of x/a is isolated by x/both; "
        "peer matches rule 1 of x/both, port 80/TCP does not (81/TCP)"
    )
    assert net.ask("x/c", "x/a").sentence.endswith("neither peer x/c nor port 80/TCP matches the only rule")
    net.apply(policy("ports", podSelector=labels(pod="a"), ingress=[{"from": [], "ports": [{"port": 80}]}]))
    assert everybody(net, "x/a", port=80) == OTHERS
    outside = net.say("host2:eth0", segment(net["host2:eth0"].address(), net["x/a"].address(), 5000, 80, 2))
    assert outside.verdict == "delivered"


@pytest.mark.rule("NP-09", element="policy")
def test_a_port_without_a_protocol_is_tcp(net: Policed) -> None:
    net.apply(policy("dns", podSelector=labels(pod="a"), policyTypes=["Egress"], egress=[{"ports": [{"port": 80}]}]))
    assert net.passes("x/a", "x/b", "TCP")
    assert not net.passes("x/a", "x/b", "UDP")
    assert not net.passes("x/a", "x/b", "SCTP")


@pytest.mark.rule("NP-10", element="policy")
def test_names_of_ports_are_those_of_the_destination(net: Policed) -> None:
    named = {"ports": [{"port": "serve-81-tcp", "protocol": "TCP"}]}
    net.apply(policy("in", podSelector=labels(pod="a"), ingress=[named]))
    assert everybody(net, "x/a", port=81) == OTHERS
    assert everybody(net, "x/a", port=80) == set()
    net.apply(policy("out", podSelector=labels(pod="a"), policyTypes=["Egress"], egress=[named]))
    assert net.passes("x/a", "y/c", port=81)
    assert not net.passes("x/a", "y/c", port=80)
    wrong = {"ports": [{"port": "serve-81-tcp", "protocol": "UDP"}]}
    net.apply(policy("in", podSelector=labels(pod="a"), ingress=[wrong]))
    assert not net.passes("x/b", "x/a", "UDP", 81)
    assert net.ask("x/b", "x/a", "UDP", 81).sentence.endswith(
        "port 81/UDP does not (serve-81-tcp/UDP, a name that no pod has for a UDP port)"
    )


@pytest.mark.rule("NP-11", element="policy")
def test_a_range_of_ports_has_both_its_ends(net: Policed) -> None:
    ports = [{"port": 79, "endPort": 80}, {"port": 1000, "endPort": 2000, "protocol": "UDP"}]
    net.apply(policy("range", podSelector=labels(pod="a"), ingress=[{"ports": ports}]))
    assert [port for port in (78, 79, 80, 81) if net.passes("x/b", "x/a", "TCP", port)] == [79, 80]
    assert [port for port in (999, 1000, 2000, 2001) if net.passes("x/b", "x/a", "UDP", port)] == [1000, 2000]
    net.apply(policy("protocol", podSelector=labels(pod="a"), ingress=[{"ports": [{"protocol": "UDP"}]}]))
    assert net.passes("x/b", "x/a", "UDP", 7)
    assert not net.passes("x/b", "x/a", "TCP", 7)


@pytest.mark.rule("NP-12", element="policy")
def test_blocks_of_addresses(net: Policed) -> None:
    b = net["x/b"].address()
    block = {"cidr": "10.244.0.0/16", "except": [f"10.244.1.{b[3]}/32"]}
    net.apply(policy("block", podSelector=labels(pod="a"), ingress=[{"from": [{"ipBlock": block}]}]))
    assert everybody(net, "x/a") == OTHERS - {"x/b"}
    assert everybody(net, "x/a", family=16) == set()
    again = {"from": [{"ipBlock": {"cidr": f"10.244.1.{b[3]}/32"}}]}
    net.apply(policy("block", podSelector=labels(pod="a"), ingress=[{"from": [{"ipBlock": block}]}, again]))
    assert everybody(net, "x/a") == OTHERS
    six = {"cidr": "fd00:244:0:1::/64"}
    net.apply(policy("block", podSelector=labels(pod="a"), ingress=[{"from": [{"ipBlock": six}]}]))
    assert everybody(net, "x/a", family=16) == {name for name in OTHERS if name[-1] != "c"}


@pytest.mark.rule("NP-13", "POD-06", element="policy")
def test_the_node_of_a_pod_is_never_kept_out(net: Policed) -> None:
    net.apply(policy("none", policyTypes=["Ingress", "Egress"]))
    a, node = net["x/a"].address(), net["host1:cni0"].address()
    trace = net.say("host1:cni0", segment(node, a, 5000, 80, 2))
    assert trace.verdict == "delivered"
    assert "POLICY_OWN_NODE" in trace.codes
    assert net.say("x/a", segment(a, node, 80, 5000, SYN_ACK)).verdict == "delivered"
    assert net.say("x/a", segment(a, node, 7000, 22, 2)).verdict == "delivered"
    other = net["host2:eth0"].address()
    assert net.say("host2:eth0", segment(other, a, 5000, 80, 2)).reason.name == "POLICY_INGRESS"  # type: ignore[union-attr]
    assert net.say("x/a", segment(a, other, 7000, 22, 2)).reason.name == "POLICY_EGRESS"  # type: ignore[union-attr]


@pytest.mark.rule("NP-17", element="policy")
def test_labels_of_pods_and_namespaces_count_from_the_next_frame(net: Policed) -> None:
    rule = {"from": [{"podSelector": labels(role="client"), "namespaceSelector": labels(team="one")}]}
    net.apply(policy("peers", podSelector=labels(pod="a"), ingress=[rule]))
    assert not net.passes("y/b", "x/a")
    net.relabel("y/b", role="client")
    assert not net.passes("y/b", "x/a")
    net.spaces["y"]["team"] = "one"
    net.rebuild()
    assert net.passes("y/b", "x/a")
    assert not net.passes("y/a", "x/a")
    net.relabel("x/a", pod="other")
    assert net.passes("y/a", "x/a")
    net.relabel("x/a", pod="a")
    assert not net.passes("y/a", "x/a")


@pytest.mark.rule("NP-18", element="policy")
def test_what_is_denied_is_dropped_in_silence(net: Policed) -> None:
    net.apply(policy("none", podSelector=labels(pod="a")))
    before = len(net["x/b"].got)
    trace = net.ask("x/b", "x/a")
    assert trace.verdict == "dropped"
    assert len(net["x/b"].got) == before  # no reset, no ICMP error
    assert net.world.ledger.as_dict()["reasons"]["POLICY_INGRESS"] == 1


@pytest.mark.rule("NP-19", element="policy")
def test_icmp_is_permitted_by_rules_without_ports_and_arp_always(net: Policed) -> None:
    a, b = net["x/a"], net["x/b"]
    with_port = {"from": [{"podSelector": labels(pod="b")}], "ports": [{"port": 80}]}
    net.apply(policy("web", podSelector=labels(pod="a"), ingress=[with_port]))
    assert net.say("x/b", echo(b.address(), a.address()), a.mac).sentence == (
        "x/b may not send to x/a: ingress of x/a is isolated by x/web; "
        "peer matches rule 1 of x/web, port ICMP does not (80/TCP)"
    )
    net.apply(policy("all", podSelector=labels(pod="a"), ingress=[{"from": [{"podSelector": labels(pod="b")}]}]))
    assert net.say("x/b", echo(b.address(), a.address(), sequence=2), a.mac).verdict == "delivered"
    net.apply(policy("none", policyTypes=["Ingress", "Egress"]))
    a.quiet = True
    a.got.clear()
    request = bytes.fromhex("0001080006040001") + b.mac + b.address() + bytes(6) + a.address()
    net.send("x/b", b"\xff" * 6 + b.mac + b"\x08\x06" + request)
    assert len(a.got) == 1
    assert net.say("x/b", echo(b.address(16), a.address(16)), a.mac).verdict == "dropped"
    solicitation = _solicitation(b.mac, b.address(16), a.address(16))
    net.send("x/b", b"\x33\x33\xff" + a.address(16)[13:] + b.mac + b"\x86\xdd" + solicitation)
    assert len(a.got) == 2


def _solicitation(mac: bytes, source: bytes, target: bytes) -> bytes:
    from emunet.packet import ipv6
    from emunet.packet.address import solicited_node
    from emunet.packet.checksum import transport_checksum

    group = solicited_node(target)
    message = b"\x87\x00\x00\x00" + bytes(4) + target + b"\x01\x01" + mac
    total = transport_checksum(source, group, 58, message)
    return ipv6.IPv6(source, group, 58, hop_limit=255).pack(message[:2] + total.to_bytes(2, "big") + message[4:])


@pytest.mark.rule("NP-15", "NP-14", element="policy")
def test_a_published_port_is_judged_behind_its_translation() -> None:
    """The port of the pod counts, not that of the host; a call to itself by way of the host is its own affair."""
    publish = "{name: host1, publish: [{port: 9999, pod: x/a, targetPort: 80}]}"
    from tests.policy_worlds import TEXT

    net = Policed(TEXT.replace("hosts: [host1, host2]", f"hosts: [{publish}, host2]"))
    net.apply(policy("web", podSelector=labels(pod="a"), ingress=[{"ports": [{"port": 80}]}]))
    host = net["host1:eth0"].address()
    client, a = net["x/c"].address(), net["x/a"].address()
    assert net.say("x/c", segment(client, host, 5000, 9999, 2)).verdict == "delivered"
    assert net.say("x/a", segment(a, host, 5001, 9999, 2)).codes.count("POLICY_ITSELF") == 1
    net.apply(policy("web", podSelector=labels(pod="a"), ingress=[{"ports": [{"port": 9999}]}]))
    assert net.say("x/c", segment(client, host, 5002, 9999, 2)).reason.name == "POLICY_INGRESS"  # type: ignore[union-attr]


@pytest.mark.rule("NP-16", element="policy")
def test_what_a_host_masquerades_comes_from_the_host() -> None:
    """x/b calls a published port of its own host: its source becomes the host's, and no selector means that."""
    from tests.policy_worlds import TEXT

    publish = "{name: host1, publish: [{port: 9999, pod: x/a, targetPort: 80}]}"
    net = Policed(TEXT.replace("hosts: [host1, host2]", f"hosts: [{publish}, host2]"))
    b, host, gateway = net["x/b"].address(), net["host1:eth0"].address(), net["host1:cni0"].address()
    net.apply(policy("web", podSelector=labels(pod="a"), ingress=[{"from": [{"podSelector": {}}]}]))
    assert net.passes("x/b", "x/a")
    trace = net.say("x/b", segment(b, host, 5000, 9999, 2))
    assert trace.sentence.startswith("host1 (10.244.1.1) may not send to x/a: ingress of x/a is isolated by x/web")
    block = {"from": [{"ipBlock": {"cidr": "10.244.1.1/32"}}]}
    assert gateway == parse_ip("10.244.1.1")
    net.apply(policy("web", podSelector=labels(pod="a"), ingress=[block]))
    assert net.say("x/b", segment(b, host, 5001, 9999, 2)).verdict == "delivered"


@pytest.mark.rule("NP-20", "HN-05", element="policy")
def test_a_pod_in_its_hosts_network_is_its_host() -> None:
    from tests.policy_worlds import TEXT

    hosted = (
        "---\napiVersion: v1\nkind: Pod\nmetadata: {name: h, namespace: x, labels: {pod: h}}\n"
        "spec: {nodeName: host2, hostNetwork: true, containers: [{name: c, image: i}]}\n"
    )
    net = Policed(TEXT + hosted)
    host, a = net["host2:eth0"].address(), net["x/a"].address()
    net.apply(policy("all", ingress=[{"from": [{"podSelector": {}}]}]))
    assert net.say("host2:eth0", segment(host, a, 5000, 80, 2)).reason.name == "POLICY_INGRESS"  # type: ignore[union-attr]
    assert net.say("x/a", segment(a, host, 5000, 80, 2)).verdict == "delivered"  # nothing isolates the host


@pytest.mark.rule("NP-22", element="namespace-defaults")
def test_every_namespace_carries_its_name() -> None:
    from emunet.lab.lab import Lab
    from tests.policy_worlds import TEXT

    text = (
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: from-y, namespace: x}\nspec:\n"
        "  podSelector: {}\n  ingress: [{from: [{namespaceSelector: {matchLabels:"
        " {kubernetes.io/metadata.name: y}}}]}]\n"
    )
    with Lab(f"{TEXT}---\n{text}") as lab:
        assert lab.ping("y/a", "x/a")
        assert not lab.ping("z/a", "x/a")


# What a change means for open connections


def opened(net: Policed) -> tuple[bytes, bytes]:
    """x/b and x/a have an open connection, 40000 to 80."""
    a, b = net["x/a"], net["x/b"]
    assert net.ask("x/b", "x/a", sport=40000).verdict == "delivered"
    assert net.say("x/a", segment(a.address(), b.address(), 80, 40000, SYN_ACK), b.mac).verdict == "delivered"
    assert net.say("x/b", segment(b.address(), a.address(), 40000, 80, ACK), a.mac).verdict == "delivered"
    return a.address(), b.address()


def test_with_the_mode_connection_an_open_connection_goes_on() -> None:
    net = Policed(mode="connection")
    a, b = opened(net)
    net.apply(policy("none", policyTypes=["Ingress", "Egress"]))
    assert net.say("x/b", segment(b, a, 40000, 80, ACK, b"more"), net["x/a"].mac).verdict == "delivered"
    assert net.say("x/a", segment(a, b, 80, 40000, ACK, b"more"), net["x/b"].mac).verdict == "delivered"
    assert not net.passes("x/b", "x/a")


def test_with_the_mode_packet_an_open_connection_ends() -> None:
    net = Policed(mode="packet")
    a, b = opened(net)
    net.apply(policy("none", podSelector=labels(pod="a")))
    trace = net.say("x/b", segment(b, a, 40000, 80, ACK, b"more"), net["x/a"].mac)
    assert trace.sentence == "x/b may not send to x/a: ingress of x/a is isolated by x/none; no rule permits anything"
    trace = net.say("x/a", segment(a, b, 80, 40000, ACK, b"more"), net["x/b"].mac)
    assert trace.sentence.endswith("no rule permits anything, so nor does this answer pass")
    net.apply(policy("one", podSelector=labels(pod="a"), ingress=[{"ports": [{"port": 80}]}]))
    assert net.say("x/b", segment(b, a, 40000, 80, ACK, b"more"), net["x/a"].mac).verdict == "delivered"
    assert net.say("x/a", segment(a, b, 80, 40000, ACK, b"more"), net["x/b"].mac).verdict == "delivered"


def test_a_question_that_nobody_answered_yet_is_judged_again() -> None:
    """As netfilter has it, a connection is new until it was answered."""
    net = Policed(mode="connection")
    a, b = net["x/a"].address(), net["x/b"].address()
    asked = datagram(b, a, 5000, 80, b"x")
    assert net.say("x/b", asked, net["x/a"].mac).verdict == "delivered"
    net.apply(policy("none"))
    assert net.say("x/b", asked, net["x/a"].mac).verdict == "dropped"


def test_a_pod_cannot_escape_by_the_address_of_another(net: Policed) -> None:
    """Who sends is known by the port that it sends on."""
    net.apply(policy("none", podSelector=labels(pod="b"), policyTypes=["Egress"]))
    forged = segment(net["y/a"].address(), net["x/a"].address(), 5000, 80, 2)
    assert net.say("x/b", forged, net["x/a"].mac).reason.name == "POLICY_EGRESS"  # type: ignore[union-attr]


def test_pods_on_routed_links_are_judged_too() -> None:
    from tests.policy_worlds import TEXT

    net = Policed(TEXT.replace("overlay: host-gw", "overlay: host-gw\n  podLinks: routed", 1))
    net.apply(policy("from-b", podSelector=labels(pod="a"), ingress=[{"from": [{"podSelector": labels(pod="b")}]}]))
    ends = net["x/a"].address()
    for name, verdict in (("x/b", "delivered"), ("x/c", "dropped"), ("y/a", "dropped")):
        assert net.say(name, segment(net[name].address(), ends, 5000, 80, 2)).verdict == verdict, name


def test_over_vxlan_the_inner_packet_is_judged() -> None:
    from tests.policy_worlds import TEXT

    net = Policed(TEXT.replace("overlay: host-gw", "overlay: vxlan", 1))
    net.apply(policy("from-c", podSelector=labels(pod="a"), ingress=[{"from": [{"podSelector": labels(pod="c")}]}]))
    assert net.passes("x/c", "x/a")
    assert not net.passes("y/c", "x/a")


def test_a_host_that_lost_its_power_enforces_when_it_has_it_again(net: Policed) -> None:
    net.apply(policy("none", podSelector=labels(pod="a")))
    net.apply(policy("none", podSelector=labels(pod="a"), ingress=[{"ports": [{"port": 81}]}]))
    for on in (False, True):
        net.world.set_power("host1", on=on)
    net.teach()
    assert net.passes("x/b", "x/a", port=81)
    assert not net.passes("x/b", "x/a", port=80)
