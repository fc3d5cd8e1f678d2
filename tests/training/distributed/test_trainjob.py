"""Trainings by TrainJobs of a cluster: pytest tests/training/distributed/test_trainjob.py"""

import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.finish import finish
from components.shared.core.errors import CorruptDataError, TransientError, UserError
from components.shared.core.files import new_folder
from components.shared.data.dataset import open_dataset
from components.shared.models import saved_model
from components.shared.storage.client import Store
from components.shared.training.distributed.task import TaskDocument
from components.shared.training.distributed.trainjob import kubernetes_backend, manifest
from components.shared.training.distributed.trainjob.backend import JobState, TrainJobBackend, delete_jobs, open_backend
from components.shared.training.distributed.trainjob.kubernetes_backend import ENDS_WITHIN
from components.shared.training.distributed.trainjob.run import Timing, run_trainjob
from tests.servers.s3_server import S3Server, hold_after, proxy
from tests.servers.trainer_server import Pods, TrainerServer, kill, workers
from tests.trained_digits import SETTINGS
from tests.training.distributed.conftest import RUN_ID

# What KFP's driver makes of the passthroughs (backend/src/v2/driver/k8s.go).
GIVEN: dict[str, Any] = {
    "resources": {"limits": {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "0"}, "requests": {"cpu": "2"}},
    "node_selector": {"disk": "ssd"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    "env": [
        {"name": "STEP_IMAGE", "value": "registry/torch@sha256:1"},
        {"name": "RUN_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['pipeline/runid']"}}},
        {"name": "AWS_ACCESS_KEY_ID", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "k", "optional": True}}},
    ],
    "volumes": [{"name": "s3", "configMap": {"name": "s3", "optional": True}}, {"name": "dshm", "emptyDir": {}}],
    "volume_mounts": [
        {"name": "s3", "mountPath": "/etc/torch2kubeflow"},
        {"name": "dshm", "mountPath": "/dev/shm"},
    ],
}
# Of seconds, so that the first checkpoint is written before the end.
LONG: dict[str, Any] = {"epochs": 120, "batch_size": "100"}
ENDLESS = {**LONG, "epochs": 4000}
FAST = Timing(pause=partial(time.sleep, 0.1), log_seconds=0.1)


class Killed(BaseException):
    """Ends the step as a kill does."""


def pausing(action: Callable[[], object], **timing: float) -> Timing:
    """Do something between two polls of the job."""

    def pause() -> None:
        action()
        time.sleep(0.1)

    return FAST._replace(pause=pause, **timing)


def killed_when(happened: Callable[[], bool], **timing: float) -> Timing:
    """Kill the step between two polls of the job, as soon as something has happened."""

    def kill_step() -> None:
        if happened():
            raise Killed

    return pausing(kill_step, **timing)


def submit_only(trainer: TrainerServer) -> Timing:
    """Let no pod start, and kill the step at its third pause."""
    trainer.unscheduled = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    pauses = itertools.count()
    return killed_when(lambda: next(pauses) == 2)


@pytest.fixture
def freed(trainer: TrainerServer, server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Set it to let the pods go on: after their first checkpoint the store does not answer them, so that none ends."""
    freed = threading.Event()
    monkeypatch.setattr(kubernetes_backend, "ENDS_WITHIN", 3000)  # polls, which are shorter here
    with proxy(server.address) as network:
        network.always = hold_after("/checkpoints/", freed)
        trainer.environment = {**trainer.environment, "AWS_ENDPOINT_URL_S3": network.url}
        yield freed
        freed.set()


def has_checkpoint(store: Store) -> bool:
    return any(store.list("checkpoints"))


def train(
    dataset: Path, model: Path, store: Store, nodes: int = 2, timing: Timing = FAST, **settings: Any
) -> saved_model.Model:
    given = {**SETTINGS, "store": store.uri(), "checkpoint_seconds": 1, **settings}
    run = {name: given.pop(name) for name in ("seed", "threads", "store", "checkpoint_seconds")}
    with new_folder(model) as folder:
        task = TaskDocument(dataset=open_dataset(dataset).document.fields(), parameters=given, **run)
        run_trainjob(task, nodes, SimpleNamespace(**GIVEN), folder, timing)
    return saved_model.load(model)


@pytest.mark.slow
def test_two_nodes_survive_a_killed_process(
    trainer: TrainerServer,
    digits: Path,
    store: Store,
    freed: threading.Event,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    killed: list[Pods] = []

    def kill_once() -> None:
        if has_checkpoint(store) and not killed:
            killed.extend(trainer.jobs.values())
            kill(workers(store.uri(f"jobs/{next(iter(trainer.jobs))}"))[0])
            freed.set()

    model = train(digits, tmp_path / "model", store, timing=pausing(kill_once), **LONG)
    assert model.document.processes == 2 and killed[0].restarts == 0
    _, resumed, rest = capfd.readouterr().out.partition("[train] resumed after step")
    assert resumed and rest.count("[train] epoch 120/120: val loss") == 1
    assert not trainer.jobs and not list(store.list("jobs"))
    assert not trainer.made_again, "the job had ended when it was deleted"


@pytest.mark.slow
def test_a_lost_node_and_a_killed_step_cost_a_restart_and_no_job(
    trainer: TrainerServer,
    digits: Path,
    store: Store,
    freed: threading.Event,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(Killed):
        train(digits, tmp_path / "model", store, 1, killed_when(lambda: has_checkpoint(store)), **LONG)
    (pods,) = trainer.jobs.values()
    with pods.lock:  # nothing is started again meanwhile
        pods.processes[0].kill()
        for process in workers(store.uri(f"jobs/{pods.job['metadata']['name']}")):
            kill(process)
    freed.set()
    train(digits, tmp_path / "model", store, nodes=1, **LONG)
    assert (len(trainer.submitted), pods.restarts) == (1, 1)
    out = capfd.readouterr().out
    assert "] resumed TrainJob" in out and "[train] resumed after step" in out


@pytest.mark.slow
def test_nodes_stop_without_a_step_and_a_later_one_submits(
    trainer: TrainerServer, digits: Path, store: Store, tmp_path: Path
) -> None:
    timing = killed_when(lambda: has_checkpoint(store), renewal_seconds=0.2, lapse_seconds=4)
    with pytest.raises(Killed):
        train(digits, tmp_path / "model", store, timing=timing, **ENDLESS)
    (pods,) = trainer.jobs.values()
    deadline = time.monotonic() + 300
    while not pods.conditions and time.monotonic() < deadline:
        time.sleep(0.05)
    assert pods.conditions[0]["type"] == "Complete" and pods.restarts == 0
    assert not workers(store.uri(f"jobs/{pods.job['metadata']['name']}"))
    with pytest.raises(Killed):
        train(digits, tmp_path / "model", store, timing=submit_only(trainer), **ENDLESS)
    assert len(trainer.submitted) == 2


@pytest.mark.slow
def test_an_error_of_a_node_is_one_line_and_restarts_nothing(
    trainer: TrainerServer, digits: Path, store: Store, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"^gpus=1 is more than the 0 GPUs that PyTorch sees here") as raised:
        train(digits, tmp_path / "model", store, nodes=1, gpus="1")
    assert raised.value.remedy == "give gpus=0"
    assert not trainer.jobs and not list(store.list("jobs")) and len(trainer.submitted) == 1
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_processes_that_die_too_often_are_one_line(
    trainer: TrainerServer, digits: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "RESTARTS", 0)
    trainer.runtimes["torch2kubeflow"]["spec"]["template"]["spec"]["failurePolicy"]["maxRestarts"] = 0
    trainer.environment = {**trainer.environment, "AWS_SECRET_ACCESS_KEY": "another"}
    with pytest.raises(
        TransientError, match=r"^TrainJob train-\w+ failed: a process died too often, .* from the newest checkpoint$"
    ):
        train(digits, tmp_path / "model", store, nodes=1)


def test_a_result_that_cannot_be_read_is_refused_and_removed(
    trainer: TrainerServer, digits: Path, store: Store, tmp_path: Path
) -> None:
    def write_result() -> None:
        store.put_bytes(b'{"format": "torch2kubeflow/job-result"}', f"jobs/{next(iter(trainer.jobs))}/result.json")

    trainer.unscheduled = "no node"
    with pytest.raises(CorruptDataError, match=r"result\.json has no valid field 'error'; run "):
        train(digits, tmp_path / "model", store, timing=pausing(write_result))
    assert not list(store.list("jobs"))


def test_a_job_passes_on_what_the_step_would_have_got(
    trainer: TrainerServer, digits: Path, store: Store, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        train(digits, tmp_path / "model", store, 3, submit_only(trainer), gpus="2")
    (job,) = trainer.submitted
    assert re.fullmatch("train-[0-9a-f]{24}", job["metadata"]["name"])
    assert job["metadata"]["labels"]["pipeline/runid"] == RUN_ID
    requested = job["spec"]["trainer"]
    assert (requested["numNodes"], requested["image"]) == (3, "registry/torch@sha256:1")
    assert requested["resourcesPerNode"] == GIVEN["resources"]
    assert requested["command"][requested["command"].index("--nproc-per-node") + 1] == "2"
    assert {"name": "RUN_ID", "value": RUN_ID} in requested["env"] and GIVEN["env"][2] in requested["env"]
    assert len({variable["name"] for variable in requested["env"]}) == len(requested["env"]) == 3
    (replicated,) = job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = replicated["template"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "pipeline-runner"
    assert (pod["nodeSelector"], pod["tolerations"]) == (GIVEN["node_selector"], GIVEN["tolerations"])
    assert pod["volumes"] == GIVEN["volumes"][:1]
    assert pod["containers"] == [{"name": "node", "volumeMounts": GIVEN["volume_mounts"][:1]}]


def test_the_reason_of_a_pending_job_is_logged_once(
    trainer: TrainerServer, digits: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Killed):
        train(digits, tmp_path / "model", store, timing=submit_only(trainer))
    assert capsys.readouterr().out.count(f"] waiting for a node: {trainer.unscheduled}\n") == 1


@pytest.mark.parametrize("node", [1, None])
def test_a_node_killed_for_memory_is_named(
    trainer: TrainerServer, digits: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], node: Any
) -> None:
    """Its pod is named in the error only if it belongs to the attempt that failed: earlier ones were replaced."""
    polls = itertools.count()

    def fail() -> None:
        if next(polls) == 2:
            trainer.out_of_memory = {node} - {None}
            next(iter(trainer.jobs.values())).set_status("Failed", failed=1)

    trainer.unscheduled = "no node"
    trainer.out_of_memory = {0}
    cause = r"node 1 was killed for want of memory: its limit is 4Gi; give more train_memory=, and run it again"
    why = cause if node else "a process died too often, see above; run it again"
    with pytest.raises(TransientError, match=rf"^TrainJob train-\w+ failed: {why}"):
        train(digits, tmp_path / "model", store, timing=pausing(fail))
    line = "] node 0 was killed for want of memory: its limit is 4Gi; give more train_memory=\n"
    assert capsys.readouterr().out.count(line) == 1


@pytest.mark.slow
def test_an_api_that_fails_for_a_moment_is_asked_again(
    trainer: TrainerServer, digits: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    timing = submit_only(trainer)
    trainer.failures = 1
    with pytest.raises(Killed):
        train(digits, tmp_path / "model", store, timing=timing)
    assert "the Kubernetes API answered 503; retrying in" in capsys.readouterr().out
    assert len(trainer.submitted) == 1


def test_a_job_that_another_process_has_just_created_stays(trainer: TrainerServer) -> None:
    trainer.unscheduled = "no node"
    spec = manifest.JobSpec("s3://absent/jobs/a", 2, 1, RUN_ID, "image", "pipeline-runner")
    with open_backend(SimpleNamespace(**GIVEN)) as backend:
        for _ in range(2):
            backend.submit("train-1", spec)
        assert backend.state("train-1") == JobState.ACTIVE and len(trainer.submitted) == 1


@pytest.fixture
def waiting(trainer: TrainerServer) -> Iterator[TrainJobBackend]:
    """A cluster's backend, with a job `train-1` whose pods wait for a node."""
    trainer.unscheduled = "no node"
    with open_backend(SimpleNamespace(**GIVEN), poll_seconds=0.01) as backend:
        backend.submit("train-1", manifest.JobSpec("s3://absent/jobs/a", 2, 1, RUN_ID, "image", "pipeline-runner"))
        yield backend


@pytest.mark.slow
def test_a_job_that_does_not_end_is_deleted_after_a_while(trainer: TrainerServer, waiting: TrainJobBackend) -> None:
    asked: list[str] = []
    answer = trainer.answer
    trainer.answer = lambda verb, *rest: (asked.append(verb), answer(verb, *rest))[1]  # type: ignore[method-assign, func-returns-value]
    waiting.delete("train-1")
    assert asked.index("delete") == ENDS_WITHIN and not trainer.jobs


@pytest.mark.slow
def test_a_deletion_that_another_change_hinders_is_repeated(trainer: TrainerServer, waiting: TrainJobBackend) -> None:
    trainer.jobs["train-1"].set_status("Complete", succeeded=1)
    trainer.conflicts = 1
    waiting.delete("train-1")
    assert not trainer.jobs and not trainer.made_again and not trainer.conflicts


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize("may_suspend", [True, False])
def test_a_stopped_job_is_deleted_at_once_and_starts_no_pods(trainer: TrainerServer, may_suspend: bool) -> None:
    if not may_suspend:
        trainer.denied.add("patch trainjobs")
    assert delete_jobs(RUN_ID) == ["train-1"]
    assert trainer.jobs["train-1"].job["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert bool(trainer.made_again) is not may_suspend


def gone(trainer: TrainerServer) -> None:
    while any("deletionTimestamp" in pods.job["metadata"] for pods in list(trainer.jobs.values())):
        time.sleep(0.01)


@pytest.mark.slow
def test_the_exit_task_deletes_the_jobs_of_its_run_only(
    trainer: TrainerServer, digits: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run_id in (RUN_ID, "another"):
        monkeypatch.setenv("RUN_ID", run_id)
        with pytest.raises(Killed):
            train(digits, tmp_path / "model", store, timing=submit_only(trainer), seed=len(trainer.jobs))
    status = SimpleNamespace(state="CANCELED", error_message="")
    given: dict[str, Any] = {"run_name": "a", "status": status, "store": "", "graph": "distributed", "options": {}}
    finish(run_id=RUN_ID, record=tmp_path / "record", **given)
    gone(trainer)
    (left,) = trainer.jobs.values()
    assert left.job["metadata"]["labels"]["pipeline/runid"] == "another"
    with pytest.raises(UserError):  # a store that fails keeps no job alive
        finish(run_id="another", record=tmp_path / "record", **{**given, "store": "s3://absent"})
    gone(trainer)
    assert not trainer.jobs
    trainer.has_trainer = False
    finish(run_id=RUN_ID, record=tmp_path / "record", **given)


def test_the_exit_task_may_be_without_rights_to_jobs(
    trainer: TrainerServer, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer.denied.add("list trainjobs")
    status = SimpleNamespace(state="FAILED", error_message="")
    given: dict[str, Any] = {"run_name": "a", "status": status, "graph": "distributed", "options": {}}
    finish(run_id=RUN_ID, record=tmp_path / "record", store=store.uri(), **given)
    assert "the run's TrainJobs, if there are any, remain: the Kubernetes API refuses (403)" in capsys.readouterr().out
    assert store.exists(f"runs/{RUN_ID}.json")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda t: setattr(t, "has_trainer", False), "there is no Kubeflow Trainer 2 in this cluster; install it .*"),
        (
            lambda t: t.runtimes.clear(),
            "there is no TrainingRuntime torch2kubeflow in namespace team; kubectl apply .*",
        ),
        (
            lambda t: setattr(t, "is_old", True),
            r'the Kubernetes API refuses \(400\): strict decoding error: unknown field "spec.runtimePatches"; '
            "install Kubeflow Trainer 2.2 or newer",
        ),
        (lambda t: t.denied.add("create trainjobs"), r"the Kubernetes API refuses \(403\): .*; grant this perm.*"),
        (lambda t: t.denied.add("list trainjobs"), r"the Kubernetes API refuses \(403\): .*; grant this perm.*"),
        (
            lambda t: setattr(t, "quota", "exceeded quota: jobs"),
            r"the Kubernetes API refuses \(403\): .*; see .*doctor.*",
        ),
    ],
)
def test_a_cluster_that_lacks_something_is_one_line(
    trainer: TrainerServer, digits: Path, store: Store, tmp_path: Path, change: Any, line: str
) -> None:
    change(trainer)
    with pytest.raises(UserError, match=f"^{line}$") as raised:
        train(digits, tmp_path / "model", store)
    assert type(raised.value) is UserError, "a type that survives the border of the pod"
    assert not trainer.jobs
