"""Connection tracking and address translation by netfilter's terms.

Read `flow`, then `connection` (what is remembered), `states` (how it changes), `table`,
`rules` (what is translated, and how others choose), `services`, `ports`, `translation` (the edits),
and `element`. The source is chosen behind routing, in `elements.translate`.
"""

from emunet.elements.connections.connection import Connection, Standing, TcpState, Timeouts, Tracked
from emunet.elements.connections.element import Connections
from emunet.elements.connections.flow import Flow
from emunet.elements.connections.rules import (
    Choice,
    Chooser,
    ConnectionsConfig,
    Masquerade,
    Publish,
    Published,
    Refusal,
)
from emunet.elements.connections.services import Backend, ServiceChange, ServiceKey, ServicePort, Services
from emunet.elements.connections.table import ConnectionTable

__all__ = [
    "Backend",
    "Choice",
    "Chooser",
    "Connection",
    "ConnectionTable",
    "Connections",
    "ConnectionsConfig",
    "Flow",
    "Masquerade",
    "Publish",
    "Published",
    "Refusal",
    "ServiceChange",
    "ServiceKey",
    "ServicePort",
    "Services",
    "Standing",
    "TcpState",
    "Timeouts",
    "Tracked",
]
