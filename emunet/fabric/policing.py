"""Policing: policies that change while everything else goes on.

Another configuration clears the flow cache and looks at every device. A change of policies
does neither: rows go into the tables of the hosts that they are for, each tells what was fused
from it, and what the World's configuration is by then is worked out when somebody asks.

Rule of this file: it changes policy tables and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import replace
from itertools import islice

from emunet.elements.policies import Policy, PolicyTable
from emunet.elements.policies.rules import Row, difference
from emunet.fabric.config import HostConfig, SwitchConfig, WorldConfig, without_policies
from emunet.plane.device import Device

ROWS_AT_ONCE = 50
"""Rows that are carried out between two frames: about a third of a millisecond."""

Configs = MutableMapping[str, HostConfig | SwitchConfig]


def steps(old: WorldConfig, new: WorldConfig) -> Iterator[tuple[str, list[Row]]] | None:
    """What leads from one configuration to another, a host and a few rows at a time; None if not policies alone do."""
    if not old.hosts or without_policies(old) != without_policies(new):
        return None
    return _steps(old, new)


def _steps(old: WorldConfig, new: WorldConfig) -> Iterator[tuple[str, list[Row]]]:
    for before, after in zip(old.hosts, new.hosts, strict=True):
        if before.policies is not after.policies:
            rows = difference(before.policies, after.policies)
            while part := list(islice(rows, ROWS_AT_ONCE)):
                yield after.name, part


class Policing:
    """The policy tables of a World's hosts."""

    def __init__(self, devices: Mapping[str, Device], configs: Configs) -> None:
        self._devices = devices
        self._configs = configs
        self._moved: dict[str, None] = {}

    def table(self, host: str) -> PolicyTable:
        """A host's."""
        policy = self._devices[host].elements["policy"]
        assert isinstance(policy, Policy)
        return policy.table

    def change(self, host: str, rows: Iterable[Row]) -> None:
        """Change what a host knows of policies, in effect for the next frame."""
        self._moved[host] = None
        self.table(host).change(rows)

    def become(self, old: WorldConfig, new: WorldConfig) -> bool:
        """Carry out a new configuration that differs in policies only; False, and nothing done, for any other.

        Services are the business of `serving`.
        """
        if not self._configs or without_policies(old) != without_policies(new):
            return False
        for host in new.hosts:
            table = self.table(host.name)
            if table.config != host.policies:
                self.change(host.name, difference(table.config, host.policies))
        return True

    def settled(self, config: WorldConfig) -> WorldConfig:
        """The configuration with all that was changed since, in `configs` too."""
        if not self._moved:
            return config
        for name in self._moved:
            host = self._configs[name]
            assert isinstance(host, HostConfig)
            self._configs[name] = replace(host, policies=self.table(name).config)
        self._moved.clear()
        hosts = [self._configs[host.name] for host in config.hosts]
        return replace(config, hosts=tuple(host for host in hosts if isinstance(host, HostConfig)))
