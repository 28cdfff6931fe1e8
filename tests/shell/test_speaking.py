"""Who speaks, what Scapy does by itself on a port of the lab, and a man in the middle."""

from __future__ import annotations

from typing import Any

from tests.shell.test_provider import plane, scapy

__all__ = ["plane", "scapy"]

NAMES = """
from emunet.shell.middle import make_mitm
from emunet.shell.provider import PortSocket
from emunet.shell.speaking import make_pod
pod, mitm = make_pod(PortSocket.ports), make_mitm(PortSocket.ports)
"""


def test_a_pod_speaks_within_its_block(scapy: Any) -> None:
    """Names, source and next hop are the pod's; afterwards, and after an error, it is as before."""
    told = scapy(
        NAMES
        + """
with pod("web-4"):
    one = sr1(IP(dst="web-1")/ICMP(), timeout=5)
    with pod("web-3"):
        two = sr1(IP(dst="web-4")/ICMP(), timeout=5)
    three = srp1(Ether()/IP(dst="web-2")/ICMP(), timeout=5)
    send(IP(dst="web-2")/ICMP(type=0), verbose=0)
with pod("default/web-2") as name: pass
with pod("host1"):
    four = sr1(IP(dst="host2")/ICMP(), timeout=5)
try:
    with pod("web-3"): 1/0
except ZeroDivisionError: pass
try:
    with pod("web-9"): pass
except ValueError as error: wrong = str(error)
tell([one.src, one.dst, two.src, two.dst, three[IP].src, three[IP].dst, name, four.src, str(conf.iface), wrong])
"""
    )
    assert told[:6] == ["10.244.1.2", "10.244.2.3", "10.244.2.3", "10.244.2.2", "10.244.1.3", "10.244.2.3"]
    assert told[6:9] == ["web-2", "192.168.9.12", "web-1"]
    assert told[9].startswith("there is no pod or port web-9; there are: web-1, web-2")


def test_traceroute_and_arping(scapy: Any) -> None:
    told = scapy(
        NAMES
        + """
with pod("web-1"):
    way, _ = traceroute("web-3", maxttl=5, timeout=2, verbose=0)
    found, _ = arping("10.244.1.0/29", timeout=2, verbose=0)
tell([[(q.ttl, a.src) for q, a in way if q.ttl < 4], sorted(a.psrc for _, a in found)])
"""
    )
    assert told[0] == [[1, "10.244.1.1"], [2, "10.244.2.0"], [3, "10.244.2.2"]]
    assert told[1] == ["10.244.1.0", "10.244.1.1", "10.244.1.3"]  # host1 answers for all its addresses, as Linux does


def test_an_automaton(scapy: Any) -> None:
    """Its sockets are those of the pod that speaks, or of the interface that it names."""
    told = scapy(
        NAMES
        + """
class Asker(Automaton):
    def parse_args(self, target, **options):
        self.target = target
        Automaton.parse_args(self, **options)
    def master_filter(self, packet):
        return ICMP in packet and packet[ICMP].type == 0
    @ATMT.state(initial=1)
    def ASKED(self):
        self.send(IP(dst=self.target)/ICMP(id=99, seq=5))
    @ATMT.receive_condition(ASKED)
    def answered(self, packet):
        raise self.DONE([packet[IP].src, packet[IP].dst, packet[ICMP].id])
    @ATMT.timeout(ASKED, 5)
    def silent(self):
        raise self.DONE(None)
    @ATMT.state(final=1)
    def DONE(self, result):
        return result
with pod("web-2"):
    one = Asker("web-3").run()
two = Asker("web-1", iface="web-4").run()
tell([one, two])
"""
    )
    assert told == [["10.244.2.2", "10.244.1.3", 99], ["10.244.1.2", "10.244.2.3", 99]]


def test_an_answering_machine(scapy: Any) -> None:
    """web-2 answers for an address that nobody has, with a MAC of its choice."""
    told = scapy(
        NAMES
        + """
machine = ARP_am(IP_addr="10.244.1.77", ARP_addr="02:00:00:00:00:77", iface="web-2", verbose=0)
machine.bg()
while not hasattr(machine.sniffer, "continue_sniff"): time.sleep(0.01)
with pod("web-1"):
    found, _ = arping("10.244.1.77", timeout=5, verbose=0)
machine.sniffer.stop()
tell([[a.hwsrc for _, a in found]])
"""
    )
    assert told == [["02:00:00:00:00:77"]]


def test_a_man_in_the_middle(scapy: Any) -> None:
    """What two stations say to each other comes by a third, is changed there, and reaches its end."""
    told = scapy(
        NAMES
        + """
def ask(load):
    with pod("web-1"):
        answer = srp1(Ether(dst=table["web-1"])/IP(dst="web-3")/ICMP(id=3)/load, timeout=5)
    return bytes(answer[Raw]).decode()
real = getmacbyip("10.244.1.1")
heard = AsyncSniffer(iface="web-1", filter="arp", store=True); heard.start()
while not hasattr(heard, "continue_sniff"): time.sleep(0.01)
def louder(frame):
    if Raw in frame: frame[Raw].load = frame[Raw].load.upper()
    return frame
middle_mac = get_if_hwaddr("web-2")
table = {"web-1": middle_mac}   # what the lie makes of web-1's table: a station that Scapy plays keeps none
with mitm("web-1", "host1:cni0", by="web-2", change=louder) as middle:
    changed = ask(b"hello")
    with pod("web-4"):
        sr1(IP(dst="web-1")/ICMP(id=4)/b"there", timeout=5)
    by = sorted({(f.src == get_if_hwaddr("web-1")) for f in middle.seen})
lies = [p for p in heard.stop() if ARP in p and p.dst == get_if_hwaddr("web-1") and p[ARP].psrc == "10.244.1.1"]
table["web-1"] = get_if_hwaddr("host1:cni0")
tell([changed, len(middle.seen) >= 3, by, lies[0][ARP].hwsrc == middle_mac,
      lies[-1][ARP].hwsrc == get_if_hwaddr("host1:cni0"), ask(b"hello")])
"""
    )
    assert told == ["HELLO", True, [False, True], True, True, "hello"]


def test_no_middle_where_arp_does_not_reach(scapy: Any) -> None:
    told = scapy(
        NAMES
        + """
wrong = []
for ends in (("web-1", "web-3", "web-2"), ("web-1", "web-1", "web-2"), ("web-1", "web-9", "web-2"),
             ("web-1", "switch1:1", "web-2")):
    try: mitm(ends[0], ends[1], by=ends[2])
    except ValueError as error: wrong.append(str(error))
tell(wrong)
"""
    )
    assert len(told) == 4
    assert "no three stations of one link" in told[0]
    assert "no three stations of one link" in told[1]
    assert told[2].startswith("there is no port web-9")
    assert "has no IPv4 address" in told[3]


def test_a_frame_goes_out_by_a_hosts_interface_as_it_is(scapy: Any) -> None:
    """An unknown EtherType too: as from a packet socket. A packet is sent by the host's own sockets instead."""
    told = scapy("""
ends = {"eth0": "switch1:1", "cni0": "web-1", "flannel.1": "host1:eth0"}
seen = {}
for name, end in ends.items():
    sniffer = AsyncSniffer(iface=end, filter="ether proto 0x88b5 or udp port 4789", count=1); sniffer.start()
    while not hasattr(sniffer, "continue_sniff"): time.sleep(0.01)
    target = "7e:f0:02:f0:c6:64" if name != "flannel.1" else get_if_hwaddr("host2:flannel.1")
    sendp(Ether(src="02:00:00:00:00:99", dst=target, type=0x88b5)/b"as it is", iface=f"host1:{name}")
    sniffer.join(timeout=5)
    seen[name] = [p.lastlayer().load.rstrip(b"\\0").decode() for p in sniffer.results]
packet = sr1(IP(dst="web-3")/ICMP(), iface="host1:eth0", timeout=5)
tell([seen, packet.src])
""")
    assert told[0]["eth0"] == ["as it is"]
    assert told[0]["cni0"] == ["as it is"]
    assert told[0]["flannel.1"][0].endswith("as it is")
    assert told[1] == "10.244.2.2"
