"""The Docker Engine API of the hosts of a lab, one Unix socket each.

Read `service` (the sockets), `server` (which request leads where, how errors are told), `engine` (containers
and networks of one host), `process` (their programs), `streams` (attach, exec, logs).
"""
