"""The worked scripts that ship, run as their first lines say."""

from __future__ import annotations

from pathlib import Path

from lab_driver import ROOT, Labs, balance

EXAMPLES = ROOT / "examples"


def run(labs: Labs, name: str, topology: str = "two-hosts") -> list[str]:
    labs.ok("up", str(ROOT / "topologies" / f"{topology}.yaml"), "--wires", "memory")
    lines = labs.ok("shell", str(EXAMPLES / name)).splitlines()
    assert balance(labs.json("status")["frames"]) == 0
    return lines


def test_arp_spoofing_is_seen_and_stopped(labs: Labs) -> None:
    lines = run(labs, "arp_spoofing.py")
    seen = sorted(line.split(" (")[1] for line in lines if line.startswith("seen: "))
    assert seen == ["web-2); it belongs to host1:cni0", "web-2); it belongs to web-1"]
    assert "spoofed: 3 of 3 pings of web-1 come by web-2" in lines
    assert "guarded: 0 of 2 pings of web-1 come by web-2" in lines


def test_the_mtu_of_a_path_over_vxlan(labs: Labs) -> None:
    assert run(labs, "path_mtu.py") == [
        "1500 bytes: 10.244.1.1 says that 1450 is the most",
        "1450 bytes: answered by 10.244.2.2",
        "between the hosts: 1500 bytes, 50 of them the tunnel's",
        "one byte more: dest-unreach, fragmentation-needed",
    ]


def test_what_nat_does_to_a_syn(labs: Labs) -> None:
    lines = run(labs, "nat_syn.py", "published-ports")
    ends = [line.split(" ttl ")[0].split() for line in lines if " ttl " in line]
    assert [(row[0], row[1].split(":")[0], row[3].split(":")[0]) for row in ends[:4]] == [
        ("web-3", "10.244.2.2", "192.168.9.11"),
        ("host2:eth0", "192.168.9.12", "192.168.9.11"),
        ("host1:eth0", "192.168.9.12", "192.168.9.11"),
        ("web-1", "192.168.9.12", "10.244.1.2"),
    ]
    for there, back in zip(ends[:4], reversed(ends[4:]), strict=True):
        assert (there[1], there[3]) == (back[3], back[1])
    assert "web-3 believes that 192.168.9.11 answered: RA" in lines


def test_every_example_is_tested() -> None:
    told = Path(__file__).read_text()
    assert all(path.name in told for path in EXAMPLES.glob("*.py"))
