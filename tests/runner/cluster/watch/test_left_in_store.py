"""The verdict and the version as the artifacts of evaluate and register have them, in the store of KFP's artifacts.

Where KFP puts an artifact is that of a recorded Workflow: <root>/<pipeline>/<run>/<step>/<id>/<artifact>.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.finish import RecordDocument
from components.shared.core.log import EVENT
from components.shared.evaluation.document import EvaluationDocument
from components.shared.evaluation.metrics import measure
from components.shared.parameters.evaluation import Gates
from components.shared.registry.document import RegistrationDocument
from components.shared.storage.client import Store
from pipeline import distributed, sweep
from runner.control import status, stop
from tests.runner.cluster.watch.conftest import CONTEXT, Watched
from tests.runner.cluster.watch.test_verdicts import ORIGIN, cached, event, pod
from tests.runner.doctor.objects import launcher, launcher_secret, s3_config, secret
from tests.runner.verbs import run_verb
from tests.servers.kfp_server import KfpServer
from tests.servers.kube_server import KubeServer
from tests.servers.recorded_cluster import ended_run, log_of_evaluate, run_of
from tests.servers.s3_server import KEY, SECRET, S3Server

pytestmark = pytest.mark.slow
PIPELINE = "torch2kubeflow-training"
UNSEEN = "what the steps left in KFP's store is not seen from here"
Leave = Callable[[str, str, bytes], None]


def evaluation(min_accuracy: float = 0.5) -> bytes:
    """The document of a model that has 3 of 4 right."""
    metrics = measure(np.eye(2, dtype=np.float32)[[0, 1, 0, 0]], np.array([0, 1, 0, 1]), ["no", "yes"])
    return EvaluationDocument(
        **dict(metrics.judge(Gates(min_accuracy=min_accuracy, min_recall=0.0))),
        **dict(metrics),
        dataset="digits",
        dataset_digest="1" * 64,
        model_digest="2" * 64,
        code_version="1",
        seconds={},
    ).to_json()


def registration(version: int | None = 4, digest: str | None = "3" * 64) -> bytes:
    fields: dict[str, Any] = {"name": "digits", "is_champion": False, "reason": "not better", "figures": None}
    return RegistrationDocument(**fields, version=version, uri=None, package_digest=digest).to_json()


@pytest.fixture
def leave(cluster: KubeServer, server: S3Server, store: Store, uri: str) -> Leave:
    """Put an artifact of the run into the store that KFP's launcher has."""
    cluster.add(launcher(uri.replace("s3://", "minio://"), endpoint=server.address))
    cluster.add(launcher_secret(accesskey=KEY, secretkey=SECRET))

    def put(run_id: str, name: str, content: bytes) -> None:
        step = {"evaluation": "evaluate", "registration": "register"}[name]
        store.put_bytes(content, f"{PIPELINE}/{run_id}/{step}/543dd048/{name}/{name}.json")

    return put


def summary(folder: Path, run_id: str) -> tuple[Any, ...]:
    found = json.loads((folder / run_id / "summary.json").read_text())
    registered = found["registered"]
    return found["test_accuracy"], found["accepted"], found["reasons"], registered and registered["version"]


def test_the_store_tells_what_the_logs_do_not(
    kfp_api: KfpServer, cluster: KubeServer, watched: Watched, tmp_path: Path, leave: Leave
) -> None:
    run = ended_run()
    leave(run.run_id, "evaluation", evaluation(min_accuracy=0.8))
    leave(run.run_id, "registration", registration())
    kfp_api.logs[pod("evaluate")] = event("verdict", accuracy=0.1, accepted=True, reasons=[])
    run_id = kfp_api.replay("training", run)
    watched(run_id, *CONTEXT)
    assert summary(tmp_path, run_id) == (0.75, False, ["accuracy 0.75 is below min_accuracy=0.8"], 4)
    cluster.denied = {"get secrets"}
    _, shown = watched(run_id, *CONTEXT)
    assert summary(tmp_path, run_id) == (0.1, True, [], None), "the logs, if the store cannot be read"
    assert UNSEEN not in shown, "nothing is missing"
    kfp_api.logs.clear()
    _, shown = watched(run_id, *CONTEXT)
    assert summary(tmp_path, run_id) == (None, None, None, None)
    assert shown.count(f"{UNSEEN}: Kubernetes refuses to read Secret") == 1


def test_of_stale_tasks_the_store_tells_the_verdict(
    kfp_api: KfpServer, cluster: KubeServer, watched: Watched, tmp_path: Path, store: Store, leave: Leave
) -> None:
    """Of the recorded run, which succeeded, KFP has tasks that are pending, and Argo's Workflow cannot be read."""
    cluster.denied = {"list pods", "list workflows"}
    run_id = kfp_api.replay("sweep", run_of("stale"))
    code, shown = watched(run_id, *CONTEXT, graph=sweep)
    assert (code, *summary(tmp_path, run_id)) == (0, None, None, None, None)
    assert "verdict        not known\n" in shown
    kept = {"evaluate": ("evaluation", evaluation(0.8)), "register": ("registration", registration(7))}
    for step, (name, content) in kept.items():
        store.put_bytes(content, f"torch2kubeflow-sweep/{run_id}/{step}/543dd048/{name}/{name}.json")
    _, shown = watched(run_id, *CONTEXT, graph=sweep)
    assert summary(tmp_path, run_id) == (0.75, False, ["accuracy 0.75 is below min_accuracy=0.8"], 7)
    assert "verdict        not accepted, not exported: accuracy 0.75 is below min_accuracy=0.8\n" in shown


def test_a_run_may_have_a_root_of_its_own(
    kfp_api: KfpServer, cluster: KubeServer, watched: Watched, tmp_path: Path, server: S3Server, uri: str, leave: Leave
) -> None:
    run = ended_run()
    leave(run.run_id, "evaluation", evaluation())
    cluster.add(launcher("minio://bucket/elsewhere", endpoint=server.address))
    run_id = kfp_api.replay("training", run)
    watched(run_id, *CONTEXT)
    assert summary(tmp_path, run_id)[0] is None
    run.runtime_config.pipeline_root = uri.replace("s3://", "minio://")
    watched(run_id, *CONTEXT)
    assert summary(tmp_path, run_id)[0] == 0.75


def test_a_cached_verdict_is_read_where_its_run_left_it(
    kfp_api: KfpServer, watched: Watched, tmp_path: Path, leave: Leave
) -> None:
    """The run that it is from was deleted, and with it its log."""
    run = cached(ended_run())
    leave(ORIGIN, "evaluation", evaluation())
    address = f"minio://mlpipeline/v2/artifacts/{PIPELINE}/{ORIGIN}/evaluate/543dd048/evaluation"
    kfp_api.logs[pod("register")] = log_of_evaluate().partition('"outputs"')[0] + f'"uri": "{address}"\n'
    run_id = kfp_api.replay("training", run)
    _, shown = watched(run_id, *CONTEXT)
    assert summary(tmp_path, run_id) == (0.75, True, [], None)
    assert f"test accuracy  75.00% (cached, from run {ORIGIN})" in shown


@pytest.mark.parametrize(("digest", "accepted"), [("3" * 64, True), (None, False)])
def test_without_the_evaluation_register_tells_the_verdict(
    kfp_api: KfpServer, watched: Watched, tmp_path: Path, leave: Leave, digest: str | None, accepted: bool
) -> None:
    run_id = kfp_api.replay("training", cached(ended_run()))
    leave(run_id, "registration", registration(None, digest))
    watched(run_id, *CONTEXT)
    assert summary(tmp_path, run_id) == (None, accepted, None, None)


def test_the_record_of_a_stopped_run_is_corrected(
    kfp_api: KfpServer,
    cluster: KubeServer,
    watched: Watched,
    server: S3Server,
    store: Store,
    uri: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cluster.add(s3_config(server.url))
    cluster.add(secret("torch2kubeflow-s3", AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET))

    def replay(name: str, graph: str) -> str:
        run = run_of(name)
        run.runtime_config.parameters = {"options": {"store": uri}}
        return kfp_api.replay(graph, run)

    def record(run_id: str) -> None:
        told: Any = {"run_id": run_id, "run_name": "a", "graph": "training", "error": "", "parameters": {"store": uri}}
        store.put_bytes(RecordDocument(state="FAILED", **told).to_json(), f"runs/{run_id}.json")

    def recorded(run_id: str) -> str:
        return str(RecordDocument.parse(store.get_bytes(f"runs/{run_id}.json")[0], "record").state)

    record(failed := replay("killed", "training"))
    watched(failed, *CONTEXT)
    assert recorded(failed) == "FAILED"
    watched(run_id := replay("stopped", "distributed"), *CONTEXT, graph=distributed)
    assert not store.exists(f"runs/{run_id}.json"), "none is made"
    record(run_id)
    unseen = "the record of the run in its store may say that it failed: "
    _, shown = watched(run_id, graph=distributed)
    assert unseen + "only KFP's API was reached; give --context too" in shown and recorded(run_id) == "FAILED"
    code, shown = watched(run_id, *CONTEXT, graph=distributed)
    assert (code, recorded(run_id)) == (3, "CANCELED") and unseen not in shown
    for verb in (stop, status):
        record(run_id)
        assert run_verb(verb, run_id, *CONTEXT, pipeline=distributed) == 0
        assert recorded(run_id) == "CANCELED"
    cluster.denied = {"get secrets"}
    run_verb(stop, run_id, *CONTEXT, pipeline=distributed)
    assert f"note: {unseen}Kubernetes refuses to read Secret torch2kubeflow-s3" in capsys.readouterr().err


def test_a_damaged_document_gives_no_verdict(
    kfp_api: KfpServer, watched: Watched, tmp_path: Path, leave: Leave
) -> None:
    run_id = kfp_api.replay("training", ended_run())
    leave(run_id, "evaluation", evaluation().replace(b'"accepted": true', b'"accepted": false'))
    _, shown = watched(run_id, *CONTEXT)
    assert summary(tmp_path, run_id) == (None, None, None, None)
    assert f"{UNSEEN}: evaluation.json of run {run_id} has no valid field 'reasons'" in shown
    kfp_api.logs[pod("evaluate")] = f"{EVENT}{json.dumps({'event': 'verdict', 'accuracy': 0.5, 'accepted': True})}\n"
    watched(run_id, *CONTEXT)
    assert summary(tmp_path, run_id)[:2] == (0.5, True)
