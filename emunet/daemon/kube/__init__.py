"""The Kubernetes API of a running lab, for kubectl and its kind: HTTPS on a loopback port.

Read in this order: `server` (who may ask, and where a path leads), `resources` (what is asked of
objects), `discovery` (what is served), `tables` (what `kubectl get` prints), `watching`; then what
needs the pods themselves: `streams` (logs, exec, attach, port-forward), `spdy` and `channels` (how
their bytes travel).

Rule of this package: it translates. What a request means is decided in `cluster.requests`, what
becomes of a pod in the controllers.
"""
