"""The names of a cluster: the cases of the Kubernetes DNS specification (schema 1.1.0) by their sections, those of
Kubernetes' own tests (test/e2e/network/dns.go) by their names, and what CoreDNS does beside.

A query goes in as dnspython writes it, and what comes out is what dnspython reads: bytes both ways.
"""

from __future__ import annotations

from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emunet.cluster.build import build
from emunet.cluster.control_plane import ControlPlane
from emunet.cluster.controllers.kubelet import ContainerFact, PodFact
from emunet.cluster.load import load_text
from emunet.cluster.store import meta
from emunet.cluster.zone import Update, ZoneOf, reverse_origins
from emunet.elements.resolver import reply
from emunet.elements.zone import Zone, apply_update
from emunet.packet.address import Prefix, parse_ip
from emunet.packet.dns import reverse_name, text_of

TOPOLOGY = """apiVersion: emunet/v1
kind: Topology
metadata: {name: lab}
spec: {hosts: [host1], podCIDRs: [10.244.0.0/16, fd00:10:244::/48], dns: false}
"""


def pod(name: str, *, labels: str = "app: web", spec: str = "", namespace: str = "default") -> str:
    """A pod that serves on two named ports."""
    ports = "[{name: http, containerPort: 8080}, {name: dns-udp, containerPort: 53, protocol: UDP}]"
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}\n"
        f"spec: {{{spec}containers: [{{name: c, image: nginx, ports: {ports}}}]}}\n"
    )


def service(name: str, spec: str, namespace: str = "default") -> str:
    """A Service."""
    return f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n"


PORTS = "ports: [{name: http, port: 80, targetPort: http}, {name: dns-udp, port: 53, protocol: UDP}]"
WEB = "selector: {app: web}, " + PORTS
HEADLESS = "clusterIP: None, " + WEB
DB = "subdomain: db, "


class Names:
    """A control plane, its zone, and a stub that asks it."""

    def __init__(self, *documents: str) -> None:
        cluster = build(load_text(TOPOLOGY)).cluster
        self.plane = ControlPlane(cluster)
        self.of = self.plane.names
        self.unready: set[str] = set()
        self.addresses: dict[str, tuple[str, ...]] = {}
        self.number = 0
        if documents:
            self.plane.apply(load_text("---\n".join(documents)), 0)
        self.settle()

    def apply(self, *documents: str) -> None:
        """Make objects, and pods of theirs."""
        self.plane.apply(load_text("---\n".join(documents)), 0)
        self.settle()

    def settle(self) -> None:
        """Until nothing is left to do. A pod gets addresses by the order in which it came."""
        while True:
            pods = self.plane.settle(0)
            facts: dict[str, PodFact | None] = {}
            for one in pods:
                number = len(self.addresses) + 2
                ips = self.addresses.setdefault(one.name, (f"10.244.0.{number}", f"fd00:10:244::{number}"))
                waiting = {"c": ContainerFact("running", one.name not in self.unready, program=True)}
                facts[one.uid] = PodFact(ips, 0, waiting)
            for item in self.plane.ending():
                facts[meta(item)["uid"]] = PodFact((), 0, stopped=True)
            if not self.plane.tell(facts):
                break
        self.of.take()

    def ask(self, name: str, kind: str = "A", **options: Any) -> dns.message.Message:
        """The answer to a query, over UDP, as another reads it."""
        query = dns.message.make_query(name, kind, use_edns=False, **options)
        self.number += 1
        query.id = self.number
        data = reply(self.of.zone, query.to_wire()).data
        assert data is not None
        found = dns.message.from_wire(data, ignore_trailing=False)
        assert query.is_response(found)
        return found

    def texts(self, name: str, kind: str = "A") -> list[str]:
        """What the records of an answer say, in order of their text; [] is an answer without records."""
        found = self.ask(name, kind)
        if found.rcode() != dns.rcode.NOERROR:
            return [dns.rcode.to_text(found.rcode())]
        return sorted(item.to_text() for rrset in found.answer for item in rrset)

    def code(self, name: str, kind: str = "A") -> str:
        """How it was answered."""
        return dns.rcode.to_text(self.ask(name, kind).rcode())

    def address(self, service: str, namespace: str = "default") -> str:
        """The ClusterIP of a Service."""
        found = self.plane.store.get("services", namespace, service)
        assert found is not None
        address: str = found["spec"]["clusterIP"]
        return address


# 2.2 and 2.3: the version of the schema, Services with a ClusterIP


@pytest.mark.rule("DNS-10", element="zone")
def test_the_version_of_the_schema() -> None:
    assert Names().texts("dns-version.cluster.local.", "TXT") == ['"1.1.0"']


@pytest.mark.rule("DNS-01", element="zone")
def test_a_service_has_the_address_of_its_cluster_ip() -> None:
    names = Names(service("web", WEB), service("web", WEB, "blue"))
    assert names.texts("web.default.svc.cluster.local.") == [names.address("web")]
    assert names.texts("web.blue.svc.cluster.local.") == [names.address("web", "blue")]
    assert names.texts("web.default.svc.cluster.local.", "AAAA") == [], "it has no IPv6 address: no error, no record"
    assert names.texts("web.green.svc.cluster.local.") == ["NXDOMAIN"]


@pytest.mark.rule("DNS-01", "DNS-03", element="zone")
def test_a_service_of_both_families_has_both_addresses_and_both_backwards() -> None:
    names = Names(service("web", WEB + ", ipFamilyPolicy: RequireDualStack"))
    v4, v6 = names.plane.store.get("services", "default", "web")["spec"]["clusterIPs"]  # type: ignore[index]
    assert names.texts("web.default.svc.cluster.local.") == [v4]
    assert names.texts("web.default.svc.cluster.local.", "AAAA") == [v6]
    for address in (v4, v6):
        assert names.texts(text_of(reverse_name(parse_ip(address))), "PTR") == ["web.default.svc.cluster.local."]


@pytest.mark.rule("DNS-02", element="zone")
def test_named_ports_have_srv_records_and_bring_the_address_along() -> None:
    names = Names(service("web", WEB), service("plain", "selector: {app: web}, ports: [{port: 80}]"))
    found = names.ask("_http._tcp.web.default.svc.cluster.local.", "SRV")
    assert [item.to_text() for item in found.answer[0]] == ["0 100 80 web.default.svc.cluster.local."]
    assert found.answer[0].ttl == 30
    assert [(str(one.name), one[0].to_text()) for one in found.additional] == [
        ("web.default.svc.cluster.local.", names.address("web"))
    ]
    assert names.texts("_dns-udp._udp.web.default.svc.cluster.local.", "SRV") == [
        "0 100 53 web.default.svc.cluster.local."
    ]
    assert names.code("_dns-udp._tcp.web.default.svc.cluster.local.", "SRV") == "NXDOMAIN"
    assert names.code("_http._tcp.plain.default.svc.cluster.local.", "SRV") == "NXDOMAIN", "its port has no name"
    assert names.texts("_tcp.web.default.svc.cluster.local.", "SRV") == [], "there are names below it"


@pytest.mark.rule("DNS-03", element="zone")
def test_a_cluster_ip_backwards() -> None:
    names = Names(service("web", WEB))
    assert names.texts(text_of(reverse_name(parse_ip(names.address("web")))), "PTR") == [
        "web.default.svc.cluster.local."
    ]
    names.plane.request(0).delete(names.plane.find("services"), "default", "web")
    names.settle()
    assert names.code("200.0.96.10.in-addr.arpa.", "PTR") == "NXDOMAIN", "this range is the cluster's own"
    assert names.code("web.default.svc.cluster.local.") == "NXDOMAIN"


# 2.4: headless Services


@pytest.mark.rule("DNS-04", element="zone")
def test_a_headless_service_has_the_addresses_of_its_ready_endpoints() -> None:
    names = Names(service("web", HEADLESS))
    assert names.code("web.default.svc.cluster.local.") == "NXDOMAIN", "no endpoint is ready"
    names.unready.add("w2")
    names.apply(pod("w1"), pod("w2"), pod("w3"))
    assert names.texts("web.default.svc.cluster.local.") == ["10.244.0.2", "10.244.0.4"]
    names.unready = {"w1", "w2", "w3"}
    names.settle()
    assert names.code("web.default.svc.cluster.local.") == "NXDOMAIN"


@pytest.mark.rule("DNS-04", "OBJ-11", element="zone")
def test_with_publish_not_ready_addresses_those_that_are_not_ready_have_names_too() -> None:
    names = Names()
    names.unready.add("w1")
    names.apply(service("web", HEADLESS + ", publishNotReadyAddresses: true"), pod("w1"))
    assert names.texts("web.default.svc.cluster.local.") == ["10.244.0.2"]


@pytest.mark.rule("DNS-04", element="zone")
def test_a_headless_service_of_both_families() -> None:
    names = Names(service("web", HEADLESS + ", ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6]"), pod("w1"))
    assert names.texts("web.default.svc.cluster.local.", "AAAA") == ["fd00:10:244::2"]
    assert names.texts("web.default.svc.cluster.local.") == ["10.244.0.2"]
    names = Names(service("web", HEADLESS + ", ipFamilyPolicy: RequireDualStack"), pod("w1"))
    assert names.texts("web.default.svc.cluster.local.", "AAAA") == ["fd00:10:244::2"]


@pytest.mark.rule("DNS-05", "DNS-07", "DNS-11", element="zone")
def test_pods_with_hostname_and_subdomain_have_names_of_their_own() -> None:
    db = "clusterIP: None, selector: {app: db}, " + PORTS
    names = Names(
        service("db", db),
        pod("p1", labels="app: db", spec="hostname: one, " + DB),
        pod("p2", labels="app: db", spec="hostname: two, " + DB),
        pod("p3", labels="app: db", spec=DB),
    )
    assert names.texts("one.db.default.svc.cluster.local.") == ["10.244.0.2"]
    assert names.texts("two.db.default.svc.cluster.local.") == ["10.244.0.3"]
    assert names.texts("p3.db.default.svc.cluster.local.") == ["NXDOMAIN"], "a subdomain alone gives no name"
    assert names.texts("db.default.svc.cluster.local.") == ["10.244.0.2", "10.244.0.3", "10.244.0.4"]
    assert names.texts("2.0.244.10.in-addr.arpa.", "PTR") == ["one.db.default.svc.cluster.local."]
    assert names.texts("4.0.244.10.in-addr.arpa.", "PTR") == ["10-244-0-4.db.default.svc.cluster.local."]


@pytest.mark.rule("DNS-05", element="zone")
def test_several_addresses_of_one_hostname() -> None:
    names = Names(
        service("db", "clusterIP: None, ports: [{name: sql, port: 5432}]"),
        "apiVersion: v1\nkind: Endpoints\nmetadata: {name: db}\nsubsets: [{ports: [{name: sql, port: 5432}], addresses:"
        " [{ip: 10.9.9.1, hostname: one}, {ip: 10.9.9.2, hostname: one}, {ip: 10.9.9.3, hostname: two}]}]\n",
    )
    assert names.texts("one.db.default.svc.cluster.local.") == ["10.9.9.1", "10.9.9.2"]
    assert names.texts("_sql._tcp.db.default.svc.cluster.local.", "SRV") == [
        "0 50 5432 one.db.default.svc.cluster.local.", "0 50 5432 two.db.default.svc.cluster.local.",
    ]  # fmt: skip


@pytest.mark.rule("DNS-06", element="zone")
def test_each_endpoint_of_a_headless_service_on_each_of_its_named_ports() -> None:
    names = Names(service("web", HEADLESS), pod("w1"), pod("w2", spec="hostname: two, subdomain: web, "))
    found = names.ask("_http._tcp.web.default.svc.cluster.local.", "SRV")
    assert sorted(item.to_text() for item in found.answer[0]) == [
        "0 50 8080 10-244-0-2.web.default.svc.cluster.local.",
        "0 50 8080 two.web.default.svc.cluster.local.",
    ]
    assert {(str(one.name), one[0].to_text()) for one in found.additional} == {
        ("10-244-0-2.web.default.svc.cluster.local.", "10.244.0.2"),
        ("two.web.default.svc.cluster.local.", "10.244.0.3"),
    }
    assert len(names.texts("_dns-udp._udp.web.default.svc.cluster.local.", "SRV")) == 2
    assert names.code("_dns-udp._tcp.web.default.svc.cluster.local.", "SRV") == "NXDOMAIN"


@pytest.mark.rule("OBJ-13", "DNS-05", element="zone")
def test_pods_of_a_stateful_set_keep_their_names() -> None:
    names = Names(
        service("db", "clusterIP: None, selector: {app: db}, ports: [{name: sql, port: 5432}]"),
        "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: db}\nspec: {serviceName: db, replicas: 2,"
        " selector: {matchLabels: {app: db}}, template: {metadata: {labels: {app: db}},"
        " spec: {containers: [{name: c, image: db}]}}}\n",
    )
    assert names.texts("db-0.db.default.svc.cluster.local.") == ["10.244.0.2"]
    assert names.texts("db-1.db.default.svc.cluster.local.") == ["10.244.0.3"]
    names.addresses["db-0"] = ("10.244.0.77", "fd00:10:244::77")
    names.plane.request(0).delete(names.plane.find("pods"), "default", "db-0")
    names.settle()
    assert names.texts("db-0.db.default.svc.cluster.local.") == ["10.244.0.77"], "another address, the same name"


# 2.5: ExternalName


@pytest.mark.rule("DNS-08", element="zone")
def test_an_external_name_is_an_alias_whatever_is_asked() -> None:
    names = Names(service("shop", "type: ExternalName, externalName: shop.example.com"))
    for kind in ("A", "AAAA", "CNAME", "SRV", "TXT"):
        assert names.texts("shop.default.svc.cluster.local.", kind) == ["shop.example.com."]


@pytest.mark.rule("DNS-08", element="zone")
def test_an_alias_within_the_cluster_is_followed() -> None:
    names = Names(
        service("web", WEB), service("alias", "type: ExternalName, externalName: web.default.svc.cluster.local"),
        service("again", "type: ExternalName, externalName: alias.default.svc.cluster.local"),
        service("nothing", "type: ExternalName, externalName: nothing.at.all.svc.cluster.local"),
        service("self", "type: ExternalName, externalName: self.default.svc.cluster.local"),
    )  # fmt: skip
    found = names.ask("again.default.svc.cluster.local.")
    assert [rrset[0].to_text() for rrset in found.answer] == [
        "alias.default.svc.cluster.local.", "web.default.svc.cluster.local.", names.address("web"),
    ]  # fmt: skip
    assert names.code("nothing.default.svc.cluster.local.") == "NXDOMAIN"
    assert names.ask("self.default.svc.cluster.local.").rcode() == dns.rcode.NOERROR, "and it comes to an end"


@pytest.mark.rule("DNS-08", element="zone")
def test_an_external_name_that_looks_like_an_address_is_a_name() -> None:
    names = Names(service("ip", "type: ExternalName, externalName: 10.0.0.1"))
    assert names.texts("ip.default.svc.cluster.local.") == ["10.0.0.1."]
    assert names.ask("ip.default.svc.cluster.local.").answer[0].rdtype == dns.rdatatype.CNAME


# Addresses as names


@pytest.mark.rule("DNS-09", element="zone")
def test_addresses_of_pods_are_names_in_every_namespace() -> None:
    names = Names()
    assert names.texts("10-244-1-2.default.pod.cluster.local.") == ["10.244.1.2"]
    assert names.texts("fd00--7.kube-system.pod.cluster.local.", "AAAA") == ["fd00::7"]
    assert names.texts("10-244-1-2.default.pod.cluster.local.", "AAAA") == []
    assert names.code("10-244-1-2.nowhere.pod.cluster.local.") == "NXDOMAIN"
    assert names.code("web-1.default.pod.cluster.local.") == "NXDOMAIN"


# What a stub meets


@pytest.mark.rule("DNS-12", element="resolver")
def test_names_are_compared_without_case_and_answered_in_the_case_of_the_question() -> None:
    names = Names(service("web", WEB))
    found = names.ask("WeB.DeFaUlT.svc.cluster.LOCAL.")
    assert [item.to_text() for item in found.answer[0]] == [names.address("web")]
    assert found.question[0].name.to_text() == "WeB.DeFaUlT.svc.cluster.LOCAL."
    assert found.answer[0].name.to_text() == "WeB.DeFaUlT.svc.cluster.LOCAL."


@pytest.mark.rule("DNS-13", element="zone")
def test_records_live_for_half_a_minute() -> None:
    names = Names(service("web", WEB))
    assert names.ask("web.default.svc.cluster.local.").answer[0].ttl == 30


@pytest.mark.rule("DNS-14", element="turns")
def test_several_addresses_are_turned_round_from_answer_to_answer() -> None:
    names = Names(service("web", HEADLESS), pod("w1"), pod("w2"), pod("w3"))
    first = {names.ask("web.default.svc.cluster.local.").answer[0][0].to_text() for _ in range(3)}
    assert first == {"10.244.0.2", "10.244.0.3", "10.244.0.4"}


@pytest.mark.rule("DNS-16", element="resolver")
def test_what_is_not_there_is_said_with_the_beginning_of_authority() -> None:
    names = Names(service("web", WEB))
    for name, kind, code in (
        ("nothing.default.svc.cluster.local.", "A", dns.rcode.NXDOMAIN),
        ("web.default.svc.cluster.local.", "AAAA", dns.rcode.NOERROR),
        ("default.svc.cluster.local.", "A", dns.rcode.NOERROR),
        ("svc.cluster.local.", "A", dns.rcode.NOERROR),
        ("cluster.local.", "A", dns.rcode.NOERROR),
        ("other.cluster.local.", "A", dns.rcode.NXDOMAIN),
    ):
        found = names.ask(name, kind)
        assert (found.rcode(), found.answer) == (code, [])
        assert bool(found.flags & dns.flags.AA)
        assert found.authority[0].to_text().startswith("cluster.local. 30 IN SOA ns.dns.cluster.local. hostmaster.")
        assert found.authority[0][0].minimum == 30, "for so long a stub may believe it (RFC 2308 5)"


def test_the_domain_itself_has_a_beginning_of_authority_and_a_name_server() -> None:
    names = Names()
    before = names.ask("cluster.local.", "SOA").answer[0][0].serial
    assert names.texts("cluster.local.", "NS") == ["ns.dns.cluster.local."]
    assert names.texts("ns.dns.cluster.local.") == ["10.96.0.10"]
    names.apply(service("web", WEB))
    assert names.ask("cluster.local.", "SOA").answer[0][0].serial > before


@pytest.mark.rule("DNS-17", element="resolver")
def test_what_is_outside_is_refused_with_the_reason() -> None:
    names = Names()
    query = dns.message.make_query("www.example.com.", "A", use_edns=0)
    told = reply(names.of.zone, query.to_wire())
    assert told.outside
    assert told.data is not None
    found = dns.message.from_wire(told.data)
    assert found.rcode() == dns.rcode.SERVFAIL
    assert found.options[0].code == 20
    assert found.options[0].text == (
        "www.example.com.: it is outside of cluster.local, and the name server of this lab asks no other;"
        " spec.dns.forward of the topology names those to ask"
    )
    assert names.code("5.2.0.192.in-addr.arpa.", "PTR") == "SERVFAIL"


def test_pods_and_hosts_have_the_short_names_by_which_the_lab_knows_them() -> None:
    names = Names(pod("web-1"), pod("web-1", namespace="blue"), pod("h", spec="hostNetwork: true, "))
    assert names.texts("web-1.") == ["10.244.0.2"]
    assert names.texts("web-1.blue.") == ["10.244.0.2"]
    assert names.texts("web-1.", "AAAA") == ["fd00:10:244::2"]
    assert names.texts("host1.") == ["192.168.9.11"]
    assert names.code("h.") == "SERVFAIL", "it has its host's address"
    assert names.texts("web-1.", "TXT") == []


# As they change


def test_a_service_that_becomes_an_external_name_and_back() -> None:
    names = Names(service("web", WEB))
    names.apply(service("web", "type: ExternalName, externalName: example.com"))
    assert names.texts("web.default.svc.cluster.local.") == ["example.com."]
    assert names.code("_http._tcp.web.default.svc.cluster.local.", "SRV") == "NXDOMAIN"
    names.apply(service("web", "type: ClusterIP, externalName: null, " + WEB))
    assert names.texts("web.default.svc.cluster.local.") == [names.address("web")]


def test_two_services_of_the_same_pods_give_back_both_names_and_lose_them_one_by_one() -> None:
    names = Names(service("a", HEADLESS), service("b", HEADLESS), pod("w1"))
    backwards = "2.0.244.10.in-addr.arpa."
    assert len(names.texts(backwards, "PTR")) == 2
    names.plane.request(0).delete(names.plane.find("services"), "default", "a")
    names.settle()
    assert names.texts(backwards, "PTR") == ["10-244-0-2.b.default.svc.cluster.local."]
    names.plane.request(0).delete(names.plane.find("services"), "default", "b")
    names.settle()
    assert names.code(backwards, "PTR") == "NXDOMAIN"


def test_a_namespace_that_goes_takes_its_names_along() -> None:
    names = Names(service("web", WEB, "blue"))
    assert names.texts("blue.svc.cluster.local.") == []
    names.plane.request(0).delete(names.plane.find("namespaces"), "", "blue")
    names.settle()
    assert names.code("web.blue.svc.cluster.local.") == "NXDOMAIN"
    assert names.code("blue.svc.cluster.local.") == "NXDOMAIN"


ACTIONS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["ip", "headless", "name", "pod", "gone"])), max_size=12
)


@settings(max_examples=40, deadline=None)
@given(ACTIONS)
def test_as_it_changes_it_is_what_it_would_be_from_the_beginning(actions: list[tuple[str, str]]) -> None:
    """And a name server that is told line by line knows the same."""
    names = Names()
    other: Zone | None = apply_update(None, names.of.whole().encode())
    specs = {"ip": WEB, "headless": HEADLESS, "name": "type: ExternalName, externalName: example.com"}
    for name, what in actions:
        store = names.plane.store
        if what == "pod" or store.get("services", "default", name) is not None:
            old = "pods" if what == "pod" else "services"
            if store.get(old, "default", name) is not None:
                names.plane.request(0).delete(names.plane.find(old), "default", name)
        if what in specs:
            names.plane.apply(load_text(service(name, specs[what])), 0)
        elif what == "pod":
            names.plane.apply(load_text(pod(name, spec=f"hostname: {name}, subdomain: a, ")), 0)
        # Not by `settle`, which would take the changes itself.
        taken, names.of.take = names.of.take, lambda: Update({})  # type: ignore[method-assign,assignment]
        names.settle()
        names.of.take = taken  # type: ignore[method-assign]
        other = apply_update(other, names.of.take().encode())
    anew = ZoneOf(names.plane.store, names.plane.cluster)
    anew.take()
    assert names.of.zone.parts == anew.zone.parts
    for zone in (names.of.zone, other):
        assert zone is not None
        for index in ("_nodes", "_dashed"):
            assert getattr(zone, index) == getattr(anew.zone, index)
        assert {name: set(parts) for name, parts in zone._names.items()} == {
            name: set(parts) for name, parts in anew.zone._names.items()
        }


@pytest.mark.parametrize(
    ("prefix", "count", "last"),
    [
        ("10.244.0.0/16", 1, "244.10.in-addr.arpa."),
        ("10.96.0.0/18", 64, "63.96.10.in-addr.arpa."),
        ("10.0.0.0/9", 128, "127.10.in-addr.arpa."),
        ("0.0.0.0/0", 1, "in-addr.arpa."),
        ("10.1.2.3/32", 1, "3.2.1.10.in-addr.arpa."),
        ("fd00:10:96::/47", 2, "7.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa."),
    ],
)
def test_ranges_backwards(prefix: str, count: int, last: str) -> None:
    found = reverse_origins(Prefix.parse(prefix))
    assert (len(found), text_of(found[-1])) == (count, last)
