"""Verb `logs` against servers of KFP's and Kubernetes' API."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from components.shared.core.errors import UserError
from components.shared.core.log import EVENT
from components.shared.storage.client import open_store
from pipeline import distributed, training
from runner.cluster import logs as cluster_logs
from runner.cluster import run
from runner.cluster.watch.nodes import JOB_LABEL, RANK
from runner.compile import compile_pipeline
from runner.control import follow, logs
from tests.runner.control.test_stop import Clock
from tests.runner.doctor.objects import launcher, launcher_secret
from tests.runner.verbs import answered, run_verb
from tests.servers.kfp_http import error, page
from tests.servers.kfp_server import KfpServer, Stage, pod_name
from tests.servers.kube_server import KubeServer
from tests.servers.kube_server import kube_server as kubernetes_server
from tests.servers.port_forward import Pod, kube_server
from tests.servers.recorded_cluster import log_of_evaluate, trainjob
from tests.servers.s3_server import BUCKET, KEY, SECRET, S3Server

TRAINING = {"resolve": "SUCCEEDED", "executor#resolve": "SUCCEEDED", "train": "RUNNING", "executor#train": "RUNNING"}
HERE = ("--context", "loopback")
ORIGIN = "9fb56e0c-bea9-4a6b-a913-57c26358aba6"  # of the cached `preprocess`, in the recorded log
# KFP's answer for a cached step, as recorded.
NO_LOG = json.dumps({"error_message": "BadRequestError: Failed to read logs", "error_details": "NoSuchKey"})


@pytest.fixture
def run_id(kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]) -> str:
    """The id of a run that trains."""
    kfp_api.plan = [Stage("RUNNING", TRAINING)]
    run_verb(run)
    capsys.readouterr()
    return next(iter(kfp_api.runs))


@pytest.fixture
def cluster(tmp_path: Path, kfp_api: KfpServer) -> Iterator[KubeServer]:
    """Kubernetes, with the context `loopback`."""
    with kubernetes_server() as server:
        server.write_kubeconfig(tmp_path / ".kube" / "config")
        yield server


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(follow, "time", clock)
    return clock


def _evaluate_log() -> str:
    """The log of a step: KFP's recorded lines, the step's own, and the launcher's."""
    return f"{log_of_evaluate().rstrip()}\n    }}\n}}\n[evaluate] accuracy 98.2 %\n{EVENT}{{}}\ntime=now level=info\n"


def test_logs_come_from_kfp(kfp_api: KfpServer, run_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    event = EVENT + '{"event": "verdict"}\n'
    kfp_api.logs = {
        pod_name("executor#resolve"): f"[resolve] here\n{event}",
        pod_name("executor#train"): "[train] there\n",
    }
    capsys.readouterr()
    assert run_verb(logs, run_id) == 0
    assert capsys.readouterr().out.splitlines()[:-1] == ["== resolve", "[resolve] here", "== train", "[train] there"]
    assert run_verb(logs, "latest", "train") == 0
    assert capsys.readouterr().out.splitlines()[0] == "[train] there"


def test_logs_come_from_the_pods_if_they_can_be_read(
    kfp_api: KfpServer,
    run_id: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    capsys.readouterr()
    with kube_server(kfp_api.server_port) as server:
        server.write_kubeconfig(tmp_path / "kubeconfig")
        labels = f"pipeline/runid={run_id},app.kubernetes.io/component=train"
        server.pods = [
            Pod("pod-3", labels, "second pass, killed\n", "run-7.root.loop.item(1:b).train.executor(0)", "Failed"),
            Pod("pod-1", labels, "second pass\n", "run-7.root.loop.item(1:b).train.executor(1)", "Failed"),
            Pod("pod-2", labels, "first pass\n", "run-7.root.loop.item(0:a).train.executor(0)", "Succeeded"),
        ]
        kfp_api.logs[pod_name("executor#train")] = "from KFP\n"
        assert run_verb(logs, run_id, "train", "--context", "here") == 0
        assert capsys.readouterr().out.splitlines()[:-1] == ["first pass", "second pass"]
        server.status = 403
        assert run_verb(logs, run_id, "train", "--context", "here") == 0
        assert capsys.readouterr().out.splitlines()[0] == "from KFP"


def test_a_pass_that_waits_does_not_hide_the_logs_of_others(
    run_id: str, cluster: KubeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, phase in enumerate(("Running", "Pending", "Failed", "Pending")):
        labels = {"pipeline/runid": run_id, "app.kubernetes.io/component": "train"}
        node = f"run-7.root.loop.item({number // 2}:a).train.executor({number % 2})"
        metadata = client.V1ObjectMeta(name=f"pod-{number}", namespace="kubeflow", labels=labels)
        metadata.annotations = {"workflows.argoproj.io/node-name": node}
        metadata.creation_timestamp = f"2026-01-01T00:00:0{number}Z"
        cluster.add(client.V1Pod(metadata=metadata, status=client.V1PodStatus(phase=phase)))
    cluster.logs |= {"pod-0": "first pass", "pod-2": "second pass, first attempt"}
    assert run_verb(logs, run_id, "train", *HERE) == 0
    assert capsys.readouterr().out.splitlines()[:-1] == ["first pass", "second pass, first attempt"]


def test_a_log_that_cannot_be_read(kfp_api: KfpServer, run_id: str) -> None:
    kfp_api.script("GET .*/log", *[error(403)] * 4)
    with pytest.raises(UserError, match=f"no log of train of run {run_id} can be read; give --context"):
        run_verb(logs, run_id, "train")


def test_the_templates_of_the_steps_pods_are_known(tmp_path: Path) -> None:
    """KFP names a template after the numbers of annotations and labels, and after whether the step is retried."""
    path = compile_pipeline(training, tmp_path / "pipeline.yaml")
    _, platform = yaml.safe_load_all(path.read_text())
    for executor in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        metadata = executor["podMetadata"]
        counts = f"{len(metadata.get('annotations', {}))}-{len(metadata['labels'])}"
        assert f"metadata-{counts}-retry-system-container-impl" in cluster_logs.TEMPLATES


def test_by_default_only_the_steps_own_lines_are_printed(
    kfp_api: KfpServer, run_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kfp_api.logs = {pod_name("executor#train"): _evaluate_log()}
    assert run_verb(logs, run_id, "train") == 0
    assert capsys.readouterr().out.splitlines()[:-1] == ["[evaluate] accuracy 98.2 %"]
    assert run_verb(logs, run_id, "train", "--all") == 0
    assert capsys.readouterr().out.splitlines()[:-1] == _evaluate_log().splitlines()


def test_an_error_document_is_no_log(kfp_api: KfpServer, run_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    kfp_api.script("GET .*/log", *[page(200, NO_LOG, "text/plain; charset=utf-8")] * 7)
    with pytest.raises(UserError, match=f"no log of train of run {run_id} can be read; give --context"):
        run_verb(logs, run_id, "train")
    kfp_api._faults.clear()
    kfp_api.logs = {pod_name("executor#train"): f'[train] the text {{"error_message": is mine\n{NO_LOG}'}
    assert run_verb(logs, run_id, "train") == 0
    assert capsys.readouterr().out.splitlines()[0] == '[train] the text {"error_message": is mine'
    kfp_api.logs = {pod_name("executor#train"): '{"error_message": a line of the step\n'}
    assert run_verb(logs, run_id, "train") == 0


def test_the_log_of_a_cached_step_is_that_of_its_origin(kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The address of its artifact is in the recorded log of a later step."""
    kfp_api.plan = [Stage("SUCCEEDED", {"preprocess": "SUCCEEDED", "executor#preprocess": "SUCCEEDED"})]
    run_verb(run)
    (first,) = kfp_api.runs.values()
    first.run_id = ORIGIN
    kfp_api.runs, kfp_api._plans = {ORIGIN: first}, {ORIGIN: kfp_api.plan}
    cached = {"preprocess": "SUCCEEDED", "executor#preprocess": "SKIPPED", "evaluate-driver": "SUCCEEDED"}
    kfp_api.plan = [Stage("SUCCEEDED", {**cached, "evaluate": "SUCCEEDED", "executor#evaluate": "SUCCEEDED"})]
    run_verb(run)
    capsys.readouterr()
    kfp_api.logs = {
        pod_name("executor#evaluate"): _evaluate_log(),
        pod_name("executor#preprocess"): "[preprocess] 7 images\n",
    }
    second = list(kfp_api.runs)[-1]
    assert run_verb(logs, second, "preprocess") == 0
    assert capsys.readouterr().out.splitlines()[:-1] == [
        f"== preprocess: cached, from run {ORIGIN}",
        "[preprocess] 7 images",
    ]
    document = answered(logs, second)
    assert isinstance(document, logs.LogsDocument)
    assert [(one.step, one.state, one.run_id) for one in document.logs] == [
        ("preprocess", "cached", ORIGIN),
        ("evaluate", "done", second),
    ]
    del kfp_api.runs[ORIGIN]
    with pytest.raises(UserError, match="preprocess: cached, from a run that is not known"):
        run_verb(logs, second, "preprocess")
    with pytest.raises(UserError, match=r"step train of run .* did not run"):
        run_verb(logs, second, "train")


def test_a_step_whose_readers_are_cached_is_traced_by_them(
    kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """`download` is read by `preprocess` alone, which ran in a second run; a third has both from the cache."""
    done = {"download": "SUCCEEDED", "executor#download": "SUCCEEDED"}
    reused = {"download": "SUCCEEDED", "executor#download": "SKIPPED"}
    prepared = {"preprocess": "SUCCEEDED", "executor#preprocess": "SUCCEEDED"}
    plans = [done, reused | prepared, reused | prepared | {"executor#preprocess": "SKIPPED"}]
    plans[2] |= {"register": "SUCCEEDED", "executor#register": "SUCCEEDED"}
    for plan in plans:
        kfp_api.plan = [Stage("SUCCEEDED", plan)]
        run_verb(run)
    first, second, third = kfp_api.runs
    root = "minio://mlpipeline/v2/artifacts/torch2kubeflow-training"
    kfp_api.logs = {
        pod_name("executor#download"): "[download] 7 files\n",
        pod_name("executor#preprocess"): f'"uri": "{root}/{first}/download/1/raw"\n',
        pod_name("executor#register"): f'"uri": "{root}/{second}/preprocess/2/dataset"\n',
    }
    capsys.readouterr()
    assert run_verb(logs, third, "download") == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[:2] == [f"== download: cached, from run {first}", "[download] 7 files"]
    del kfp_api.logs[pod_name("executor#preprocess")]
    with pytest.raises(UserError, match="download: cached, from a run that is not known"):
        run_verb(logs, third, "download")


def _pod(name: str, phase: str = "Running", rank: int | None = None, **labels: str) -> client.V1Pod:
    annotations = {} if rank is None else {RANK: str(rank)}
    metadata = client.V1ObjectMeta(
        name=name,
        namespace="kubeflow",
        labels=labels,
        annotations=annotations,
        creation_timestamp="2026-01-01T00:00:00Z",
    )
    spec = client.V1PodSpec(containers=[client.V1Container(name="main" if rank is None else "node")])
    return client.V1Pod(metadata=metadata, spec=spec, status=client.V1PodStatus(phase=phase))


def _of(run_id: str, step: str) -> dict[str, Any]:
    return {"pipeline/runid": run_id, "app.kubernetes.io/component": step}


def test_times_are_shown_on_demand(
    kfp_api: KfpServer, cluster: KubeServer, run_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.add(_pod("pod-1", **_of(run_id, "train")))
    cluster.logs["pod-1"] = "I1129 13:21:57.632483      16 main.go:67] level\n[train] one\n[train] two"
    assert run_verb(logs, run_id, "train", "--times", *HERE) == 0
    assert capsys.readouterr().out.splitlines()[:-1] == [
        "2026-01-01T00:00:01Z  [train] one",
        "2026-01-01T00:00:02Z  [train] two",
    ]
    cluster.denied = {"list pods"}
    kfp_api.logs = {pod_name("executor#train"): "[train] one\n"}
    assert run_verb(logs, run_id, "train", "--times", *HERE) == 0
    assert "only pods tell the times of lines" in capsys.readouterr().err


def test_following_shows_each_line_once_until_the_run_ends(
    kfp_api: KfpServer, cluster: KubeServer, clock: Clock, run_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.add(
        _pod("resolve-1", "Succeeded", **_of(run_id, "resolve")), _pod("train-1", "Pending", **_of(run_id, "train"))
    )
    cluster.logs["resolve-1"] = "[resolve] here"

    def print_more(text: str) -> Callable[[], None]:
        def more() -> None:
            cluster.add(_pod("train-1", **_of(run_id, "train")))
            cluster.logs["train-1"] = f"{cluster.logs.get('train-1', '')}{text}\n"

        return more

    def end() -> None:
        print_more("[train] three")()
        kfp_api._plans[run_id] = [Stage("SUCCEEDED", TRAINING)]

    clock.after = {2: print_more("[train] one"), 6: print_more("[KFP Executor 1 INFO]: x\n[train] two"), 20: end}
    assert run_verb(logs, run_id, "--follow", *HERE) == 0
    shown = capsys.readouterr().out.splitlines()[:-1]
    assert shown == ["[resolve] here", "[train] one", "[train] two", "[train] three"]


@pytest.mark.slow
def test_all_nodes_of_a_distributed_training_are_shown(
    kfp_api: KfpServer, cluster: KubeServer, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    running = Stage("RUNNING", {"train-distributed": "RUNNING"})
    kfp_api.plan = [running, running, Stage("SUCCEEDED", {})]
    run_verb(run, pipeline=distributed)
    (run_id,) = kfp_api.runs
    capsys.readouterr()
    job = trainjob()
    job["metadata"] |= {"name": "train-7", "labels": {"pipeline/runid": run_id}}
    cluster.custom["trainjobs"] = [job]
    nodes = [_pod(f"node-{rank}", rank=rank, **{JOB_LABEL: "train-7"}) for rank in (0, 1)]
    cluster.add(_pod("step-1", **_of(run_id, "train-distributed")), *nodes)
    cluster.logs = {
        "step-1": "[train-distributed] submitted TrainJob train-7\n[train] epoch 1",
        "node-0": "[train] epoch 1",
        "node-1": "[train] waits for node 0",
    }
    kfp_api._plans[run_id] = [running]
    assert run_verb(logs, run_id, "train-distributed", *HERE, pipeline=distributed) == 0
    assert capsys.readouterr().out.splitlines()[:-1] == [
        "[train-distributed] submitted TrainJob train-7",
        "rank 0  [train] epoch 1",
        "rank 1  [train] waits for node 0",
    ]
    kfp_api._plans[run_id] = [running, running, Stage("SUCCEEDED", {})]
    assert run_verb(logs, run_id, "--follow", "--times", *HERE, pipeline=distributed) == 0
    assert capsys.readouterr().out.splitlines()[:-1] == [
        "2026-01-01T00:00:00Z  [train-distributed] submitted TrainJob train-7",
        "2026-01-01T00:00:01Z  rank 0  [train] epoch 1",
        "2026-01-01T00:00:00Z  rank 1  [train] waits for node 0",
    ]
    kfp_api._plans[run_id] = [Stage("SUCCEEDED", {"train-distributed": "SUCCEEDED"})]
    kfp_api.runs[run_id].runtime_config.parameters = {"nodes": 2}
    cluster.custom["trainjobs"] = []  # deleted by step finish, and their pods with them
    assert run_verb(logs, run_id, "train-distributed", *HERE, pipeline=distributed) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[1] == "rank 0  [train] epoch 1" and shown.err == f"note: {logs.GONE}\n"


def test_without_rights_on_pods_lines_are_followed_in_kfp(
    kfp_api: KfpServer, cluster: KubeServer, clock: Clock, run_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.denied = {"list pods"}
    kfp_api.logs = {pod_name("executor#train"): "[train] one\n"}

    def end() -> None:
        kfp_api.logs = {pod_name("executor#train"): "[train] one\n[train] two\n"}
        kfp_api._plans[run_id] = [Stage("SUCCEEDED", TRAINING)]

    clock.after = {4: end}
    assert run_verb(logs, run_id, "--follow", *HERE) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[:-1] == ["[train] one", "[train] two"]
    assert shown.err.count("Kubernetes forbids you to list pods in namespace kubeflow; ask for that right") == 1


@pytest.mark.slow
def test_the_log_stays_in_the_store_when_the_pods_are_gone(
    kfp_api: KfpServer, cluster: KubeServer, server: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """The place of the object is that of a recorded Workflow: <root>/<pipeline>/<run>/<step>/<id>/executor-logs."""
    kfp_api.plan = [Stage("SUCCEEDED", TRAINING | {"train": "SUCCEEDED", "executor#train": "SUCCEEDED"})]
    run_verb(run)
    (run_id,) = kfp_api.runs
    capsys.readouterr()
    address = server.url.removeprefix("http://")
    cluster.add(launcher(f"minio://{BUCKET}/artifacts", endpoint=address))
    cluster.add(launcher_secret(accesskey=KEY, secretkey=SECRET))
    store = open_store(f"s3://{BUCKET}/artifacts", server.environment)
    folder = f"torch2kubeflow-training/{run_id}/train"
    store.put_bytes(b"[train] the first pass", f"{folder}/0/executor-logs")
    store.put_bytes(b"I1129 13:21:57.632483      16 main.go:67] x\n[train] 98.2 %\n", f"{folder}/1/executor-logs")
    store.put_bytes(b"weights", f"{folder}/1/model")
    assert run_verb(logs, run_id, "train", *HERE) == 0
    assert capsys.readouterr().out.splitlines()[:-1] == ["[train] the first pass", "[train] 98.2 %"]
    cluster.denied = {"get secrets"}
    with pytest.raises(UserError, match=f"no log of train of run {run_id} can be read"):
        run_verb(logs, run_id, "train", *HERE)
    note = "note: what the steps left in KFP's store is not seen from here: Kubernetes refuses to read Secret "
    assert capsys.readouterr().err.count(note) == 1
