"""A training run that a step starts by KFP's API: against the fake server, with one user and with many."""

import base64
import io
import json
import re
from datetime import UTC, datetime
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import OpenerDirector, Request

import kfp_server_api as api
import pytest
import yaml
from kfp import dsl

from components.shared.core import pod
from components.shared.core.errors import TransientError, UserError
from components.shared.prediction.training_run import RIGHTS, Started, Wanted, start_in_cluster, start_run
from runner.cluster import upload
from tests.runner.verbs import changed_pipeline, resolve, run_verb
from tests.servers.kfp_http import Answer, cut, error, lost, page
from tests.servers.kfp_server import KfpServer

ROOT = Path(__file__).parents[2]
WANTED = Wanted("retrain-mnist-abc", {"data": "s3://bucket/new", "epochs": 5, "batch_size": 64})
CLAIMS = {"kubernetes.io": {"serviceaccount": {"name": "default-editor"}}}
NO_RIGHT = "User 'system:serviceaccount:team-a:default-editor' is not authorized"


@dsl.pipeline(name="torch2kubeflow-training", description="One with options.")
def pipeline(data: str = "mnist", batch_size: str = "1", options: dict[str, Any] = {}) -> None:  # noqa: B006
    resolve(data=data, epochs=3)


@pytest.fixture
def own(kfp_api: KfpServer, monkeypatch: pytest.MonkeyPatch) -> api.V2beta1Run:
    """The run of this step, of a KFP that has two versions of the pipeline."""
    run_verb(upload, pipeline=changed_pipeline)
    run_verb(upload, pipeline=pipeline)
    kfp_api.experiments["e1"] = api.V2beta1Experiment(experiment_id="e1", display_name="torch2kubeflow")
    given = {"data": "old", "node_selector": {"disk": "ssd"}, "options": {"s3_secret": "mine", "drift_threshold": 1}}
    config = api.V2beta1RuntimeConfig(parameters=given, pipeline_root="minio://mine")
    run = kfp_api.add_run(experiment_id="e1", runtime_config=config, service_account="pipeline-runner")
    monkeypatch.setenv("RUN_ID", run.run_id)
    kfp_api.requests.clear()
    return run


def _started(kfp_api: KfpServer, own: api.V2beta1Run) -> api.V2beta1Run:
    (run,) = [run for run in kfp_api.runs.values() if run is not own]
    return run


def test_the_newest_version_is_started_beside_the_own_run(kfp_api: KfpServer, own: api.V2beta1Run) -> None:
    assert start_run(WANTED) == start_in_cluster(WANTED), "the second is the same run"
    run = _started(kfp_api, own)
    newest = max(kfp_api.versions.values(), key=lambda version: version.created_at)
    assert run.pipeline_version_reference.pipeline_version_id == newest.pipeline_version_id
    assert (run.display_name, run.experiment_id, run.service_account) == (WANTED.name, "e1", "pipeline-runner")
    assert run.runtime_config.pipeline_root == "minio://mine"
    options = {"epochs": 5, "node_selector": {"disk": "ssd"}, "s3_secret": "mine"}
    assert run.runtime_config.parameters == {"data": "s3://bucket/new", "batch_size": "64", "options": options}
    assert not any(request.headers.get("authorization") for request in kfp_api.requests)


@pytest.mark.usefixtures("own")
def test_a_version_without_options_is_not_started(kfp_api: KfpServer) -> None:
    oldest = min(kfp_api.versions.values(), key=lambda version: version.created_at)
    kfp_api.versions = {oldest.pipeline_version_id: oldest}
    with pytest.raises(UserError, match=r"torch2kubeflow-training does not know .*epochs; run `python pipeline.py upl"):
        start_in_cluster(WANTED)
    kfp_api.versions = {}
    with pytest.raises(UserError, match=r"torch2kubeflow-training is not uploaded; run `python pipeline\.py upload`"):
        start_in_cluster(WANTED)
    assert not kfp_api.asked("POST .*")


def test_an_answer_that_is_lost_starts_no_second_run(kfp_api: KfpServer, own: api.V2beta1Run) -> None:
    kfp_api.script("POST /runs", lost)
    assert start_in_cluster(WANTED) == Started(_started(kfp_api, own).run_id)
    assert len(kfp_api.asked("POST /runs")) == 1


@pytest.mark.usefixtures("own", "waits")
@pytest.mark.parametrize("route, answer", [("POST /runs", cut), ("POST /runs", error(503)), ("GET /runs", cut)])
def test_what_fails_by_chance_is_reported_as_such(kfp_api: KfpServer, route: str, answer: Answer) -> None:
    kfp_api.script(route, *[answer] * 5)
    with pytest.raises(
        TransientError, match=rf"KFP at {kfp_api.url} (answered 503|could not be reached).*; run it again"
    ):
        start_in_cluster(WANTED)
    assert len(kfp_api.runs) == 1, "the own one"


@pytest.mark.usefixtures("own", "waits")
def test_reading_is_tried_again(kfp_api: KfpServer) -> None:
    kfp_api.script("GET /(healthz|runs|pipelines)", cut, error(503), error(502))
    start_in_cluster(WANTED)
    assert len(kfp_api.runs) == 2


@pytest.mark.usefixtures("own")
def test_a_refusal_is_one_line(kfp_api: KfpServer) -> None:
    kfp_api.script("POST /runs", error(403, NO_RIGHT), page(200))
    with pytest.raises(
        UserError, match=rf"^KFP refuses POST /runs \(403\): {NO_RIGHT}; bind the Role torch2kubeflow-re"
    ):
        start_in_cluster(WANTED)
    with pytest.raises(UserError, match=r"is not KFP \(200\); check KF_PIPELINES_ENDPOINT"):
        start_in_cluster(WANTED)


@pytest.fixture
def in_profile(kfp_api: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A pod in the namespace team-a of a KFP with many users; Kubernetes answers the list of requests for tokens."""
    answers: list[Any] = []
    payload = base64.urlsafe_b64encode(json.dumps(CLAIMS).encode()).decode().rstrip("=")

    def answer(_: OpenerDirector, request: Request, **__: object) -> io.BytesIO:
        path = "/api/v1/namespaces/team-a/serviceaccounts/default-editor/token"
        assert request.full_url == f"https://10.0.0.1:443{path}" and request.get_method() == "POST"
        assert isinstance(request.data, bytes)
        assert json.loads(request.data)["spec"] == {"audiences": ["pipelines.kubeflow.org"], "expirationSeconds": 600}
        if not answers:
            raise HTTPError(request.full_url, 403, "Forbidden", Message(), None)
        return io.BytesIO(json.dumps({"status": {"token": answers[0]}}).encode())

    kfp_api.multi_user, kfp_api.namespaces, kfp_api.token = True, {"team-a"}, "for KFP"
    for name, text in {"token": f"x.{payload}.y\n", "namespace": "team-a"}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr(pod, "ACCOUNT", tmp_path)
    monkeypatch.setattr(OpenerDirector, "open", answer)
    monkeypatch.setattr("ssl.create_default_context", lambda cafile: None)
    return answers


def test_in_a_profile_the_account_gets_a_token_for_kfp(
    kfp_api: KfpServer, own: api.V2beta1Run, in_profile: list[Any]
) -> None:
    for one in (*kfp_api.pipelines.values(), *kfp_api.experiments.values()):
        one.namespace = "team-a"
    earlier = datetime(2025, 1, 1, tzinfo=UTC)
    shared = api.V2beta1Pipeline(pipeline_id="p", display_name="torch2kubeflow-training", created_at=earlier)
    kfp_api.pipelines["p"] = shared
    in_profile.append("for KFP")
    started = start_in_cluster(WANTED)
    assert started == Started(_started(kfp_api, own).run_id)
    assert not kfp_api.asked("GET /pipelines/p/versions"), "the namespace's own comes first"
    (listed,) = kfp_api.asked("GET /pipelines")
    assert listed.query["namespace"] == "team-a" and listed.headers["authorization"] == "Bearer for KFP"
    in_profile[0] = "of another audience"
    with pytest.raises(UserError, match=r"^KFP refuses GET /runs \(401\): .*; bind the Role torch2kubeflow-retrain"):
        start_in_cluster(WANTED)


def test_the_role_has_what_starting_a_run_asks_for(
    kfp_api: KfpServer, own: api.V2beta1Run, in_profile: list[Any]
) -> None:
    """Versions of a pipeline need rights to the pipeline; the token's request is that of the fixture."""
    in_profile.append("for KFP")
    for one in (*kfp_api.pipelines.values(), *kfp_api.experiments.values()):
        one.namespace = "team-a"
    start_in_cluster(WANTED)
    verbs = {r"GET /(\w+)": "list", r"GET /(\w+)/[^/]+": "get", r"POST /(\w+)": "create", r"GET /(\w+)/.*/\w+": "get"}
    found = ((re.fullmatch(route, str(one)), verb) for one in kfp_api.requests for route, verb in verbs.items())
    asked = {(match[1], verb) for match, verb in found if match and match[1] != "healthz"}
    documents = yaml.safe_load_all((ROOT / "manifests/overlays/multi-user/rbac.yaml").read_text())
    (role,) = [one for one in documents if one["metadata"]["name"] in RIGHTS]
    *of_kfp, of_token = role["rules"]
    assert {(rule["resources"][0], verb) for rule in of_kfp for verb in rule["verbs"]} == asked
    assert all(rule["apiGroups"] == ["pipelines.kubeflow.org"] for rule in of_kfp)
    token = {"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]}
    assert of_token == {**token, "resourceNames": ["default-editor"]}


@pytest.mark.usefixtures("own", "in_profile")
def test_without_the_right_to_a_token_it_is_said() -> None:
    message = (
        r"Kubernetes gives this pod no token for KFP \(HTTP Error 403: Forbidden\); bind the Role torch2kubeflow-re"
    )
    with pytest.raises(UserError, match=message):
        start_in_cluster(WANTED)
