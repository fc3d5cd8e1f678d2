"""The nodes of a distributed training: pods of the TrainJobs of a run, which have no label of the run themselves."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from runner.cluster.watch.reasons import why_killed
from runner.cluster.watch.view import View

STEP = "train-distributed"
GROUP, VERSION, JOBS = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
JOB_LABEL = "jobset.sigs.k8s.io/jobset-name"  # of a TrainJob's pods: the job's name
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
    killed: dict[str, str] = field(default_factory=dict)  # pod -> what ended it, as seen so far

    def find(self) -> list[Node]:
        """Return the nodes whose pods exist, oldest first; none if Kubernetes does not list them."""
        if "pods" in self.view.refused:
            return []
        self.jobs |= {job["metadata"]["name"] for job in self.view.custom(GROUP, VERSION, JOBS)}
        pods = [pod for job in sorted(self.jobs) for pod in self.view.labelled(f"{JOB_LABEL}={job}")]
        return [Node(int((pod.metadata.annotations or {}).get(RANK, 0)), pod) for pod in pods]

    def newly_killed(self) -> Iterator[str]:
        """Yield what has ended nodes since the last call; that a restart takes away the pods of all is no news."""
        for rank, pod in self.find():
            reason = None if pod.metadata.deletion_timestamp else why_killed(pod, STEP)
            if reason and pod.metadata.name not in self.killed:
                verb = ":" if reason.text.startswith("its ") else " was"
                self.killed[pod.metadata.name] = f"node {rank}{verb} {reason}"
                yield self.killed[pod.metadata.name]
