"""The labs that are measured. All are small; what matters is how far apart pods `a` and `b` are.

Rule of this file: the defaults of `emunet up`, but `host-gw` where no overlay is wanted (and
with it the full MTU of 1500).
"""

from __future__ import annotations

_PODS = """---
apiVersion: v1
kind: Pod
metadata: {name: a}
spec: {nodeName: host1, containers: [{name: main, image: busybox}]}
---
apiVersion: v1
kind: Pod
metadata: {name: b}
spec: {nodeName: %s, containers: [{name: main, image: busybox}]}
"""
_HEAD = "apiVersion: emunet/v1\nkind: Topology\nmetadata: {name: bench}\n"

ONE_HOST = _HEAD + "spec: {overlay: host-gw, hosts: [host1]}\n" + _PODS % "host1"
TWO_HOSTS_ROUTED = _HEAD + "spec: {overlay: host-gw, hosts: [host1, host2]}\n" + _PODS % "host2"
TWO_HOSTS_VXLAN = _HEAD + "spec: {overlay: vxlan, hosts: [host1, host2]}\n" + _PODS % "host2"
SERVICE_ADDRESS = "10.96.0.10"
TWO_HOSTS_SERVICE = (
    _HEAD
    + "spec: {overlay: host-gw, hosts: [host1, host2], dns: false}\n"
    + (_PODS % "host2").replace("{name: b}", "{name: b, labels: {app: b}}")
    + f"""---
apiVersion: v1
kind: Service
metadata: {{name: b}}
spec: {{clusterIP: {SERVICE_ADDRESS}, selector: {{app: b}}, ports: [{{port: 7002}}]}}
"""
)
LEAF_SPINE = (
    _HEAD
    + """spec:
  overlay: host-gw
  hosts: [host1, host2]
  switches: [leaf1, leaf2, spine1]
  links: [host1 -- leaf1, host2 -- leaf2, leaf1 -- spine1, leaf2 -- spine1]
"""
    + _PODS % "host2"
)
