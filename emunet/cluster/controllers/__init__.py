"""What keeps the cluster as it is wanted: one small reconciler a file.

A controller is told which object to look at and what time it is. It compares what is wanted with
what is there and gives back what to do about it, and when to look again. It changes nothing, waits
for nothing and remembers nothing: `runner` acts, calls it again when something that it watches has
changed, and keeps the due times.

Rule of this package: `step` is a function of the objects and of `now`.
"""
