"""Training on many nodes, the step and its workers: pytest tests/steps/test_train_distributed.py"""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components import train_distributed as step
from components.entrypoints import trainjob_worker
from components.finish import finish
from components.resolve import resolve
from components.shared.core.errors import CorruptDataError, TransientError, UserError
from components.shared.data.dataset import open_dataset, write_document
from components.shared.models import saved_model
from components.shared.storage import lease
from components.shared.storage.client import Store, open_store
from components.shared.storage.lease import Lease
from components.shared.training.distributed import trainjob
from components.shared.training.distributed.handoff import Job, job_name
from tests.servers.s3_server import BUCKET, S3Server
from tests.servers.trainer_server import TrainerServer, kill, trainer_server, workers
from tests.trained_digits import SETTINGS, write_digits

ROOT = Path(__file__).parents[2]
SHARDS = "datasets/shards"
RUN_ID = "5e9f2f6c-0001-4ad6-9d3f-2f8f0f6f0001"
NOTHING: dict[str, Any] = dict.fromkeys(
    ("resources", "node_selector", "tolerations", "env", "volumes", "volume_mounts")
)
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
STORE = f"s3://{BUCKET}/team"


@pytest.fixture
def store(server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    """A store of the test's own, which this process and its children reach."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RUN_ID", RUN_ID)
    monkeypatch.setattr(step, "SECONDS", 0.1)
    monkeypatch.setattr(trainjob, "LOG_SECONDS", 0.1)
    return open_store(f"{STORE}/{tmp_path.name}", server.environment)


@pytest.fixture
def digits(store: Store, tmp_path: Path) -> Path:
    """A dataset whose shards lie in the store."""
    folder = write_digits(tmp_path / "digits", enlarge=4)
    data = open_dataset(folder)
    for entry in data.files():
        store.put_file(folder / entry["path"], f"{SHARDS}/{entry['sha256']}.npy", entry["sha256"])
        (folder / entry["path"]).unlink()
    write_document(folder, {**data.document, "shards": store.uri(SHARDS)})
    return folder


@pytest.fixture
def trainer(store: Store, server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrainerServer]:
    """A cluster with Trainer in it, in which this process seems to be."""
    (tmp_path / "pods").mkdir()
    with trainer_server(tmp_path / "pods", server.environment) as running:
        running.write_kubeconfig(tmp_path / ".kube" / "config")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("STEP_IMAGE", "registry/torch@sha256:1")
        monkeypatch.setenv("SERVICE_ACCOUNT", "pipeline-runner")
        yield running


def train(dataset: Path, model: Path, store: Store, **others: Any) -> saved_model.Model:
    config = SimpleNamespace(**(GIVEN if "KUBERNETES_SERVICE_HOST" in os.environ else NOTHING))
    parameters = {**SETTINGS, "nodes": 2, "store": store.uri(), "checkpoint_seconds": 1, **others}
    step.train_distributed(dataset=dataset, model=model, task_config=config, **parameters)
    return saved_model.load(model)


def in_background(*arguments: Any, **others: Any) -> tuple[threading.Thread, list[Any]]:
    """A training by a thread, and what comes of it."""
    ends: list[Any] = []

    def run() -> None:
        try:
            ends.append(train(*arguments, **others))
        except UserError as error:
            ends.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, ends


def until(what: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


@pytest.mark.slow
def test_this_machine_trains_by_the_sdks_local_processes(
    digits: Path, store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainjob.tempfile, "tempdir", str(tmp_path))
    model = train(digits, tmp_path / "model", store, nodes=1)
    assert model.document["processes"] == 1
    assert "[train] epoch 2/2: val loss" in capfd.readouterr().out
    assert not list(store.list("jobs")) and not list(tmp_path.glob("train-*"))
    assert list(store.list("checkpoints"))


class Dead(BaseException):
    """What ends a step as a kill does."""


def die_when(what: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the step die between two looks at the job, as soon as something is so."""

    def sleep(seconds: float) -> None:
        if what():
            monkeypatch.setattr(step.time, "sleep", SLEEP)
            raise Dead
        SLEEP(seconds)

    monkeypatch.setattr(step.time, "sleep", sleep)


SLEEP = time.sleep
LONG: dict[str, Any] = {"epochs": 40, "batch_size": "100"}


def has_checkpoint(store: Store) -> bool:
    return any(store.list("checkpoints"))


@pytest.mark.slow
def test_two_nodes_train_one_model_though_a_process_dies_on_the_way(
    trainer: TrainerServer, digits: Path, store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    thread, ends = in_background(digits, tmp_path / "model", store, **LONG)
    until(lambda: has_checkpoint(store))
    ((name, pods),) = trainer.jobs.items()
    kill(workers(store.uri(f"jobs/{name}"))[0])
    thread.join()
    (model,) = ends
    assert model.document["processes"] == 2 and pods.restarts == 0
    out = capfd.readouterr().out
    assert "[train] resumed after step" in out
    assert out.count("[train] epoch 40/40: val loss") == 1
    assert not trainer.jobs and not list(store.list("jobs"))


@pytest.mark.slow
def test_a_node_that_is_taken_away_and_a_step_that_dies_cost_a_restart_and_no_second_job(
    trainer: TrainerServer,
    digits: Path,
    store: Store,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    die_when(lambda: has_checkpoint(store), monkeypatch)
    with pytest.raises(Dead):
        train(digits, tmp_path / "model", store, nodes=1, **LONG)
    (pods,) = trainer.jobs.values()
    pods.processes[0].kill()
    for process in workers(store.uri(f"jobs/{pods.job['metadata']['name']}")):
        kill(process)
    train(digits, tmp_path / "model", store, nodes=1, **LONG)
    assert (len(trainer.submitted), pods.restarts) == (1, 1)
    out = capfd.readouterr().out
    assert "[train-distributed] goes on with TrainJob" in out and "[train] resumed after step" in out


@pytest.mark.slow
def test_nodes_stop_when_nobody_waits_for_them_and_a_later_step_submits_the_job_anew(
    trainer: TrainerServer, digits: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "RENEWAL_SECONDS", 0.2)
    monkeypatch.setattr(step, "LAPSE_SECONDS", 1.5)
    die_when(lambda: has_checkpoint(store), monkeypatch)
    with pytest.raises(Dead):
        train(digits, tmp_path / "model", store, **{**LONG, "epochs": 4000})
    (pods,) = trainer.jobs.values()
    until(lambda: "status" in pods.job)
    assert pods.job["status"]["conditions"][0]["type"] == "Complete" and pods.restarts == 0
    assert not workers(store.uri(f"jobs/{pods.job['metadata']['name']}"))
    submit_only(trainer, monkeypatch)
    with pytest.raises(Dead):
        train(digits, tmp_path / "model", store, **{**LONG, "epochs": 4000})
    assert len(trainer.submitted) == 2


@pytest.mark.slow
def test_a_mistake_is_one_line_and_begins_nothing_anew(
    trainer: TrainerServer, digits: Path, store: Store, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"^gpus=1 is more than the 0 GPUs that PyTorch sees here"):
        train(digits, tmp_path / "model", store, nodes=1, gpus="1")
    assert not trainer.jobs and not list(store.list("jobs")) and len(trainer.submitted) == 1
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_processes_that_die_too_often_are_one_line(
    trainer: TrainerServer, digits: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainjob, "RESTARTS", 0)
    trainer.runtimes["torch2kubeflow"]["spec"]["template"]["spec"]["failurePolicy"]["maxRestarts"] = 0
    trainer.environment = {**trainer.environment, "AWS_SECRET_ACCESS_KEY": "another"}
    with pytest.raises(
        TransientError, match=r"^TrainJob train-\w+ failed, for a process of it died too often, .* is kept"
    ):
        train(digits, tmp_path / "model", store, nodes=1)


def test_a_job_hands_on_what_the_step_would_have_got(
    trainer: TrainerServer, digits: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit_only(trainer, monkeypatch)
    with pytest.raises(Dead):
        train(digits, tmp_path / "model", store, gpus="2", nodes=3)
    (job,) = trainer.submitted
    assert re.fullmatch("train-[0-9a-f]{24}", job["metadata"]["name"])
    assert job["metadata"]["labels"]["pipeline/runid"] == RUN_ID
    asked = job["spec"]["trainer"]
    assert (asked["numNodes"], asked["image"]) == (3, "registry/torch@sha256:1")
    assert asked["resourcesPerNode"] == GIVEN["resources"]
    assert asked["command"][asked["command"].index("--nproc-per-node") + 1] == "2"
    assert {"name": "RUN_ID", "value": RUN_ID} in asked["env"] and GIVEN["env"][2] in asked["env"]
    assert len({variable["name"] for variable in asked["env"]}) == len(asked["env"]) == 3
    (replicated,) = job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = replicated["template"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "pipeline-runner"
    assert (pod["nodeSelector"], pod["tolerations"]) == (GIVEN["node_selector"], GIVEN["tolerations"])
    assert pod["volumes"] == GIVEN["volumes"][:1]
    assert pod["containers"] == [{"name": "node", "volumeMounts": GIVEN["volume_mounts"][:1]}]


def submit_only(trainer: TrainerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no pod start, and the step die after that was told."""
    trainer.unscheduled = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    looks = iter(range(100))
    die_when(lambda: next(looks) == 2, monkeypatch)


def test_what_keeps_a_job_from_starting_is_told_once(
    trainer: TrainerServer,
    digits: Path,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    submit_only(trainer, monkeypatch)
    with pytest.raises(Dead):
        train(digits, tmp_path / "model", store)
    assert capsys.readouterr().out.count(f"[train-distributed] waits for a node: {trainer.unscheduled}\n") == 1


def test_the_exit_task_deletes_the_jobs_of_its_run_and_no_others(
    trainer: TrainerServer, digits: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run_id in (RUN_ID, "another"):
        submit_only(trainer, monkeypatch)
        monkeypatch.setenv("RUN_ID", run_id)
        with pytest.raises(Dead):
            train(digits, tmp_path / "model", store, seed=len(trainer.jobs))
    status = SimpleNamespace(state="CANCELED", error_message="")
    told: dict[str, Any] = {"run_name": "a", "status": status, "store": "", "graph": "distributed"}
    finish(run_id=RUN_ID, record=tmp_path / "record", **told)
    (left,) = trainer.jobs.values()
    assert left.job["metadata"]["labels"]["pipeline/runid"] == "another"
    with pytest.raises(UserError):  # a store that fails keeps no job alive
        finish(run_id="another", record=tmp_path / "record", **{**told, "store": "s3://absent"})
    assert not trainer.jobs
    trainer.has_trainer = False
    finish(run_id=RUN_ID, record=tmp_path / "record", **told)


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
        (lambda t: t.denied.add("create trainjobs"), r"the Kubernetes API refuses \(403\): .*; grant that, .*"),
        (lambda t: t.denied.add("list trainjobs"), r"the Kubernetes API refuses \(403\): .*; grant that, .*"),
    ],
)
def test_a_cluster_that_lacks_something_is_one_line(
    trainer: TrainerServer, digits: Path, store: Store, tmp_path: Path, change: Any, line: str
) -> None:
    change(trainer)
    with pytest.raises(UserError, match=f"^{line}$"):
        train(digits, tmp_path / "model", store)
    assert not trainer.jobs


def test_data_that_other_nodes_cannot_read_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="which other nodes cannot read; prepare it by handover_mib=0"):
        train(write_digits(tmp_path / "own", enlarge=1), tmp_path / "model", store)


def test_a_plain_graph_refuses_nodes_and_names_the_graph_that_takes_them() -> None:
    with pytest.raises(UserError, match=r"^nodes=2 is more than graph training trains on; give --graph distributed"):
        resolve(data="digits", store="", graph="training", nodes=2)
    with pytest.raises(UserError, match=r"^store= is empty"):
        resolve(data="digits", store="", graph="distributed", nodes=2)


def test_equal_jobs_have_equal_names() -> None:
    assert job_name(seed=1, epochs=2) == job_name(epochs=2, seed=1) != job_name(epochs=2, seed=2)


def test_a_lease_lapses_for_all_when_it_is_not_renewed(store: Store) -> None:
    with lease.hold(store, "jobs/a/lease.json", renewal=0.05, lapse=0.4):
        early = Lease(store, "jobs/a/lease.json")
        until(lambda: early.is_lapsed() or early._etag)
        SLEEP(0.6)
        assert not early.is_lapsed()
    SLEEP(0.5)
    assert early.is_lapsed() and Lease(store, "jobs/a/lease.json").is_lapsed()
    assert Lease(store, "jobs/none/lease.json").is_lapsed()
    with lease.hold(store, "jobs/a/lease.json", renewal=1, lapse=2):
        assert not early.is_lapsed()


def test_a_renewal_wins_over_who_finds_the_lease_lapsed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    lease._renew(store, "lease.json", 1, 0)
    late, read = Lease(store, "lease.json"), store.get_bytes

    def renewed_after(name: str) -> tuple[bytes, str]:
        found = read(name)
        lease._renew(store, name, 1, 0)
        return found

    monkeypatch.setattr(store, "get_bytes", renewed_after)
    assert not late.is_lapsed()


def test_a_lapse_that_cannot_be_marked_is_looked_at_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    lease._renew(store, "lease.json", 1, 0)

    def fail(*_: object, **__: object) -> None:
        raise UserError("the store refuses")

    with monkeypatch.context() as patch:
        patch.setattr(store, "put_bytes", fail)
        assert not Lease(store, "lease.json").is_lapsed()
    assert Lease(store, "lease.json").is_lapsed()


def test_a_model_is_checked_by_its_digests(store: Store, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("{}")
    job = Job(store, "train-1")
    job.succeed(tmp_path / "model")
    result = job.result()
    assert result and list(result["files"]) == ["model.json"]
    store.put_bytes(b"other", "jobs/train-1/model/model.json")
    with pytest.raises(CorruptDataError):
        job.fetch(result["files"], tmp_path)
    with pytest.raises(CorruptDataError, match="names the file"):
        job.fetch({"../model.json": "0"}, tmp_path)


def test_a_worker_has_nothing_to_do_after_the_end(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainjob_worker, "_stop", lambda: None)  # which would end this process
    job = Job(store, "train-1")
    trainjob_worker.main(job.uri)  # nobody holds the lease
    job.fail("a mistake")
    job.fail("another, of a second process")
    trainjob_worker.main(job.uri)
    assert capsys.readouterr().out.count("nothing is left to do") == 2
    assert job.result() == {"format": "torch2kubeflow/job-result", "mistake": "a mistake"}
