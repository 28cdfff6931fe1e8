"""What a container's engine answers when it is asked for names (fidelity DK-16)."""

from __future__ import annotations

import pytest

from emunet.cluster.docker.containers import Container, Containers, Place
from emunet.cluster.docker.names import TTL, reply
from emunet.cluster.docker.networks import Networks, NetworkWish
from emunet.packet.address import parse_ip
from emunet.packet.dns import Code, Edns, Message, Question, Type, name_of, reverse_name


@pytest.fixture
def engine() -> Containers:
    containers = Containers(Networks("host1"))
    containers.networks.create(NetworkWish("blue"))
    containers.networks.create(NetworkWish("six", ipv6=True))
    for name, places in (
        ("web", {"blue": Place(aliases=("www", "Shop"))}),
        ("www2", {"blue": Place(aliases=("www",))}),
        ("db", {"six": Place()}),
        ("old", {"bridge": Place()}),
    ):
        containers.join(containers.add(name, next(iter(places)), places))
    return containers


def ask(engine: Containers, who: str, name: str, kind: int = Type.A, number: int = 0) -> Message:
    query = Message(number, recursion_desired=True, questions=(Question(name_of(name), kind),))
    data = reply(engine, engine.find(who), query.pack()).data
    assert data is not None
    return Message.parse(data)


def addresses(message: Message) -> list[bytes]:
    return [record.data[0] for record in message.answers]  # type: ignore[misc]


@pytest.mark.rule("DK-16", element="docker-names")
def test_names_aliases_and_ids_have_addresses(engine: Containers) -> None:
    web = engine.find("web")
    own = parse_ip("172.18.0.2")
    for name in ("web", "WEB", "shop", web.id[:12], "web.blue"):
        message = ask(engine, "www2", name)
        assert (message.code, addresses(message)) == (Code.NOERROR, [own])
        assert {record.ttl for record in message.answers} == {TTL} == {600}
        assert message.recursion_available


@pytest.mark.rule("DK-16", element="docker-names")
def test_several_of_one_name_take_turns(engine: Containers) -> None:
    found = [tuple(addresses(ask(engine, "web", "www", number=number))) for number in range(4)]
    assert set(found) == {tuple(map(parse_ip, row)) for row in
                          (("172.18.0.2", "172.18.0.3"), ("172.18.0.3", "172.18.0.2"))}  # fmt: skip


@pytest.mark.rule("DK-16", element="docker-names")
def test_a_name_without_ipv6_has_none_and_is_known_all_the_same(engine: Containers) -> None:
    message = ask(engine, "web", "web", Type.AAAA)
    assert (message.code, message.answers) == (Code.NOERROR, ())
    message = ask(engine, "db", "db", Type.AAAA)
    assert [len(one) for one in addresses(message)] == [16]


@pytest.mark.rule("DK-16", element="docker-names")
def test_an_address_leads_back_to_a_name(engine: Containers) -> None:
    query = Message(5, questions=(Question(reverse_name(parse_ip("172.18.0.2")), Type.PTR),))
    data = reply(engine, engine.find("web"), query.pack()).data
    assert data is not None
    [record] = Message.parse(data).answers
    assert record.data == (name_of("web.blue"),)


@pytest.mark.rule("DK-16", element="docker-names")
@pytest.mark.parametrize("name", ["nosuch", "db", "old", "web.six", "example.com"])
def test_what_is_not_on_the_same_network_is_for_others(engine: Containers, name: str) -> None:
    query = Message(7, questions=(Question(name_of(name), Type.A),))
    answer = reply(engine, engine.find("web"), query.pack())
    assert answer.ask_others
    assert answer.data is not None
    assert Message.parse(answer.data).code == Code.SERVFAIL
    assert ask(engine, "web", "www2").code == Code.NOERROR, "who is on the same network is known"


@pytest.mark.rule("DK-17", element="docker-names")
def test_on_the_default_bridge_nobody_has_a_name(engine: Containers) -> None:
    query = Message(7, questions=(Question(name_of("old"), Type.A),))
    assert reply(engine, engine.find("old"), query.pack()).ask_others
    engine.connect(engine.find("old"), "blue", Place())
    assert ask(engine, "old", "old").code == Code.NOERROR, "on a network of people's own it has one"


@pytest.mark.rule("DK-19", element="docker-names")
def test_who_is_disconnected_has_no_name_any_more(engine: Containers) -> None:
    engine.disconnect(engine.find("web"), "blue")
    assert ask(engine, "www2", "web").code == Code.SERVFAIL
    engine.connect(engine.find("web"), "blue", Place(aliases=("back",)))
    assert ask(engine, "www2", "back").code == Code.NOERROR


def test_what_is_no_question_is_not_answered(engine: Containers) -> None:
    web: Container = engine.find("web")
    for data in (b"", b"x" * 7, b"\xff" * 40, Message(1, response=True).pack()):
        assert reply(engine, web, data).data is None


def test_a_long_answer_is_cut_to_what_the_asker_takes(engine: Containers) -> None:
    engine.networks.create(NetworkWish("many"))
    for number in range(60):
        engine.join(engine.add(f"m{number}", "many", {"many": Place(aliases=("all",))}))
    plain = Message(3, questions=(Question(name_of("all"), Type.A),))
    data = reply(engine, engine.find("m1"), plain.pack()).data
    assert data is not None
    assert len(data) <= 512
    assert Message.parse(data).truncated
    wide = Message(3, questions=(Question(name_of("all"), Type.A),), edns=Edns(4096))
    for query, stream in ((wide, False), (plain, True)):
        data = reply(engine, engine.find("m1"), query.pack(), stream=stream).data
        assert data is not None
        assert len(Message.parse(data).answers) == 60
