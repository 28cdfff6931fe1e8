"""A pod's own network stack for wires that lead to no kernel. Start with `stack.py`; the public names are here."""

from emunet.elements.endpoint.echo import Ping
from emunet.elements.endpoint.network import Failure
from emunet.elements.endpoint.stack import Endpoint
from emunet.elements.endpoint.tcp import Connection, Listener, State
from emunet.elements.endpoint.udp import Datagram, UdpSocket

__all__ = ["Connection", "Datagram", "Endpoint", "Failure", "Listener", "Ping", "State", "UdpSocket"]
