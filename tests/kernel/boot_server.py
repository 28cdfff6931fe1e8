"""What a virtual machine boots from: a server of DHCP and HTTP, run on a lab's host with its address and the guest's.

iPXE, QEMU's network card's own program, gets its address and a script by it, and waits; each step is a line.
"""

from __future__ import annotations

import http.server
import socket
import sys
import threading

OFFER = {b"\1": b"\2", b"\3": b"\5"}
"""The kind of an answer by that of the question: DISCOVER - OFFER, REQUEST - ACK (RFC 2132 9.6)."""


def lease(own: bytes, guest: bytes) -> None:
    """Give everybody the same address (RFC 2131)."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    server.bind(("", 67))
    file = f"http://{socket.inet_ntoa(own)}/boot".encode().ljust(128, b"\0")
    while True:
        asked = server.recv(2000)
        kind = OFFER[asked.split(b"\x35\1", 1)[1][:1]]
        answer = b"\2\1\6\0" + asked[4:8] + b"\0\0\x80\0" + bytes(4) + guest + own + bytes(4) + asked[28:44] + bytes(64)
        options = b"\x63\x82\x53\x63\x35\1" + kind + b"\x36\4" + own + b"\x33\4\0\0\x0e\x10\1\4\xff\xff\xff\0\xff"
        print("lease" if kind == b"\5" else "offer", flush=True)
        server.sendto(answer + file + options, ("255.255.255.255", 68))


class Script(http.server.BaseHTTPRequestHandler):
    """What there is to boot: a script that does nothing."""

    def do_GET(self) -> None:
        """Hand it over."""
        body = b"#!ipxe\nsleep 600\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        print(f"{self.path} to {self.client_address[0]}, {self.headers['User-Agent']}", flush=True)

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep quiet: the line above is all."""


if __name__ == "__main__":
    addresses = [socket.inet_aton(one) for one in sys.argv[1:]]
    with http.server.HTTPServer(("", 80), Script) as pages:
        threading.Thread(target=lease, args=addresses, daemon=True).start()
        print("ready", flush=True)
        pages.serve_forever()
