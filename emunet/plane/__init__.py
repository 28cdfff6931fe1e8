"""The nouns of forwarding: reasons, steps, traces, tables, devices and their walk.

Read in this order: `reason`, `step`, `table`, `element`, `device`, `trace`, `ledger`.
Nothing here knows any one protocol's behaviour.
"""
