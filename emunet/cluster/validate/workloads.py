"""What objects may say that keep pods: how many, of which template, how they are renewed and disturbed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from emunet.cluster.defaults import template_of
from emunet.cluster.selectors import of_map, of_object
from emunet.cluster.status import Cause
from emunet.cluster.store import Object
from emunet.cluster.validate.causes import may_not, required, wrong
from emunet.cluster.validate.parts import PERCENT, label_selector, labels, not_negative, one_of
from emunet.cluster.validate.pods import pod_spec


def with_template(kind: str) -> Callable[[Object], Iterator[Cause]]:
    """The checks of a kind that makes pods of a template."""
    restart = ("OnFailure", "Never") if kind in ("Job", "CronJob") else ("Always",)

    def checks(item: Object) -> Iterator[Cause]:
        spec = item.get("spec", {})
        yield from not_negative("spec.replicas", spec.get("replicas"))
        field = "spec.jobTemplate.spec.template" if kind == "CronJob" else "spec.template"
        template = template_of(kind, item)
        if template is None:
            yield required(field)
            return
        found = template.get("metadata", {}).get("labels", {})
        yield from labels(f"{field}.metadata.labels", found)
        claims = [one.get("metadata", {}).get("name", "") for one in spec.get("volumeClaimTemplates", ())]
        yield from pod_spec(template.get("spec", {}), f"{field}.spec", restart=restart, claims=claims)
        if kind in ("Job", "CronJob"):
            return
        selector = spec.get("selector")
        empty = not selector or not (selector.get("matchLabels") or selector.get("matchExpressions"))
        if kind == "ReplicationController":
            if not selector:
                yield required("spec.selector")
            elif not of_map(selector).matches(found):
                yield wrong("spec.template.metadata.labels", found, "`selector` does not match template `labels`")
        elif selector is None:
            yield required("spec.selector")
            yield wrong("spec.template.metadata.labels", found, "`selector` does not match template `labels`")
        elif empty:
            yield wrong("spec.selector", "{}", f"empty selector is invalid for {kind[0].lower()}{kind[1:]}")
        else:
            yield from label_selector("spec.selector", selector)
            if not of_object(selector).matches(found):
                yield wrong("spec.template.metadata.labels", found, "`selector` does not match template `labels`")
        if kind == "Deployment":
            yield from _rolling(spec.get("strategy", {}), "spec.strategy", ("RollingUpdate", "Recreate"))
        if kind in ("StatefulSet", "DaemonSet"):
            yield from one_of(
                "spec.updateStrategy.type", spec.get("updateStrategy", {}).get("type"), ("RollingUpdate", "OnDelete")
            )

    return checks


def _rolling(strategy: Object, field: str, known: Sequence[str]) -> Iterator[Cause]:
    yield from one_of(f"{field}.type", strategy.get("type"), known)
    rolling = strategy.get("rollingUpdate")
    if strategy.get("type") == "Recreate" and rolling is not None:
        yield may_not(f"{field}.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'")
    for name in ("maxSurge", "maxUnavailable") if rolling else ():
        value = rolling.get(name)  # type: ignore[union-attr]
        if isinstance(value, str) and not re.fullmatch(r"[0-9]+%", value):
            yield wrong(f"{field}.rollingUpdate.{name}", value, PERCENT)
        yield from not_negative(f"{field}.rollingUpdate.{name}", value)
    if rolling and all(rolling.get(name) in (0, "0%") for name in ("maxSurge", "maxUnavailable")):
        yield wrong(f"{field}.rollingUpdate.maxUnavailable", 0, "may not be 0 when `maxSurge` is 0")


def disruption_budget(item: Object) -> Iterator[Cause]:
    """A PodDisruptionBudget: one of its two bounds, as a number or a percentage."""
    spec = item.get("spec", {})
    given = [name for name in ("minAvailable", "maxUnavailable") if name in spec]
    if len(given) == 2:
        yield wrong("spec", spec, "minAvailable and maxUnavailable cannot be both set")
    for name in given:
        value = spec[name]
        if isinstance(value, str) and not re.fullmatch(r"[0-9]+%", value):
            yield wrong(f"spec.{name}", value, PERCENT)
        yield from not_negative(f"spec.{name}", value)
