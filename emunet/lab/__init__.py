"""A whole lab in one process, if need be: World, cluster state, and what carries out a plan.

`plane` is what a running data plane can be asked, whoever asks (it loads nothing of
the cluster); `lab` is the Python API of a lab on memory wires; `executor` makes a
plan happen.
"""
