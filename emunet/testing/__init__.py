"""For tests of applications and protocols: a Lab that speaks Scapy, and a pytest fixture.

    from emunet.testing import Lab

    with Lab("topologies/two-hosts.yaml") as lab:
        reply = lab.pod("web-1").sr1(IP(dst=lab.pod("web-3").ip) / ICMP())

Scapy is imported only when a packet of its kind is used.
"""

from emunet.testing.lab import Lab, Pod

__all__ = ["Lab", "Pod"]
