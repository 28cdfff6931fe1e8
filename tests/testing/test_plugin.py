"""The pytest plugin, as somebody uses it who tests an application: runs of pytest within pytest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from emunet.fabric.recording import Recording
from emunet.lab.rerun import rerun

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
TOPOLOGY = ROOT / "topologies" / "two-hosts.yaml"


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with a topology of its own, tested with the plugin."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makefile(".yaml", two=TOPOLOGY.read_text())
    pytester.makeini("[pytest]\nemunet_topology = two.yaml\naddopts = --strict-markers\n")
    return pytester


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run its tests in another process. Installing emunet registers the plugin: it is not named here."""
    return project.runpytest_subprocess("-p", "no:cacheprovider", *arguments)


def test_a_lab_of_its_own_for_each_test(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest
        from scapy.layers.inet import ICMP, IP

        @pytest.mark.emunet(topology="two.yaml", seed=7)
        def test_reaches(lab):
            assert lab.seed == 7
            lab.assert_reaches("web-1", "web-3")
            lab.assert_no_drops()
            trace = lab.trace("web-1", IP(dst=lab.pod("web-3").ip) / ICMP())
            assert trace.reaches("web-3").by("host1", "switch1", "host2")
            assert trace.passes("VXLAN_ENCAPSULATED")
            assert not trace.dropped_by()

        def test_drops(lab):
            assert lab.clock.now == 0
            trace = lab.trace("web-1", IP(dst="10.9.9.9") / ICMP())
            assert trace.dropped_by("NO_ROUTE")
            assert trace.dropped_by("NO_ROUTE", device="host1", element="router", destination="10.9.9.9")
            assert not trace.dropped_by("NO_ROUTE", destination="10.9.9.8")
            assert not trace.reaches("web-3")
            lab.link("host1--switch1", loss="100%")
            lab.assert_cannot_reach("web-1", "web-3")
            lab.assert_no_drops(except_for=("WIRE_LOST", "NEIGHBOR_UNREACHABLE"))

        ONE = '''
        apiVersion: emunet/v1
        kind: Topology
        metadata: {name: one}
        spec: {hosts: [host1]}
        ---
        apiVersion: v1
        kind: Pod
        metadata: {name: alone}
        spec: {nodeName: host1, containers: [{name: c, image: x}]}
        '''

        @pytest.mark.emunet(ONE, flow_cache=False, record=False)
        class TestInline:
            def test_text(self, lab):
                assert [pod.port for pod in lab.pods] == ["alone"]

            @pytest.mark.emunet(seed=3)
            def test_a_nearer_marker_adds(self, lab):
                assert lab.seed == 3 and len(lab.pods) == 1
        """
    )
    run(project).assert_outcomes(passed=4)
    assert not (project.path / "emunet-captures").exists()


@pytest.mark.slow
def test_a_failure_shows_the_trace_and_keeps_a_named_capture(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_shop="""
        import pytest
        from scapy.layers.inet import ICMP, IP

        @pytest.mark.parametrize("size", [5, "a b/c"])
        def test_delivers(lab, size):
            lab.ping("web-1", "web-2")
            assert lab.trace("web-1", IP(dst="10.9.9.9") / ICMP()).reaches("web-3")

        def test_reaches(lab):
            lab.ping("web-1", "web-3")
            lab.partition(["host1"])
            lab.assert_reaches("web-1", "web-3")

        def test_is_clean(lab):
            lab.pod("web-1").sr1(IP(dst="10.9.9.9") / ICMP())
            lab.assert_no_drops()
        """
    )
    result = run(project)
    result.assert_outcomes(failed=4)
    told = result.stdout.str()
    assert "assert <does not reach web-3: dropped: host1 has no route to 10.9.9.9" in told
    assert "emunet: trace from web-1" in told
    assert "web-1 does not reach web-3: " in told
    assert "it comes from the other side of a partition" in told
    assert "1 frame was dropped:\nE         NO_ROUTE, 1 of them: <device> has no route to <destination>" in told
    assert "dropped because" in told
    folder = project.path / "emunet-captures"
    names = {path.name for path in folder.iterdir()}
    assert {"test_shop.test_reaches.pcapng", "test_shop.test_reaches.recording.pcapng"} <= names
    assert "test_shop.test_delivers[5].pcapng" in names
    assert "test_shop.test_delivers[a-b.c].pcapng" in names
    again = rerun(folder / "test_shop.test_is_clean.recording.pcapng")
    assert again.same
    assert again.plane.world.ledger.reasons == {"NO_ROUTE": 1}
    assert b"NO_ROUTE" in (folder / "test_shop.test_is_clean.pcapng").read_bytes()
    assert "kept emunet-captures/test_shop.test_reaches.pcapng" in told


@pytest.mark.slow
def test_a_frame_that_goes_missing_is_an_error_of_the_test(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        def test_counts(lab):
            lab.ping("web-1", "web-3")
            lab.plane.world.figures.delivered -= 1
        """
    )
    result = run(project)
    result.assert_outcomes(passed=1, errors=1)
    assert "the law of conservation is broken" in result.stdout.str()
    assert "missing: {'world': 1}" in result.stdout.str()


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ("topology='none.yaml'", "there is no topology none.yaml beside test_wrong.py or in "),
        ("wires='string'", "wires are 'memory' or 'tap', not 'string'"),
        ("topolgy='two.yaml'", "@pytest.mark.emunet has no topolgy; it has: topology, wires, seed, flow_cache, record"),
    ],
)
def test_markers_that_make_no_sense(project: pytest.Pytester, marker: str, said: str) -> None:
    source = f"import pytest\n@pytest.mark.emunet({marker})\ndef test_it(lab): pass\n"
    project.makepyfile(test_wrong=source)
    result = run(project)
    result.assert_outcomes(errors=1)
    assert said in result.stdout.str()


def test_without_any_topology_it_says_where_to_name_one(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\n")
    project.makepyfile(test_none="def test_it(lab): pass")
    assert "asks for a lab and says not of what" in run(project).stdout.str()


@pytest.mark.slow
def test_side_by_side(project: pytest.Pytester) -> None:
    """Under xdist: each worker its own labs, and every failure its own files."""
    pytest.importorskip("xdist")
    project.makepyfile(
        test_many="""
        import pytest

        @pytest.mark.parametrize("number", range(8))
        def test_one(lab, number):
            lab.assert_reaches("web-1", "web-3")
            assert number % 4, "every fourth fails"
        """
    )
    result = run(project, "-n", "2")
    result.assert_outcomes(passed=6, failed=2)
    names = {path.name for path in (project.path / "emunet-captures").iterdir()}
    assert names == {
        f"test_many.test_one[{number}]{ending}" for number in (0, 4) for ending in (".pcapng", ".recording.pcapng")
    }


def test_a_project_that_uses_no_lab_pays_nothing() -> None:
    """The plugin loads nothing of emunet but itself."""
    code = (
        "import sys, emunet.testing.plugin;"
        "print(sorted(m for m in sys.modules if m.startswith('emunet.') and m != 'emunet.testing.plugin'"
        " or m in ('pydantic', 'yaml', 'scapy')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['emunet.testing']"


@pytest.mark.kernel
@pytest.mark.slow
def test_a_lab_of_real_kernels(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_real="""
        import pytest
        from scapy.layers.inet import ICMP, IP

        @pytest.mark.emunet(topology="two.yaml", wires="tap")
        def test_programs(lab):
            server = lab.start("web-3", "python3", "-m", "http.server", "80")
            lab.link("host1--switch1", delay="20ms", loss="0%")
            lab.assert_reaches("web-1", "web-3")
            assert lab.ping("web-1", "web-3").rtt > 0.02
            assert "ttl=62" in lab.exec("web-1", "ping", "-c", "1", "web-3").stdout
            done = lab.exec("web-1", "curl", "-s", "--retry", "20", "--retry-connrefused", "--retry-delay", "1",
                            "-o", "/dev/null", "-w", "%{http_code}", "http://web-3/")
            assert done.stdout == "200"
            assert lab.trace("web-1", IP(src="10.244.1.2", dst="10.9.9.9") / ICMP()).dropped_by("NO_ROUTE")
            assert lab.trace("web-1", IP(src="10.244.1.2", dst="10.244.2.2") / ICMP()).reaches("web-3")
            lab.power("host2", on=False)
            lab.assert_cannot_reach("web-1", "web-3")
            lab.power("host2", on=True)
            lab.freeze("web-3")
            lab.thaw("web-3")
            assert lab.pods == ["web-1", "web-2", "web-3", "web-4"]

        @pytest.mark.emunet(topology="two.yaml", wires="tap")
        def test_fails(lab):
            lab.partition(["host1"])
            lab.assert_reaches("web-1", "web-3")
        """
    )
    result = run(project)
    result.assert_outcomes(passed=1, failed=1)
    told = result.stdout.str()
    assert "web-1 does not reach web-3" in told
    kept = project.path / "emunet-captures" / "test_real.test_fails.recording.pcapng"
    assert Recording.load(kept).delivered is not None
    assert rerun(kept).same
