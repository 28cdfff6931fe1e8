"""`docker` of a topology's host: what it puts into an engine, and what is said of what cannot be."""

from __future__ import annotations

import pytest

from emunet.cluster.load import BadInput, load_text
from emunet.cluster.manifests import read_manifests
from emunet.lab.lab import Lab

TEXT = """apiVersion: emunet/v1
kind: Topology
metadata: {name: lab}
spec:
  hosts:
    - name: host1
      docker:
        networks:
          - blue
          - {name: six, subnet: 10.9.0.0/24, gateway: 10.9.0.9, ipv6: true}
        containers:
          - {name: web, ports: ["8080:80"]}
          - {name: api, network: blue, networks: [six], aliases: [data]}
          - {name: side, network: "container:api"}
"""


def test_what_a_topology_puts_into_an_engine() -> None:
    with Lab(TEXT) as lab:
        docker = lab.docker("host1")
        assert [one.name for one in docker.networks] == ["blue", "bridge", "host", "none", "six"]
        api = docker.containers.find("api")
        assert [str(one.addresses[0]) for one in api.attachments.values()] == ["172.18.0.2/16", "10.9.0.1/24"]
        assert docker.containers.find("side").shares == api.id
        assert lab.pod("host1/web").get("http://172.17.0.1/").error


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('["8080:80"]', '["8080:80", "8080:81"]', "lab.yaml:12:13: spec.hosts[0].docker.containers[0]: "),
        ('["8080:80"]', "[http]", "lab.yaml:12:13: spec.hosts[0].docker.containers[0]: expected a port to publish"),
        ("network: blue", "network: red", "lab.yaml:13:13: spec.hosts[0].docker.containers[1]: network red not found"),
        ("name: api", "name: web", "lab.yaml:13:13: spec.hosts[0].docker.containers[1]: Conflict"),
        ("10.9.0.0/24", "10.244.0.0/24", "lab.yaml:10:13: spec.hosts[0].docker.networks[1]: Pool overlaps"),
        ("gateway: 10.9.0.9", "gateway: 10.8.0.9", "lab.yaml:10:13: spec.hosts[0].docker.networks[1]: invalid network"),
        ('"container:api"', '"container:no"', "lab.yaml:14:13: spec.hosts[0].docker.containers[2]: joining network"),
    ],
)
def test_what_cannot_be_is_said_at_its_place(old: str, new: str, said: str) -> None:
    with pytest.raises(BadInput) as error:
        read_manifests(load_text(TEXT.replace(old, new, 1), "lab.yaml"))
    assert said in str(error.value)
