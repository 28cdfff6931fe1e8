"""Docker's networks on the hosts of a lab: what there is, who has which address, what the World is to be.

Read `values` (what a World needs to know), then `networks` (one engine's networks and their addresses),
`containers` (what takes part in them, and how), `compile`.
"""
