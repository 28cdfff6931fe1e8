"""What is wanted: topologies and manifests -> objects -> addresses -> a World's configuration -> a plan.

Read in this order: `load` (YAML with places), `schema` (models and their sentences),
`topology` and `objects` (the kinds), `desired` (the cluster as a value), `build` (from the one to the other), `assign`
(addresses), `compile` (what the World needs), `plan` (what must change). Then the objects:
`kinds`, `fields`, `store`, `requests`, `controllers`, and `control_plane`, which joins them.

Rule of this package: it never sees a frame, a clock or a file descriptor. Every
function is a function of its arguments, and whatever is wrong with the input is said
all at once, with file, line and column, before anything is returned.

This file imports nothing, so that a part may be used without the weight of the rest.
"""
