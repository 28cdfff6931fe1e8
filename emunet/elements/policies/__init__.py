"""NetworkPolicy, as a host enforces it for the pods that are on it.

Read `rules` (what a host is told, as values), then `permits` (one pod's rules by port and
peer), `table` (all pods of a host, changed row by row), `judgement` (why, in words) and
`element`.
"""

from emunet.elements.policies.element import Policy
from emunet.elements.policies.rules import (
    EVERYWHERE,
    Block,
    Direction,
    Group,
    Permit,
    PodPolicies,
    PoliciesConfig,
    PolicyRules,
    PortRange,
)
from emunet.elements.policies.table import PolicyTable

__all__ = [
    "EVERYWHERE",
    "Block",
    "Direction",
    "Group",
    "Permit",
    "PodPolicies",
    "PoliciesConfig",
    "Policy",
    "PolicyRules",
    "PolicyTable",
    "PortRange",
]
