"""Why a pod waits or was killed, in Kubernetes' own words, and the parameter to change."""

import re
import signal
from collections.abc import Iterable
from typing import Any, NamedTuple

from components.step_table import STEPS

TRAINING = tuple(step.name for step in STEPS if step.trains)
LIVE_PHASE = "Running"
NODE_NAME = "workflows.argoproj.io/node-name"  # Argo's annotation: groups, step, driver or executor, and attempt
PASSED_OVER = re.compile(r"\. (?:no new claims|preemption:).*", re.DOTALL)  # what the scheduler adds for its authors
TAINT = re.compile(r"had untolerated taint")
SELECTOR = re.compile(r"didn't match Pod's node affinity/selector|didn't satisfy")
SHORT_OF = re.compile(r"Insufficient ([\w/-]+(?:\.[\w/-]+)*)")
# Container states that do not pass by themselves; the pod waits in Pending.
UNPULLED = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable")
REFUSED = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff")
MAIN = ("main", "node")  # the step's container in a pod of Argo, and in one of a TrainJob
AGAIN = "run it again, or with --retries 3"
CREATING = ("ContainerCreating", "PodInitializing")
QUOTA = re.compile(r"exceeded quota: \S+ requested: (?P<asked>\S+), used: .*")
OWN = ".executor("  # in the name of a node of Argo whose pod is the step's own, and not KFP's driver
NOT_MOUNTED = ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox")  # events


class Reason(NamedTuple):
    """What Kubernetes says, and the remedy."""

    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.text}; {self.remedy}"


def step_of(pod: Any) -> str:
    """Return the step that a pod of the run belongs to: its own, or the driver that starts it."""
    return step_named((pod.metadata.annotations or {}).get(NODE_NAME, pod.metadata.name))


def step_named(node: str) -> str:
    """Return the step that a node of Argo, which has this name, belongs to."""
    parts = [re.sub(r"\([^()]*\)$", "", part) for part in node.split(".")]
    if parts[-1] == "executor":
        parts.pop()
    return parts[-1].removesuffix("-driver") if parts else ""


def is_driver(pod: Any) -> bool:
    """Return whether a pod is KFP's driver of a step, and not the step's own."""
    return OWN not in (pod.metadata.annotations or {}).get(NODE_NAME, "")


def why_waiting(pod: Any, events: Iterable[Any] = (), step: str | None = None) -> Reason | None:
    """Return why a pod does not start; None if nothing is known to keep it.

    The pods of a TrainJob do not say which `step` they belong to.
    """
    if pod.status.phase != "Pending":
        return None
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False" and condition.message:
            return _unscheduled(pod, condition.message, step or step_of(pod))
    for status in _containers(pod):
        if (waiting := status.state and status.state.waiting) and waiting.reason in UNPULLED + REFUSED:
            return _not_started(status, waiting)
    for event in reversed(list(events)):
        if event.reason in NOT_MOUNTED:
            return Reason(event.message.strip(), "check the volume, Secret or network that it names")
    return None


def why_refused(message: str, is_training: bool) -> Reason | None:
    """Return why Kubernetes does not take a pod, which is tried again; None if it is no quota."""
    found = QUOTA.search(message)
    if not found:
        return None
    resources = (one.partition("=")[0].removeprefix("requests.") for one in found["asked"].split(","))
    names = {_parameter(resource.removeprefix("limits.")) for resource in resources} - {None}
    smaller = [f"give a smaller {name}=" for name in sorted(map(str, names)) if is_training]
    return Reason(found[0], " or ".join([*smaller, "wait until other pods have ended"]))


def is_creating(pod: Any) -> bool:
    """Return whether a pod has a node and no container yet: only its events say what it waits for."""
    waiting = [status.state.waiting for status in _containers(pod) if status.state and status.state.waiting]
    return pod.status.phase == "Pending" and any(one.reason in CREATING for one in waiting)


def why_killed(pod: Any, step: str | None = None) -> Reason | None:
    """Return why a failed pod did not end by itself; None if it did, and its log says why it failed.

    The pods of a TrainJob do not say which `step` they belong to.
    """
    status, step = pod.status, step or step_of(pod)
    if status.phase != "Failed":
        return None
    if status.reason == "Evicted":
        return _evicted(pod, step)
    if status.reason == "DeadlineExceeded":
        seconds = pod.spec.active_deadline_seconds or 0
        allowed = f"{seconds / 3600:g} hours" if seconds >= 3600 else f"{seconds} s"
        return Reason(f"ended after {allowed}, the most that this step may take", _time_remedy(step))
    if status.reason in ("NodeLost", "NodeShutdown", "Terminated", "Shutdown"):
        return Reason(f"its node was lost ({status.message or status.reason})", AGAIN)
    for condition in status.conditions or []:
        if condition.type == "DisruptionTarget" and condition.status == "True":
            return Reason(f"taken away by Kubernetes: {condition.message or condition.reason}", AGAIN)
    return _killed(pod, step)


def signal_reason(step: str, number: int) -> Reason:
    """Return what the signal says that ended a step's process."""
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    if number == signal.SIGKILL:
        return Reason("killed by SIGKILL, most often for want of memory", _memory_remedy(step))
    if number == signal.SIGTERM:
        return Reason("ended by SIGTERM, as when its node is drained", AGAIN)
    return Reason(f"killed by {name}", "see its log")


def _killed(pod: Any, step: str) -> Reason | None:
    main = _main(pod)
    ended = main and main.state and main.state.terminated
    if not ended:
        return None
    if ended.reason == "OOMKilled":
        limit = (_resources(pod).limits or {}).get("memory", "its node's")
        return Reason(f"killed for want of memory: its limit is {limit}", _memory_remedy(step))
    return signal_reason(step, ended.exit_code - 128) if ended.exit_code > 128 else None


def _evicted(pod: Any, step: str) -> Reason:
    message = (pod.status.message or "").strip().rstrip(".")
    if "memory" in message:
        return Reason(f"evicted: {message}", _memory_remedy(step))
    if "ephemeral" in message or "disk" in message:
        return Reason(f"evicted: {message}", "the step needs more disk: ask for nodes or a quota with more of it")
    return Reason(f"evicted: {message}", AGAIN)


def _unscheduled(pod: Any, message: str, step: str) -> Reason:
    remedies = [_shortage(pod, resource, step) for resource in dict.fromkeys(SHORT_OF.findall(message))]
    if TAINT.search(message):
        remedies.append("give tolerations= for the taints" if step in TRAINING else "free a node from taints")
    if SELECTOR.search(message):
        chosen = pod.spec.node_selector
        remedies.append(f"give another node_selector= (now {chosen})" if chosen else "label a node for it")
    text = PASSED_OVER.sub("", message).rstrip(".")
    return Reason(text, " or ".join(remedies) or "`python pipeline.py doctor` looks at the nodes")


def _shortage(pod: Any, resource: str, step: str) -> str:
    """Return what helps a pod for which no node has enough of a resource."""
    asked = (_resources(pod).requests or {}).get(resource, "?")
    parameter = _parameter(resource)
    if step not in TRAINING or not parameter:
        return f"make room on a node for {asked} of {resource}"
    return f"give a smaller {parameter}= (now {asked})"


def _parameter(resource: str) -> str | None:
    return {"cpu": "train_cpu", "memory": "train_memory"}.get(resource, "gpus" if "/" in resource else None)


def _not_started(status: Any, waiting: Any) -> Reason:
    if waiting.reason in UNPULLED:
        cause = (waiting.message or waiting.reason).rpartition(": ")[2]
        remedy = "push it with `make push`, or let the service account pull from a private registry"
        return Reason(f"image {status.image} cannot be pulled: {cause}", remedy)
    missing = re.search(r"(secret|configmap) \"([^\"]+)\" not found", waiting.message or "")
    remedy = f"create it, or name another {missing[1]}" if missing else "see the pod's events"
    return Reason(waiting.message or waiting.reason, remedy)


def _memory_remedy(step: str) -> str:
    return "give more train_memory=" if step in TRAINING else "the data need more memory than this step may take"


def _time_remedy(step: str) -> str:
    return "run it again: the training goes on from its last checkpoint" if step in TRAINING else "see its log"


def _containers(pod: Any) -> list[Any]:
    return [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]


def _main(pod: Any) -> Any:
    return next((status for status in _containers(pod) if status.name in MAIN), None)


def _resources(pod: Any) -> Any:
    return next((one.resources for one in pod.spec.containers if one.name in MAIN), pod.spec.containers[0].resources)
