"""The nodes of a distributed training: pods of the TrainJobs of a run, which have no label of the run themselves."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from components.shared.training.distributed.trainjob.manifest import NODE
from runner.cluster.watch.reasons import Reason, is_creating, step_of, why_killed, why_refused, why_waiting
from runner.cluster.watch.view import View, last_seen

STEP = "train-distributed"
GROUP, VERSION, JOBS = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
JOB_LABEL = "jobset.sigs.k8s.io/jobset-name"  # of a TrainJob's pods: the job's name
CREATED, NOT_CREATED = "SuccessfulCreate", "FailedCreate"  # events of a Job, about its pods
RANK = "batch.kubernetes.io/job-completion-index"  # an annotation of a node's pod


class Node(NamedTuple):
    """A node with its pod; one that was restarted has had others."""

    rank: int
    pod: Any


@dataclass
class Nodes:
    """Looks for the nodes of one run."""

    view: View
    jobs: set[str] = field(default_factory=set)  # seen so far: their pods outlive them
    wanted: dict[str, int] = field(default_factory=dict)  # job that exists -> the number of its nodes
    killed: dict[str, str] = field(default_factory=dict)  # pod -> what ended it, as seen so far

    def find(self) -> list[Node]:
        """Return the nodes whose pods exist, oldest first; none if Kubernetes does not list them."""
        if "pods" in self.view.refused:
            return []
        found = self.view.custom(GROUP, VERSION, JOBS)
        self.wanted = {job["metadata"]["name"]: job["spec"]["trainer"]["numNodes"] for job in found}
        self.jobs |= self.wanted.keys()
        pods = [pod for job in sorted(self.jobs) for pod in self.view.labelled(f"{JOB_LABEL}={job}")]
        return [Node(int((pod.metadata.annotations or {}).get(RANK, 0)), pod) for pod in pods]

    def beside(self, pods: Iterable[Any]) -> list[Node]:
        """Return the nodes if one of these pods of the run is that of the step which waits for them."""
        return self.find() if any(step_of(pod) == STEP for pod in pods) else []

    def waiting(self, nodes: list[Node]) -> Reason | None:
        """Return why nodes do not start, and which; None if nothing is known to keep one."""
        ranks: dict[Reason, list[str]] = defaultdict(list)
        for rank, pod in nodes:
            reason = why_waiting(pod, self.view.events(pod) if is_creating(pod) else (), STEP)
            if reason and not pod.metadata.deletion_timestamp:
                ranks[reason].append(str(rank))
        told = [Reason(f"{_named(which)}: {reason.text}", reason.remedy) for reason, which in ranks.items()]
        told += self._refused(nodes)
        texts, remedies = [reason.text for reason in told], dict.fromkeys(reason.remedy for reason in told)
        return Reason("; ".join(texts), " or ".join(remedies)) if told else None

    def _refused(self, nodes: list[Node]) -> Iterator[Reason]:
        """Yield why Kubernetes does not take the pods of nodes, as the last event of their Job tells."""
        pods = Counter((pod.metadata.labels or {}).get(JOB_LABEL) for _, pod in nodes)
        for job in (job for job, number in self.wanted.items() if pods[job] < number):
            made = [event for event in self.view.events_of(f"{job}-{NODE}-0") if event.reason in (CREATED, NOT_CREATED)]
            last = max(made, key=lambda event: (last_seen(event), event.reason == NOT_CREATED), default=None)
            if last and (reason := why_refused(last.message, is_training=True)):
                yield reason

    def newly_killed(self, nodes: Iterable[Node]) -> Iterator[str]:
        """Yield what has ended nodes since the last call; that a restart takes away the pods of all is no news."""
        for rank, pod in nodes:
            reason = None if pod.metadata.deletion_timestamp else why_killed(pod, STEP)
            if reason and pod.metadata.name not in self.killed:
                verb = ":" if reason.text.startswith("its ") else " was"
                self.killed[pod.metadata.name] = f"node {rank}{verb} {reason}"
                yield self.killed[pod.metadata.name]


def _named(ranks: list[str]) -> str:
    return f"{'node' if len(ranks) == 1 else 'nodes'} {', '.join(ranks)}"
