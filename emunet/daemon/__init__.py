"""The processes of a running lab, and how clients find and ask it.

Read in this order: `folder` (where a lab's sockets are, and who holds them), `settings`
and `start` (how `emunet up` begins a lab), `control` (the process that `start` begins),
`caretaker` (what the objects want, and who sees to it), `building` (from a state to running
sandboxes), `running` (what a lab can be asked), `api` (the same over HTTP), `client` (the other
end of it); then `kube` (the Kubernetes API). `plane_process` is the process that moves
frames, `plane_client` and `keeper_link` are control's ends of the sockets to the other two.

    emunet up --lifeline--> control --control socket--> keeper --> every pod
                              +-----socketpair------> plane (World, TAPs, frames.sock)
                           api.sock

Rule of this package: kill any of the three and the kernel ends the other two and all pods,
because each lives only as long as its socket is open.
"""
