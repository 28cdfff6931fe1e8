"""Path MTU discovery over VXLAN: who says that a packet is too long, and what a tunnel costs.

    emunet up
    emunet shell examples/path_mtu.py

A packet of 1500 bytes that must not be fragmented does not fit into the tunnel: the host says so,
and says what does (RFC 1191). Around what fits the tunnel puts 50 bytes: 1500 on the wire between hosts.
"""

from scapy.config import conf
from scapy.layers.inet import ICMP, IP
from scapy.sendrecv import AsyncSniffer, sr1

conf.auto_fragment = False
ICMP_UNREACHABLE, ICMP_TOO_LONG = 3, 4


def probe(size):
    """Send an echo request of so many bytes, with DF; the answer."""
    return sr1(IP(dst="web-3", flags="DF") / ICMP() / bytes(size - 28), timeout=5, verbose=0)


with pod("web-1"):
    size = 1500
    while True:
        answer = probe(size)
        if answer is None:
            print(f"{size} bytes: no answer")
            break
        if (answer[ICMP].type, answer[ICMP].code) != (ICMP_UNREACHABLE, ICMP_TOO_LONG):
            print(f"{size} bytes: answered by {answer.src}")
            break
        print(f"{size} bytes: {answer.src} says that {answer[ICMP].nexthopmtu} is the most")
        size = answer[ICMP].nexthopmtu

    outer = AsyncSniffer(iface="host1:eth0", filter="udp port 4789", count=1)
    outer.start()
    while not hasattr(outer, "continue_sniff"):
        pass
    probe(size)
    outer.join(5)
    length = outer.results[0][IP].len
    print(f"between the hosts: {length} bytes, {length - size} of them the tunnel's")
    print(f"one byte more: {probe(size + 1)[ICMP].sprintf('%ICMP.type%, %ICMP.code%')}")
