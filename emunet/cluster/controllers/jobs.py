"""Jobs: pods that run until enough of them have succeeded, or too many have failed.

Rule of this file: finished pods are kept, so that their logs can be read; they end with the Job.
"""

from __future__ import annotations

from collections.abc import Mapping

from emunet.cluster import selectors
from emunet.cluster.controllers.actions import (
    NOTHING,
    Action,
    Create,
    Delete,
    Note,
    Outcome,
    Watch,
    Write,
    earliest,
    itself,
)
from emunet.cluster.controllers.pods import (
    claim,
    from_template,
    is_active,
    is_ready,
    is_terminating,
    owners_of,
    phase,
    pod_key,
    with_condition,
)
from emunet.cluster.moments import SECOND, from_text
from emunet.cluster.store import Key, Object, View, with_status

NAME = "job-controller"


def _selector(owner: Object) -> selectors.LabelSelector:
    return selectors.of_object(owner["spec"].get("selector"))


class Jobs:
    """Runs Jobs to their end."""

    name = NAME

    def __init__(self) -> None:
        self.watches: Mapping[str, Watch] = {"jobs.batch": itself, "pods": owners_of("jobs.batch", "Job", _selector)}

    def step(self, view: View, key: Key, now: int) -> Outcome:
        """Start the pods that are missing, and say when it is done."""
        job = view.at(key)
        if job is None or is_terminating(job):
            return NOTHING
        spec, status = job["spec"], job.get("status", {})
        finished = next((one for one in status.get("conditions", ()) if one["type"] in ("Complete", "Failed")), None)
        if finished is not None:
            return _after(view, key, job, finished, now)
        pods, writes = claim(view, job, _selector(job), "pods")
        actions: list[Action] = [Write(item) for item in writes]
        active = [pod for pod in pods if is_active(pod)]
        succeeded = sum(phase(pod) == "Succeeded" for pod in pods)
        failed = sum(phase(pod) == "Failed" for pod in pods)
        wanted = spec.get("completions")
        moment = view.moment(now)
        started = status.get("startTime") or (None if spec.get("suspend") else moment)
        conditions = status.get("conditions", [])
        deadline = None
        if started and spec.get("activeDeadlineSeconds"):
            deadline = from_text(started, view.epoch) + spec["activeDeadlineSeconds"] * SECOND
        completed = None
        failure = ""
        if failed > spec.get("backoffLimit", 6):
            failure, told = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        elif deadline is not None and now >= deadline:
            failure, told = "DeadlineExceeded", "Job was active longer than specified deadline"
        if failure:
            conditions = with_condition(conditions, "Failed", "True", moment, reason=failure, message=told,
                                        lastProbeTime=moment)  # fmt: skip
            actions += [Delete(pod_key(pod), owner=job) for pod in active]
            actions.append(Note(job, failure, told, NAME, "Warning"))
        elif (succeeded >= wanted) if wanted is not None else (succeeded > 0 and not active):
            conditions = with_condition(conditions, "Complete", "True", moment, lastProbeTime=moment)
            completed = moment
            actions += [Delete(pod_key(pod), owner=job) for pod in active]
            actions.append(Note(job, "Completed", "Job completed", NAME))
        elif spec.get("suspend"):
            actions += [Delete(pod_key(pod), owner=job) for pod in active]
        else:
            number = spec.get("parallelism", 1)
            if wanted is not None:
                number = min(number, wanted - succeeded)
            elif succeeded:
                number = len(active)
            actions += [Create(from_template(job, spec["template"]), job) for _ in range(number - len(active))]
            actions += [Delete(pod_key(pod), owner=job) for pod in active[max(number, 0) :]]
        changed = with_status(
            job,
            active=len(active) or None,
            ready=sum(map(is_ready, active)),
            succeeded=succeeded or None,
            failed=failed or None,
            startTime=started,
            completionTime=completed,
            conditions=conditions or None,
        )
        if changed["status"] != status:
            actions.append(Write(changed))
        return Outcome(tuple(actions), earliest(deadline if deadline is not None and deadline > now else None))


def _after(view: View, key: Key, job: Object, finished: Object, now: int) -> Outcome:
    """A Job that is over goes after its time, if it has one."""
    life = job["spec"].get("ttlSecondsAfterFinished")
    if life is None:
        return NOTHING
    end = from_text(finished["lastTransitionTime"], view.epoch) + life * SECOND
    if now < end:
        return Outcome((), end)
    return Outcome((Delete(key),))
