"""Verb `upload` against a server of KFP's API."""

import re

import kfp_server_api
import pytest

from runner.cluster import upload
from tests.runner.verbs import changed_pipeline, run_verb
from tests.servers.kfp_http import Answer, error, lost, page
from tests.servers.kfp_server import KfpServer


def test_the_first_upload_creates_pipeline_and_version(kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb(upload) == 0
    (pipeline,), (version,) = kfp_api.pipelines.values(), kfp_api.versions.values()
    assert pipeline.display_name == "torch2kubeflow-training"
    assert re.fullmatch(r"[\w.-]+-[0-9a-f]{12}", version.display_name)
    line, link = capsys.readouterr().out.splitlines()
    assert line == f"uploaded version {version.display_name} of torch2kubeflow-training"
    path = f"{pipeline.pipeline_id}/version/{version.pipeline_version_id}"
    assert link == f"{kfp_api.url}/#/pipelines/details/{path}"


def test_the_same_content_is_not_uploaded_again(kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb(upload) == run_verb(upload) == 0
    assert len(kfp_api.versions) == 1
    assert "nothing to upload: version " in capsys.readouterr().out
    assert len(kfp_api.asked("POST .*")) == 2


def test_other_content_is_a_new_version(kfp_api: KfpServer) -> None:
    run_verb(upload)
    run_verb(upload, pipeline=changed_pipeline)
    run_verb(upload)
    assert len(kfp_api.pipelines) == 1
    assert len(kfp_api.versions) == 2


@pytest.mark.parametrize("route", ["POST /pipelines", "POST /pipelines/upload_version"])
@pytest.mark.parametrize("fault", [lost, error(409)], ids=["answer lost", "name taken"])
def test_the_second_of_two_uploads_takes_the_first(kfp_api: KfpServer, route: str, fault: Answer) -> None:
    """Two uploads at once, and an upload whose answer is lost, end with one version."""
    if fault is not lost:
        run_verb(upload)
        # The first request does not find it yet.
        empty = page(200, "{}", "application/json")
        kfp_api.script("GET /pipelines" if route == "POST /pipelines" else "GET /pipelines/.*/versions", empty)
    kfp_api.script(route, fault)
    assert run_verb(upload) == 0
    assert len(kfp_api.pipelines) == len(kfp_api.versions) == 1


def test_each_namespace_has_its_own_pipeline(kfp_api: KfpServer) -> None:
    kfp_api.multi_user, kfp_api.namespaces = True, {"team-a", "team-b"}
    shared = kfp_server_api.V2beta1Pipeline(
        pipeline_id="7", display_name="torch2kubeflow-training", created_at=kfp_api.now()
    )
    kfp_api.pipelines["7"] = shared
    for namespace in ("team-a", "team-b", "team-a"):
        assert run_verb(upload, "--namespace", namespace) == 0
    assert [pipeline.namespace for pipeline in kfp_api.pipelines.values()] == [None, "team-a", "team-b"]
    assert len(kfp_api.versions) == 2
