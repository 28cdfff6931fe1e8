"""An outside for a lab's `--internet`: a network namespace with servers, a default route, and a resolv.conf of its own.

Run as a program in namespaces that a test has made; it says `ready`, and on each connection what the client is.
Nothing of it reaches beyond that namespace.
"""

from __future__ import annotations

import socket
import subprocess
import threading

SERVER, NAMES, ASIDE, PORT = "203.0.113.1", "203.0.113.53", "169.254.169.254", 8123
SERVER6, ASIDE6 = "2001:db8:7::1", "fd00:ec2::254"


def greet(address: str) -> None:
    """Tell whoever connects where it has come."""
    server = socket.create_server((address, PORT), family=socket.AF_INET6 if ":" in address else socket.AF_INET)

    def serve() -> None:
        while True:
            one, client = server.accept()
            with one:
                one.sendall(f"{address} to {client[0]}".encode())

    threading.Thread(target=serve, daemon=True).start()


def answer(data: bytes) -> bytes:
    """Whatever name is asked for, it is at SERVER and SERVER6."""
    question = data[12 : data.index(b"\0", 12) + 5]
    counts = b"\x00\x01\x00\x01\x00\x00\x00\x00"
    ipv6 = question.endswith(b"\0\x1c\0\1")
    address = socket.inet_pton(socket.AF_INET6, SERVER6) if ipv6 else socket.inet_aton(SERVER)
    answered = b"\xc0\x0c" + question[-4:] + b"\0\0\0\x3c" + len(address).to_bytes(2, "big") + address
    return data[:2] + b"\x85\x80" + counts + question + answered


def main() -> None:
    """Be the outside until somebody ends it."""
    for line in (
        "link set lo up", "tuntap add out0 mode tap", "link set out0 up", f"address add {SERVER}/24 dev out0",
        f"address add {NAMES}/32 dev out0", f"address add {ASIDE}/32 dev out0", "route add default via 203.0.113.254",
        f"address add {SERVER6}/64 dev out0 nodad", f"address add {ASIDE6}/128 dev out0 nodad",
        "address add fe80::1/64 dev out0 nodad", "route add default via 2001:db8:7::fe dev out0",
    ):  # fmt: skip
        subprocess.run(["ip", *line.split()], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", "/mnt"], check=True)
    with open("/mnt/resolv.conf", "w") as file:
        file.write(f"nameserver 127.0.0.53\nnameserver {NAMES}\n")
    subprocess.run(["mount", "--bind", "/mnt/resolv.conf", "/etc/resolv.conf"], check=True)
    for address in (SERVER, SERVER6, "127.0.0.1", "::1", ASIDE, ASIDE6):
        greet(address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as names:
        names.bind((NAMES, 53))
        print("ready", flush=True)
        while True:
            data, client = names.recvfrom(4096)
            names.sendto(answer(data), client)


if __name__ == "__main__":
    main()
