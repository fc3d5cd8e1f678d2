"""The verb deploy, against a real S3 server and the emulated KServe: pytest tests/runner/serving/test_deploy.py"""

import json
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

import pipeline
from components.shared.core.errors import CorruptDataError, UserError
from components.shared.serving import rollout
from components.shared.storage.client import Store
from runner.cli import main
from runner.serving import deploy
from runner.verbs.parser import parse
from tests.conftest import ROOT
from tests.servers.kserve.server import KserveServer
from tests.serving.conftest import NAMESPACE
from tests.serving.registered import PATH, register, serving_cluster
from tests.serving.small_models import NAME

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("s3_variables")]


@pytest.fixture
def cluster(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KserveServer]:
    """The cluster, as a kubeconfig names it."""
    monkeypatch.setattr(rollout, "POLL_SECONDS", 0)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.delenv("KFP_NAMESPACE", raising=False)
    with serving_cluster(store, tmp_path) as server:
        server.write_kubeconfig(tmp_path / "kubeconfig")
        yield server


def run(store: Store, *words: str, has_store: bool = True) -> int:
    options = ["--store", store.uri()] if has_store else []
    return deploy.handle(parse(["deploy", *words, "--serving-namespace", NAMESPACE, "--pause", "0", *options]))


def refusal(store: Store, *words: str, has_store: bool = True) -> str:
    with pytest.raises(UserError) as refused:
        run(store, *words, has_store=has_store)
    return str(refused.value)


def test_versions_are_deployed_through_a_port_forward(
    cluster: KserveServer, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(store, f"{NAME}/1") == 0
    shown = capsys.readouterr()
    assert "[deploy] version 1 passes the smoke test: 20 images" in shown.out
    assert "stable  version 1    100 % of the traffic, ready" in shown.out
    assert "note: KFP's SeaweedFS lets in only namespaces" in shown.err
    assert run(store, NAME, "--canary", "20", "--hold") == 0
    shown = capsys.readouterr()
    assert "[deploy] the champion of shades is version 2" in shown.out
    assert (
        "stable  version 1    80 % of the traffic, ready\ncanary  version 2    20 % of the traffic, ready" in shown.out
    )
    assert run(store, NAME, "--rollback", has_store=False) == 0
    assert run(store, NAME) == 0
    assert cluster.objects[PATH]["spec"]["predictor"]["name"] == "v2"


def test_a_failure_has_its_own_exit_code_and_document(
    cluster: KserveServer, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(store, f"{NAME}/1") == 0
    uris = [*cluster.models]
    cluster.models[uris[1]] = cluster.models[uris[0]]
    capsys.readouterr()
    words = ["deploy", NAME, "--store", store.uri(), "--serving-namespace", NAMESPACE, "--json"]
    with pytest.raises(SystemExit) as stop:
        main(lambda: pipeline.GRAPHS, words)
    shown = capsys.readouterr()
    assert stop.value.code == 1, shown.err
    document = json.loads(shown.out)
    jsonschema.validate(document, json.loads((ROOT / "docs/schemas/deploy.json").read_text()))
    assert document["failure"].startswith(
        "version 2 fails the smoke test: the served and the registered version differ"
    )
    assert document["service"]["stable"]["version"] == 1 and document["service"]["canary"] is None


def test_a_version_without_images_is_deployed_on_request(
    cluster: KserveServer, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    register(store, tmp_path / "3", 3, keeps_images=False)
    text = refusal(store, NAME)
    assert text.startswith("shades version 3 keeps no test images") and "--no-smoke-test" in text
    assert PATH not in cluster.objects
    assert run(store, NAME, "--no-smoke-test") == 0
    assert "[deploy] no smoke test, as asked" in capsys.readouterr().out


def test_a_damaged_version_is_not_deployed(cluster: KserveServer, store: Store) -> None:
    store.put_bytes(b"other", f"models/{NAME}/versions/2/serving/{NAME}/1/model.onnx")
    with pytest.raises(CorruptDataError, match=r"model\.onnx"):
        run(store, NAME)
    assert PATH not in cluster.objects


def test_mistakes_are_refused_in_one_line(cluster: KserveServer, store: Store) -> None:
    assert "the store of `make run` is on this machine, where no cluster can read it" in refusal(
        store, NAME, has_store=False
    )
    assert "has no version 9; it has versions 1 to 2" in refusal(store, f"{NAME}/9")
    assert "has no model other; it has shades" in refusal(store, "other")
    assert "a/b/c is not a model; give NAME, NAME/VERSION" in refusal(store, "a/b/c")
    assert "there is no InferenceService shades in namespace serve" in refusal(store, NAME, "--status", has_store=False)
    assert "omit --store" in refusal(store, f"{store.uri()}/models/{NAME}/versions/1")
    for words in (
        ["--canary", "50,10"],
        ["--canary", "100"],
        ["--canary", "x"],
        ["--pause", "-1"],
        ["--status", "--rollback"],
    ):
        with pytest.raises(SystemExit) as stop:
            parse(["deploy", NAME, *words])
        assert stop.value.code == 2
