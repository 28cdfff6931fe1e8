"""What NAT does to a SYN, and to its answer: the same packet at every port, with the addresses that it has there.

    emunet up topologies/published-ports.yaml
    emunet shell examples/nat_syn.py

A pod of host2 calls the port that host1 publishes for web-1. Its own host puts its address in
place of the pod's (masquerade), host1 puts the pod's in place of its own (publish); on the way
back each of them undoes what it did.
"""

import threading

from scapy.layers.inet import IP, TCP
from scapy.sendrecv import AsyncSniffer, sr1

WAY = ["web-3", "host2:eth0", "host1:eth0", "web-1"]
REPLY_FLAGS = {"SA", "RA"}

ports = lab.ports
caller = next(name for name, port in ports.items() if port.kind == "pod" and port.device == "host2")
WAY[0] = caller
begun = threading.Event()
sniffer = AsyncSniffer(iface=WAY, filter="tcp port 8080", count=2 * len(WAY), started_callback=begun.set)
sniffer.start()
begun.wait(5)
with pod(caller):
    answer = sr1(IP(dst="host1") / TCP(sport=40000, dport=8080, flags="S", seq=1), timeout=5, verbose=0)
sniffer.join(10)  # the SYN and its answer at each port
packets = sniffer.results

for title, flags, way in (("the SYN", {"S"}, WAY), ("its answer", REPLY_FLAGS, WAY[::-1])):
    print(f"{title}:")
    for name in way:
        seen = next(p for p in packets if p.sniffed_on == name and str(p[TCP].flags) in flags)
        ends = f"{seen[IP].src}:{seen[TCP].sport} > {seen[IP].dst}:{seen[TCP].dport}"
        print(f"  {name:<11} {ends:<44} ttl {seen[IP].ttl}")
print(f"{caller} believes that {answer.src} answered: {answer[TCP].flags}")
print(f"what host2 remembers: {lab.tables('host2')['connections']}")
