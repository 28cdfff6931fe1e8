"""All that needs Linux: namespaces, TAPs, the keeper of a lab, and joining a sandbox.

Read in this order: `syscalls`, `netlink`, `tap` (what the kernel offers), `specification`
(what is wanted), `sandbox`, `silence`, `roots` (how one pod is built), `program` and
`probe` (what runs there), `keeper` (PID 1 of a lab) and `keeper_client` (how a lab speaks
with it), then `join` (`emunet exec`) and `doctor`.

Rule of this package: what the keeper loads (`keeper` and all that it imports) is the
standard library and these files only, because every pod begins as a fork of it.
"""
