"""The emulated Kubeflow Trainer against a recording of Trainer 2.3 in a cluster.

recorded/trainjob.json holds a TrainJob while it runs, its metadata while it is deleted in the foreground, and one of
its pods. Environment variables are cut to three.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.shared.training.distributed.trainjob.manifest import JobSpec, manifest
from tests.servers.trainer_server import TrainerServer, trainer_server

RECORDED = json.loads((Path(__file__).parent / "recorded" / "trainjob.json").read_text())
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
    assert plain(job["metadata"]) == plain(RECORDED["deleting"]["metadata"]) and "status" not in job


def test_a_pod_has_the_recorded_labels_and_fields(server: TrainerServer) -> None:
    server.unscheduled = ""
    first = server.answer("list", "pods", "", {"labelSelector": f"jobset.sigs.k8s.io/jobset-name={NAME}"}, None)
    pod = first["items"][0]
    assert pod["metadata"].keys() <= POD["metadata"].keys() and pod["spec"] == POD["spec"]
    assert pod["metadata"]["labels"].items() <= POD["metadata"]["labels"].items()
    assert pod["status"].keys() <= POD["status"].keys() and pod["status"]["phase"] == POD["status"]["phase"]
    conditions = {condition["type"]: condition["status"] for condition in POD["status"]["conditions"]}
    assert {c["type"]: c["status"] for c in pod["status"]["conditions"]}.items() <= conditions.items()
