"""What the keeper and its lab say to each other: JSON and descriptors over a Unix socket.

The socket is a SOCK_SEQPACKET pair: a message arrives whole or not at all, and several
processes (the keeper and the sandboxes it is making) may send on one end. A message too
long for one packet travels in a memfd. Each arrives with its sender's process id as
the receiver sees it (SCM_CREDENTIALS), which is how a process inside the lab's PID
namespaces learns to be known outside.

Rule of this file: a message is sent whole or an error is raised, and no descriptor is
lost: what was received belongs to the caller.
"""

from __future__ import annotations

import array
import errno
import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

_INLINE_MAX = 60_000
"""Bytes of JSON in one packet; the default send buffer (212,992) takes three of them."""

DESCRIPTORS_MAX = 250
"""The kernel takes 253 a message (SCM_MAX_FD); one may be the memfd."""

_CREDENTIALS = struct.Struct("iII")
_ANCILLARY_MAX = socket.CMSG_SPACE((DESCRIPTORS_MAX + 3) * 4) + socket.CMSG_SPACE(_CREDENTIALS.size)


class Message(NamedTuple):
    """One message as received: its body, its descriptors, and who sent it (0 where the socket does not ask)."""

    body: dict[str, Any]
    descriptors: list[int]
    sender: int


def send(channel: socket.socket, body: dict[str, Any], descriptors: Sequence[int] = (), flags: int = 0) -> None:
    """Send one message, and copies of `descriptors` with it. BlockingIOError where `flags` forbid to wait."""
    if len(descriptors) > DESCRIPTORS_MAX:
        raise ValueError(f"{len(descriptors)} descriptors in one message: {DESCRIPTORS_MAX} at most")
    data = json.dumps(body, separators=(",", ":")).encode()
    if len(data) <= _INLINE_MAX:
        _send(channel, b"J" + data, descriptors, flags)
        return
    memory = os.memfd_create("emunet-message", os.MFD_CLOEXEC)
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(data)
        _send(channel, b"M", [memory, *descriptors], flags)
    finally:
        os.close(memory)


def _send(channel: socket.socket, data: bytes, descriptors: Sequence[int], flags: int) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    channel.sendmsg([data], rights, flags | socket.MSG_NOSIGNAL)


def receive(channel: socket.socket, flags: int = 0) -> Message | None:
    """The next message, or None when the other side has closed. BlockingIOError where `flags` forbid to wait.

    OSError (EMFILE) where this process may not hold the descriptors that came; those that did come are closed.
    """
    try:
        data, ancillary, received, _ = channel.recvmsg(_INLINE_MAX + 1, _ANCILLARY_MAX, flags | socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:  # closed with something unread
        return None
    descriptors: list[int] = []
    sender = 0
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
            descriptors.extend(numbers)
        elif level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            sender = _CREDENTIALS.unpack(content[: _CREDENTIALS.size])[0]
    if received & socket.MSG_CTRUNC:
        for descriptor in descriptors:
            os.close(descriptor)
        raise OSError(errno.EMFILE, "a message came with more descriptors than this process may hold (ulimit -n)")
    if not data:
        return None
    if data[:1] == b"M":
        with open(descriptors.pop(0), "rb") as file:
            file.seek(0)  # the sender's position came with it
            data = b"J" + file.read()
    return Message(json.loads(data[1:]), descriptors, sender)
