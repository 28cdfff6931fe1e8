"""ARP spoofing, seen and stopped.

    emunet up
    emunet shell examples/arp_spoofing.py

web-2 tells web-1 and its gateway that it is the other (`mitm`), and reads what they say to each
other. A guard that knows who has which address sees the lie on the wire, and tells the truth again.
"""

import threading

from scapy.layers.inet import ICMP
from scapy.layers.l2 import ARP, Ether
from scapy.sendrecv import AsyncSniffer, sendp

VICTIM, GATEWAY, THIEF, FAR = "web-1", "host1:cni0", "web-2", "web-3"

ports = lab.ports
owner = {row.partition("/")[0]: port for port in ports.values() for row in port.addresses}
lied, told = threading.Event(), threading.Event()
reported = set()


def pings_that_come_by(middle, count):
    """How many echo requests of the victim come by the thief, of so many that it sends."""
    before = len(middle.seen)
    lab.ping(VICTIM, FAR, count=count, interval=0.1)
    return sum(ICMP in frame and frame[ICMP].type == 8 for frame in middle.seen[before:])


def look(frame):
    """The guard: who says that an address is at a MAC, and is it there?"""
    port = owner.get(frame[ARP].psrc)
    if port is None or frame[ARP].hwsrc == port.mac:
        return
    if frame[ARP].psrc not in reported:
        reported.add(frame[ARP].psrc)
        liar = next((one.name for one in ports.values() if one.mac == frame[ARP].hwsrc), "a stranger")
        print(f"seen: {frame[ARP].psrc} is said to be at {frame[ARP].hwsrc} ({liar}); it belongs to {port.name}")
    if len(reported) == 2:
        lied.set()
    if guarding:
        # The truth, from whom it is about to whom was lied to: as a question, which is believed at once.
        truth = ARP(op="who-has", hwsrc=port.mac, psrc=frame[ARP].psrc, pdst=frame[ARP].pdst)
        sendp(Ether(src=port.mac, dst=frame.dst) / truth, iface=port.name, verbose=0)
        told.set()


guarding = False
lab.ping(VICTIM, FAR)  # everybody knows everybody
watching = threading.Event()
guard = AsyncSniffer(iface=[VICTIM, GATEWAY], filter="arp", prn=look, store=False, started_callback=watching.set)
guard.start()
watching.wait(5)
with mitm(VICTIM, GATEWAY, by=THIEF) as middle:
    lied.wait(10)
    print(f"spoofed: {pings_that_come_by(middle, 3)} of 3 pings of {VICTIM} come by {THIEF}")
    guarding = True
    told.wait(10)  # the thief repeats its lie, and the guard answers it
    told.clear()
    told.wait(10)
    print(f"guarded: {pings_that_come_by(middle, 2)} of 2 pings of {VICTIM} come by {THIEF}")
guard.stop()
