"""The Scapy shell: Scapy's own prompt on a running lab, a program of its own (`python -m emunet.shell`).

`ports` knows the lab's ports; `provider` makes each an interface of Scapy; `names` and `routing`
let Scapy think as the pod that sends; `lab` is what stands at the prompt as `lab`.
`expression` is a second program: a packet as text -> its bytes, for `emunet trace`.

Rule of this package: the only one (with `testing`) that loads Scapy, which is GPL-2.0-only and
slow to start; nothing else of emunet imports it.
"""
