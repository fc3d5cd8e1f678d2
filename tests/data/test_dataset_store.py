"""Datasets are prepared once for all runs: reused from the store if they are intact there, local or remote."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.download import download
from components.evaluate import evaluate
from components.export import export
from components.preprocess import preprocess
from components.register import register
from components.shared.core.errors import TransientError, UserError
from components.shared.core.files import read_json, sha256_json
from components.shared.data.dataset import SPLITS, Dataset, open_dataset
from components.shared.data.dataset_store import read_recipe
from components.shared.parameters.evaluation import EvaluateRecipe, ExportRecipe
from components.shared.parameters.preparation import PreprocessRecipe
from components.shared.parameters.registration import RegisterRecipe
from components.shared.storage import conditions
from components.shared.storage.client import Store, open_store
from components.train import train
from tests.data.versions import READING, version_of
from tests.parameters.texts import recipe_text
from tests.servers.s3_server import BUCKET, Proxy, S3Server, forward, hang_up
from tests.trained_digits import training_recipe

SETTINGS = {"image_size": 32, "val_fraction": 0.1, "test_fraction": 0.2, "max_bad_images": 0, "seed": 0}
SIZES = pytest.mark.parametrize("handover_mib", [0, 1024], ids=["remote", "local"])

pytestmark = pytest.mark.slow  # each needs the real server


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "raw"
    download(data="digits", version=version_of("digits"), recipe=READING, needs_labels=True, raw=str(folder))
    return folder


@pytest.fixture(scope="module")
def plain(raw: Path) -> Dataset:
    """The digits, prepared without a store."""
    return prepare(raw, raw.parent / "plain", "", 0)


@pytest.fixture
def uri(s3_proxy: Proxy, tmp_path: Path) -> str:
    """A store of the test's own."""
    return f"s3://{BUCKET}/{tmp_path.name}"


@pytest.fixture
def store(server: S3Server, uri: str) -> Store:
    return open_store(uri, server.environment)


@pytest.fixture
def undecoded(raw: Path, tmp_path: Path) -> Path:
    """The digits without their pixels: nothing can be decoded."""
    folder = tmp_path / "undecoded"
    folder.mkdir()
    shutil.copy(raw / "raw.json", folder)
    return folder


def prepare(raw: Path, dataset: Path, store: str, handover_mib: int, **settings: Any) -> Dataset:
    given = {**SETTINGS, "store": store, "handover_mib": handover_mib, **settings}
    recipe = recipe_text(PreprocessRecipe, **given)
    preprocess(raw=str(raw), recipe=recipe, prepared_by="", dataset=str(dataset))
    return open_dataset(dataset)


def assert_same(found: Dataset, expected: Dataset) -> None:
    assert found.digest == expected.digest
    assert (found.folder / "samples.png").read_bytes() == (expected.folder / "samples.png").read_bytes()
    varying = {"seconds", "checksum", "shards"}
    assert {k: v for k, v in found.document.fields().items() if k not in varying} == {
        k: v for k, v in expected.document.fields().items() if k not in varying
    }
    for split in SPLITS:
        for images, expected_images in zip(found.load(split), expected.load(split), strict=True):
            np.testing.assert_array_equal(images, expected_images)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def documents(store: Store) -> list[str]:
    return [entry.name for entry in store.list("datasets") if entry.name.endswith(".json")]


def clear_cache(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)


def written(proxy: Proxy) -> list[str]:
    """Return the paths of all objects that were written, but for those that only try the server."""
    paths = [path for method, path, _ in proxy.asked if method in ("PUT", "POST")]
    return [path for path in paths if not path.endswith(f"/{conditions.PROBE}")]


@SIZES
def test_a_second_preparation_uploads_only_documents(
    raw: Path,
    undecoded: Path,
    plain: Dataset,
    uri: str,
    store: Store,
    s3_proxy: Proxy,
    tmp_path: Path,
    handover_mib: int,
) -> None:
    assert_same(prepare(raw, tmp_path / "first", uri, handover_mib), plain)
    (document,) = documents(store)
    stored = store.get_bytes(document)
    sent = written(s3_proxy)
    assert len(sent) == 6 + 4  # shards, sheet, index, document and its entry among the prepared
    assert_same(prepare(undecoded, tmp_path / "second", uri, handover_mib), plain)
    assert written(s3_proxy) == [*sent, f"/{store.uri(document).removeprefix('s3://')}", sent[-1]]
    assert store.get_bytes(document) == stored


def test_a_small_dataset_has_the_files_of_a_run_without_store(
    raw: Path, plain: Dataset, uri: str, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        found = prepare(raw, tmp_path / name, uri, 1024)
        assert names(found.folder) == names(plain.folder)
        for path in plain.folder.glob("*.npy"):
            assert path.read_bytes() == (found.folder / path.name).read_bytes()
        assert not found.is_remote


def test_a_large_dataset_becomes_remote(raw: Path, uri: str, tmp_path: Path) -> None:
    for name in ("first", "second"):
        found = prepare(raw, tmp_path / name, uri, 1)  # of 1.8 MB
        assert names(found.folder) == {"dataset.json", "samples.png"}
        assert found.document.shards == f"{uri}/datasets/shards"


def test_a_reused_remote_dataset_reads_no_images(
    raw: Path, undecoded: Path, plain: Dataset, uri: str, s3_proxy: Proxy, tmp_path: Path
) -> None:
    first = prepare(raw, tmp_path / "first", uri, 0)
    clear_cache(tmp_path)
    s3_proxy.asked.clear()
    prepare(undecoded, tmp_path / "second", uri, 0)
    read = {path.rpartition("/")[2] for method, path, _ in s3_proxy.asked if method == "GET"}
    images = {f"{file.sha256}.npy" for file in first.files() if file.path.endswith(".images.npy")}
    labels = {f"{file.sha256}.npy" for file in first.files() if file.path.endswith(".labels.npy")}
    assert not images & read and labels <= read


def test_other_settings_or_code_are_prepared_separately(
    raw: Path, uri: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(raw, tmp_path / "a", uri, 1024)
    assert prepare(raw, tmp_path / "b", uri, 1024, seed=1).digest != first.digest
    monkeypatch.setattr("components.preprocess.code_digest", lambda _: "other")
    assert prepare(raw, tmp_path / "c", uri, 1024).digest == first.digest
    assert len(documents(store)) == 3


def test_the_document_describes_the_current_run(raw: Path, uri: str, tmp_path: Path) -> None:
    prepare(raw, tmp_path / "first", uri, 1024)
    same = shutil.copytree(raw, tmp_path / "same")
    document = json.loads((same / "raw.json").read_bytes())
    document |= {"name": "Ziffern", "source": "file:///ziffern", "seconds": {"download": 77.0}}
    (same / "raw.json").write_text(json.dumps(document))
    found = prepare(same, tmp_path / "second", uri, 1024).document
    assert (found.name, found.source, found.seconds["download"]) == ("Ziffern", "file:///ziffern", 77.0)


def replace(server: S3Server, store: Store, name: str, content: bytes) -> None:
    """Write an object as a bad disk or a stranger would, without the client's digests."""
    key = store.uri(name).removeprefix(f"s3://{BUCKET}/")
    server.client.put_object(BUCKET, key, BytesIO(content), len(content))


def sealed(document: dict[str, Any]) -> bytes:
    """Return the document as a stranger would write it: with a valid checksum."""
    rest = {name: value for name, value in document.items() if name != "checksum"}
    return json.dumps({**rest, "checksum": sha256_json(rest)}).encode()


def flipped(content: bytes) -> bytes:
    return content[:-40] + bytes([content[-40] ^ 1]) + content[-39:]


DAMAGES = {
    "shard-flipped": (".images.npy", flipped),
    "shard-cut": (".labels.npy", lambda content: content[:-1]),
    "shard-gone": (".images.npy", None),
    "sheet-flipped": ("samples.png", flipped),
    "sheet-gone": ("samples.png", None),
    "document-flipped": ("dataset.json", flipped),
    "document-empty": ("dataset.json", lambda _: b""),
    "document-of-other-settings": ("dataset.json", lambda c: sealed({**json.loads(c), "raw_digest": "0" * 64})),
    "document-of-remote-shards": ("dataset.json", lambda c: sealed({**json.loads(c), "shards": "s3://elsewhere"})),
    "document-without-sheet": ("dataset.json", lambda c: sealed({**json.loads(c), "samples_sha256": None})),
    "document-of-fewer-classes": ("dataset.json", lambda c: sealed(_with_one_class(json.loads(c)))),
}


def _with_one_class(document: dict[str, Any]) -> dict[str, Any]:
    for split in document["splits"].values():
        split["class_counts"] = [split["count"]]
    return {**document, "classes": ["0"]}


@pytest.mark.parametrize(
    ("damage", "handover_mib"),
    [*((damage, 1024) for damage in DAMAGES), *((damage, 0) for damage in DAMAGES if damage.startswith("shard"))],
)
def test_corrupt_data_in_the_store_is_prepared_again(
    raw: Path,
    undecoded: Path,
    plain: Dataset,
    server: S3Server,
    uri: str,
    store: Store,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: str,
    handover_mib: int,
) -> None:
    first = prepare(raw, tmp_path / "first", uri, 1024)
    end, change = DAMAGES[damage]
    (document,) = documents(store)
    entry = next((e for e in first.files() if e.path.endswith(end)), None)
    name = f"datasets/shards/{entry.sha256}.npy" if entry else document.replace("dataset.json", end)
    if change:
        replace(server, store, name, change(store.get_bytes(name)[0]))
    else:
        store.remove(name)
    capsys.readouterr()
    assert_same(prepare(raw, tmp_path / "second", uri, handover_mib), plain)
    reported = [line for line in capsys.readouterr().out.splitlines() if "corrupt and is prepared again: " in line]
    assert len(reported) == 1
    clear_cache(tmp_path)
    assert_same(prepare(undecoded, tmp_path / "third", uri, handover_mib), plain)


def test_an_oversized_document_is_not_read(
    raw: Path, plain: Dataset, uri: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(raw, tmp_path / "first", uri, 1024)
    monkeypatch.setattr("components.shared.data.dataset_store.MAX_BYTES", 100)
    assert_same(prepare(raw, tmp_path / "second", uri, 1024), plain)


@SIZES
def test_concurrent_preparations_agree(
    raw: Path, plain: Dataset, uri: str, store: Store, tmp_path: Path, handover_mib: int
) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda name: prepare(raw, tmp_path / name, uri, handover_mib), ("a", "b")))
    for found in both:
        assert_same(found, plain)
    assert len(documents(store)) == 1


def test_an_unreliable_network_changes_nothing(
    raw: Path, plain: Dataset, uri: str, s3_proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    s3_proxy.rate = 0.3
    for name in ("first", "second"):
        assert_same(prepare(raw, tmp_path / name, uri, 0), plain)


@pytest.mark.parametrize("answered", [0, 1], ids=["at-the-start", "after-decoding"])
def test_an_unreachable_store_is_reported_and_leaves_nothing(
    raw: Path,
    plain: Dataset,
    uri: str,
    s3_proxy: Proxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answered: int,
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    s3_proxy.script, s3_proxy.always = [forward] * answered, hang_up
    with pytest.raises(TransientError, match="check the address, or try again later"):
        prepare(raw, tmp_path / "out" / "dataset", uri, 0)
    assert list((tmp_path / "out").iterdir()) == []
    s3_proxy.always = None
    assert_same(prepare(raw, tmp_path / "out" / "dataset", uri, 0), plain)


def test_later_steps_accept_a_remote_dataset(raw: Path, uri: str, tmp_path: Path) -> None:
    prepare(raw, tmp_path / "local", uri, 1024)
    prepare(raw, tmp_path / "dataset", uri, 0)
    for dataset, model in (("local", "expected"), ("dataset", "model")):
        train(dataset=tmp_path / dataset, recipe=training_recipe(), model=tmp_path / model)
    weights = [(tmp_path / model / "model.safetensors").read_bytes() for model in ("expected", "model")]
    assert weights[0] == weights[1]
    clear_cache(tmp_path)
    gates: dict[str, Any] = {"min_accuracy": 0.5, "min_recall": 0.0, "threads": 1}
    judged = evaluate(
        dataset=tmp_path / "dataset",
        model=tmp_path / "model",
        recipe=recipe_text(EvaluateRecipe, **gates),
        metrics=tmp_path / "metrics.json",
        classification=tmp_path / "classification.json",
        report=tmp_path / "report.html",
        evaluation=tmp_path / "evaluation",
    )
    assert judged.accepted
    artifacts = {name: tmp_path / name for name in ("dataset", "model", "evaluation", "package")}
    recipe = recipe_text(ExportRecipe, **gates)
    export(dataset=artifacts["dataset"], model=artifacts["model"], recipe=recipe, package=artifacts["package"])
    register(
        **artifacts,
        recipe=recipe_text(RegisterRecipe, store=uri, threads=1),
        registration=tmp_path / "registration",
        promotion=tmp_path / "promotion.html",
    )
    assert read_json(tmp_path / "registration" / "registration.json", "torch2kubeflow/registration")["is_champion"]


def test_read_recipe_returns_digest_and_shards(raw: Path, uri: str, store: Store, tmp_path: Path) -> None:
    data = prepare(raw, tmp_path / "dataset", uri, 0)
    (document,) = documents(store)
    recipe = document.split("/")[1]
    digest, shards = read_recipe(store, recipe)
    assert digest == data.digest
    assert shards == {entry.name for entry in store.list("datasets/shards")}
    with pytest.raises(UserError, match=r"has no dataset\.json"):
        read_recipe(store, "0" * 64)
