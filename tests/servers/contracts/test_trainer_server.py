"""The emulated Kubeflow Trainer against a recording of Trainer 2.3 in a cluster.

recorded/trainjob.json holds a TrainJob while it runs, its metadata while it is deleted in the foreground, and one of
its pods. Environment variables are cut to three. recorded/trainjob-deletion.json holds all states, cut, of a TrainJob,
its JobSets and its pods, from its submission until it was deleted in the foreground while its nodes ran.
"""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.shared.training.distributed.trainjob.kubernetes_backend import SUSPEND
from components.shared.training.distributed.trainjob.manifest import JobSpec, manifest
from tests.servers.trainer_server import TrainerServer, trainer_server

RECORDED = json.loads((Path(__file__).parents[1] / "recorded" / "trainjob.json").read_text())
DELETION = json.loads((Path(__file__).parents[1] / "recorded" / "trainjob-deletion.json").read_text())
KILLED = json.loads((Path(__file__).parents[1] / "recorded" / "pods.json").read_text())["oom-killed"]["pod"]
RUNNING, POD = RECORDED["running"], RECORDED["pod"]
NAME, TRAINER = RUNNING["metadata"]["name"], RUNNING["spec"]["trainer"]
TIMES = {"creationTimestamp", "deletionTimestamp", "lastTransitionTime", "resourceVersion", "time", "uid"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TrainerServer]:
    """A server with the recorded job, submitted by our manifest."""
    (patch,) = RUNNING["spec"]["runtimePatches"]
    (job,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    config = SimpleNamespace(
        resources=TRAINER["resourcesPerNode"],
        node_selector=pod["nodeSelector"],
        tolerations=pod["tolerations"],
        env=TRAINER["env"],
        volumes=pod["volumes"],
        volume_mounts=pod["containers"][0]["volumeMounts"],
    )
    run_id = RUNNING["metadata"]["labels"]["pipeline/runid"]
    spec = JobSpec("s3://absent/jobs/a", TRAINER["numNodes"], 1, run_id, TRAINER["image"], pod["serviceAccountName"])
    with trainer_server(tmp_path, {}) as running:
        running.unscheduled = "no node"
        running.answer("create", "trainjobs", "", {"fieldValidation": "Strict"}, manifest(NAME, spec, config))
        yield running


def plain(value: Any) -> Any:
    """Return a value without times, identifiers and the command, whose module has been renamed since."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items() if name not in TIMES | {"command", "namespace"}}
    return [plain(item) for item in value] if isinstance(value, list) else value


def test_our_manifest_becomes_the_recorded_job(server: TrainerServer) -> None:
    job = server.answer("get", "trainjobs", NAME, {}, None)
    assert plain(job["spec"]) == plain(RUNNING["spec"])
    assert plain(job["metadata"]) == plain(RUNNING["metadata"])
    assert job["metadata"].keys() == RUNNING["metadata"].keys()


def test_a_running_job_has_the_recorded_status(server: TrainerServer) -> None:
    server.jobs[NAME].set_status(active=1, ready=1)
    assert server.jobs[NAME].job["status"] == RUNNING["status"]
    assert not server.jobs[NAME].conditions


def test_a_job_deleted_in_the_foreground_is_still_listed(server: TrainerServer) -> None:
    job = server.jobs[NAME].job
    server.answer("delete", "trainjobs", NAME, {"propagationPolicy": "Foreground"}, None)
    assert job["metadata"].keys() == RECORDED["deleting"]["metadata"].keys()
    assert plain(job["metadata"]) == plain(RECORDED["deleting"]["metadata"])


def test_a_pod_has_the_recorded_labels_and_fields(server: TrainerServer) -> None:
    server.unscheduled = ""
    first = server.answer("list", "pods", "", {"labelSelector": f"jobset.sigs.k8s.io/jobset-name={NAME}"}, None)
    pod = first["items"][0]
    assert pod["metadata"].keys() <= POD["metadata"].keys() and pod["spec"] == POD["spec"]
    assert pod["metadata"]["labels"].items() <= POD["metadata"]["labels"].items()
    assert pod["status"].keys() <= POD["status"].keys() and pod["status"]["phase"] == POD["status"]["phase"]
    conditions = {condition["type"]: condition["status"] for condition in POD["status"]["conditions"]}
    assert {c["type"]: c["status"] for c in pod["status"]["conditions"]}.items() <= conditions.items()


def test_a_pod_killed_for_memory_has_the_recorded_fields(server: TrainerServer) -> None:
    """No node was killed so on the recorded cluster, but a pod of step train."""
    server.out_of_memory = {0}
    query = {"labelSelector": f"jobset.sigs.k8s.io/jobset-name={NAME}"}
    (killed, other) = server.answer("list", "pods", "", query, None)["items"]
    recorded = KILLED["status"]
    assert killed["status"]["phase"] == recorded["phase"] and other["status"]["phase"] == "Pending"
    (status,) = killed["status"]["containerStatuses"]
    (main,) = [one for one in recorded["containerStatuses"] if one["name"] == "main"]
    assert status.keys() <= main.keys()
    assert status["state"]["terminated"].keys() <= main["state"]["terminated"].keys()
    assert status["state"]["terminated"]["reason"] == main["state"]["terminated"]["reason"]


def pods_of(server: TrainerServer) -> set[str]:
    found = server.answer("list", "pods", "", {"labelSelector": f"jobset.sigs.k8s.io/jobset-name={NAME}"}, None)
    return {pod["metadata"]["name"] for pod in found["items"]}


def test_the_pods_of_a_job_deleted_while_it_runs_start_again(server: TrainerServer) -> None:
    jobs, jobsets, pods = DELETION["trainjob"], DELETION["jobset"], DELETION["pods"]
    assert len({job["metadata"]["uid"] for job in jobs}) == 1 and len({jobset["uid"] for jobset in jobsets}) == 2
    assert jobsets[-1]["creationTimestamp"] > jobs[-1]["metadata"]["deletionTimestamp"], "the second JobSet"
    before = pods_of(server)
    assert len({pod["name"] for pod in pods}) == 2 * len(before)
    job = server.jobs[NAME].job
    states = [dict(job)]
    server.answer("delete", "trainjobs", NAME, {"propagationPolicy": "Foreground"}, None)
    states.append(dict(job))
    assert server.made_again == [NAME] and not pods_of(server) & before
    while NAME in server.jobs:
        threading.Event().wait(0.01)
    states.append(dict(job))
    assert ["status" in state for state in states] == ["status" in recorded for recorded in jobs[3:6]]


@pytest.mark.parametrize("state", ["suspended", "Complete"])
def test_the_pods_of_a_job_at_rest_stay_away_when_it_is_deleted(server: TrainerServer, state: str) -> None:
    """As read in Trainer's Reconcile, which applies the JobSet of each job that has not ended, with its `suspend`."""
    if state == "Complete":
        server.jobs[NAME].set_status("Complete", succeeded=1)
    else:
        server.answer("patch", "trainjobs", NAME, {}, SUSPEND)
    server.answer("delete", "trainjobs", NAME, {"propagationPolicy": "Foreground"}, None)
    assert not server.made_again
