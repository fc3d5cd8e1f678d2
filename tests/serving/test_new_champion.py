"""A champion deployed from a pod, against a real S3 server and the emulated KServe."""

from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from components.resolve import resolve
from components.shared.core import pod
from components.shared.core.errors import UserError
from components.shared.parameters.registration import RegisterRecipe
from components.shared.serving import inside, kubernetes_api, new_champion, rollout
from components.shared.serving.new_champion import deploy_champion
from components.shared.serving.rollout import Failed
from components.shared.storage.client import Store
from tests.servers.kserve.server import KserveServer
from tests.serving.conftest import NAMESPACE
from tests.serving.registered import PATH, serving_cluster
from tests.serving.small_models import NAME
from tests.small_packages import right, write_artifacts, write_dataset

IMAGES = 700

pytestmark = pytest.mark.usefixtures("s3_variables")


@pytest.fixture
def cluster(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KserveServer]:
    """A cluster, in a pod of which this process seems to be: its DNS has the Services of the predictors."""
    monkeypatch.setattr(rollout, "POLL_SECONDS", 0)
    monkeypatch.setattr(pod, "ACCOUNT", tmp_path)
    (tmp_path / "namespace").write_text(NAMESPACE)
    with serving_cluster(store, tmp_path) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(kubernetes_api, "load_incluster_config", lambda found: setattr(found, "host", address))

        def connect(host: str, port: int, timeout: float) -> HTTPConnection:
            (served,) = (
                served
                for uri, served in server.models.items()
                if host == f"{NAME}-v{uri.split('/')[-2]}-predictor.{NAMESPACE}.svc"
            )
            return HTTPConnection("127.0.0.1", served, timeout=timeout)

        monkeypatch.setattr(inside, "HTTPConnection", connect)
        yield server


def deploy(store: Store, version: int) -> None:
    recipe = RegisterRecipe.of(store=store.uri(), deploy=True, canary=[20, 60], canary_pause=0)
    deploy_champion(NAME, version, recipe)


@pytest.mark.slow
def test_a_new_champion_takes_the_place_of_the_old_one(
    cluster: KserveServer, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    deploy(store, 1)
    deploy(store, 2)
    spec = cluster.objects[PATH]["spec"]
    assert spec["predictor"]["name"] == "v2" and not spec.get("canary")
    shown = capsys.readouterr().out
    assert "[deploy] version 2 passes the smoke test: 20 images" in shown
    assert "version 2 gets 20 % of the traffic" in shown and "version 2 gets 60 % of the traffic" in shown
    before = len(cluster.changes)
    deploy(store, 2)
    assert len(cluster.changes) == before, "what serves already is left as it is"


@pytest.mark.slow
def test_a_version_that_predicts_something_else_is_taken_back(cluster: KserveServer, store: Store) -> None:
    deploy(store, 1)
    first, second = cluster.models
    cluster.models[second] = cluster.models[first]
    with pytest.raises(Failed, match="version 2 fails the smoke test"):
        deploy(store, 2)
    spec = cluster.objects[PATH]["spec"]
    assert spec["predictor"]["name"] == "v1" and not spec.get("canary")


@pytest.mark.parametrize(
    ("store", "options", "refusal"),
    [
        ("", {}, r"store= is empty, .* give store="),
        ("s3://bucket", {"keep_samples": False}, "keep_samples=false"),
        ("s3://bucket", {"canary": [50, 10]}, r"canary=\[50,10\]"),
        ("s3://bucket", {}, "this run is in none; omit it, and deploy by python pipeline.py deploy"),
    ],
)
def test_a_deployment_is_refused_before_anything_is_done(store: str, options: dict[str, Any], refusal: str) -> None:
    with pytest.raises(UserError, match=refusal):
        resolve(graph="training", data="digits", store=store, options={"deploy": True, **options})


def test_a_run_deploys_what_it_has_made_the_champion(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(tmp_path / "dataset", IMAGES)
    deployed: list[tuple[str, int]] = []
    monkeypatch.setattr(new_champion, "deploy_champion", lambda name, version, recipe: deployed.append((name, version)))
    for number, correct in enumerate((600, 650, 500)):
        artifacts = write_artifacts(tmp_path / str(number), tmp_path / "dataset", right(IMAGES, range(correct)))
        artifacts.register(tmp_path / f"out-{number}", store.uri(), deploy=number != 0)
    assert deployed == [("light-dark", 2)], "the first did not ask for it, and the third is not better"
