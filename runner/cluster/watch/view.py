"""What Kubernetes tells of a run besides KFP's API: its pods, their events and logs, and Argo's Workflow.

Many users have rights on KFP's API and none on these: what cannot be seen without them is said once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import kubernetes
import urllib3

from components.shared.core.errors import UserError
from components.shared.core.workflow import RUN_LABEL
from runner.cluster import run_state
from runner.cluster.artifacts.record import correct_record
from runner.cluster.connection import Connection
from runner.cluster.watch.workflow import pending_in, tasks_in
from runner.terminal import note

WORKFLOWS = ("argoproj.io", "v1alpha1", "workflows")
SECONDS = 30  # for an answer
LIVE = "workflows.argoproj.io/completed=false"  # Argo's label of pods that it has not yet seen the end of
LAST_LINES = 40  # of a log, in which progress is looked for
UNSEEN = {  # by what the user may not list or get
    "pods": "why a pod waits or was killed is not seen from here",
    "events": "why a volume is not mounted is not seen from here",
    "pods/log": "how a training goes on is not seen from here",
    "workflows": "the states of some steps are not known",
    "trainjobs": "what the nodes of a distributed training do is not seen, but for the first",
    "record": "the record of the run in its store may say that it failed",
    "artifacts": "what the steps left in KFP's store is not seen from here",
}

T = TypeVar("T")


@dataclass
class View:
    """What Kubernetes tells of a run; `say` takes what it does not tell, once."""

    connection: Connection
    run_id: str
    say: Callable[[str], None] = note
    refused: set[str] = field(default_factory=set)

    def pods(self, labels: str = "", quietly: bool = False) -> list[Any]:
        """Return the run's pods that have these labels too; none if Kubernetes does not list them.

        That is said once, unless `quietly`.
        """
        return self.labelled(",".join(filter(None, (f"{RUN_LABEL}={self.run_id}", labels))), quietly)

    def labelled(self, labels: str, quietly: bool = False) -> list[Any]:
        """Return the pods with these labels, oldest first; none if Kubernetes does not list them."""
        asked = self._of(label_selector=labels)
        found = self._ask("pods", "list", lambda kube: kube.list_namespaced_pod(**asked), quietly)
        return sorted(found.items, key=lambda pod: pod.metadata.creation_timestamp) if found else []

    def events(self, pod: Any) -> list[Any]:
        """Return the events of a pod, the last one last."""
        return self.events_of(pod.metadata.name)

    def events_of(self, name: str) -> list[Any]:
        """Return the events of what has this name, the last one last."""
        selected = self._of(field_selector=f"involvedObject.name={name}")
        found = self._ask("events", "list", lambda kube: kube.list_namespaced_event(**selected))
        return sorted(found.items, key=last_seen) if found else []

    def last_lines(self, pod: Any) -> list[str]:
        """Return the last lines that a pod has printed so far."""
        return (self.log(pod.metadata.name, container="main", tail_lines=LAST_LINES) or "").splitlines()

    def log(self, pod: str, **options: Any) -> str | None:
        """Return what a container of a pod has printed so far, or a part of it; None if it cannot be read."""
        given = self._of(name=pod, **{name: value for name, value in options.items() if value is not None})
        return self._ask("pods/log", "get", lambda kube: str(kube.read_namespaced_pod_log(**given)))

    def correct(self, run: Any, quietly: bool = False) -> bool:
        """Give a run whose tasks are stale or late those of Argo's Workflow; return False if it cannot be read.

        That is said once, unless `quietly`.
        """
        found = self.tasks(quietly)
        if found:
            launched = [task for task in run_state.tasks(run) if task.display_name is None]
            run.run_details.task_details = found + launched
        return bool(found)

    def correct_record(self, run: Any) -> None:
        """See to it that the record of a run that was stopped does not say that it failed."""
        try:
            correct_record(self.connection, run)
        except UserError as error:
            self.refuse("record", str(error))

    def tasks(self, quietly: bool = False) -> list[Any] | None:
        """Return the tasks of the run's Workflow; None if it cannot be read or is gone, which may not be said yet."""
        found = self.custom(*WORKFLOWS, quietly)
        return tasks_in(found[0]) if found else None

    def pending(self) -> dict[str, str]:
        """Return what Argo says of nodes that are pending, by their names; nothing if the Workflow cannot be read."""
        found = self.custom(*WORKFLOWS, quietly=True)
        return pending_in(found[0]) if found else {}

    def custom(self, group: str, version: str, plural: str, quietly: bool = False) -> list[Any]:
        """Return the run's objects of a kind that is not Kubernetes' own; none if they cannot be read."""
        arguments = self._of(label_selector=f"{RUN_LABEL}={self.run_id}", group=group, version=version)

        def ask(kube: kubernetes.client.CoreV1Api) -> Any:
            api = kubernetes.client.CustomObjectsApi(kube.api_client)
            return api.list_namespaced_custom_object(plural=plural, **arguments)

        found = self._ask(plural, "list", ask, quietly)
        return list(found["items"]) if found else []

    def _of(self, **arguments: Any) -> dict[str, Any]:
        return {"namespace": self.connection.namespace, "_request_timeout": SECONDS, **arguments}

    def _ask(
        self, resource: str, verb: str, ask: Callable[[kubernetes.client.CoreV1Api], T], quietly: bool = False
    ) -> T | None:
        """Return the answer; None without one. What is forbidden is said, unless `quietly`, and not asked for again."""
        kube = self.connection.kube
        if resource in self.refused:
            return None
        if kube is None:
            if not quietly:
                self.refuse(resource, "only KFP's API was reached; give --context too")
            return None
        try:
            return ask(kube)
        except kubernetes.client.ApiException as error:
            if error.status in (401, 403) and not quietly:
                right = f"{verb} {resource} in namespace {self.connection.namespace}"
                self.refuse(resource, f"Kubernetes forbids you to {right}; ask for that right")
        except urllib3.exceptions.HTTPError:
            pass  # asked again at the next look
        return None

    def refuse(self, resource: str, why: str) -> None:
        """Say why something is not seen, and do not ask for it again."""
        self.refused.add(resource)
        self.say(f"{UNSEEN[resource]}: {why}")


def last_seen(event: Any) -> float:
    """Return when an event was last seen, in seconds."""
    seen = event.last_timestamp or event.event_time or event.metadata.creation_timestamp
    return float(seen.timestamp()) if seen else 0.0
