"""A prediction by its steps: the model is chosen once, pods share the pictures, and a killed one goes on."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.download import download
from components.prediction.collect import collect
from components.prediction.predict import predict
from components.prediction.resolve_prediction import Resolved, resolve_prediction
from components.shared.core.errors import UserError
from components.shared.core.npy import write_npy
from components.shared.data.dataset import open_dataset, write_document
from components.shared.evaluation.exported_model import PackageDocument
from components.shared.parameters.form import OPTIONS, defaults_of
from components.shared.parameters.table import PREDICTION
from components.shared.prediction import inputs, table
from components.shared.prediction.batch import predict_all
from components.shared.prediction.document import PredictionsDocument
from components.shared.prediction.pods.chosen import Chosen
from components.shared.prediction.pods.shares import ShareDocument, share_of
from components.shared.prediction.pods.stored import StoredPredictions
from components.shared.prediction.reference import reference
from components.shared.prediction.rows import open_program
from components.shared.prediction.training_run import NEXT_RUN, NextRunDocument
from components.shared.storage.client import Store
from runner.registry import models
from tests.conftest import ROOT
from tests.prediction.programs import CLASSES, register_package, write_package, write_shades
from tests.prediction.test_inputs import fetched
from tests.runner.demo.stores import store_dataset
from tests.small_packages import write_dataset

pytestmark = pytest.mark.usefixtures("s3_variables")
PICTURES, PODS, PART = 43, 2, 8
KILLED = """
import os, signal, sys
from components.shared.prediction import inputs, table
from components.shared.prediction.pods import stored
from components.prediction.predict import predict

inputs.batch_size, table.PART_ROWS = lambda shape: 4, 9
keep = stored.StoredPredictions.keep_part

def dying(self, number, folder):
    if number == int(sys.argv[1]):
        if sys.argv[2] == "after":
            keep(self, number, folder)
        os.kill(os.getpid(), signal.SIGKILL)
    keep(self, number, folder)

stored.StoredPredictions.keep_part = dying
predict(raw=sys.argv[3], planned=sys.argv[4], share=sys.argv[5])
"""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 4 pictures, and parts of 8."""
    monkeypatch.setattr(inputs, "batch_size", lambda _shape: 4)
    monkeypatch.setattr(table, "PART_ROWS", PART + 1)


@pytest.fixture
def package(tmp_path: Path, store: Store) -> Path:
    """A package, which is the champion `light/1` of the store."""
    write_package(tmp_path / "package")
    register_package(store, tmp_path / "package", "light")
    return tmp_path / "package"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Pictures of which the higher numbers are lighter; one is broken."""
    write_shades(tmp_path / "pictures", PICTURES)
    return fetched(tmp_path / "pictures", tmp_path / "raw")


def _resolve(store: str, options: Mapping[str, Any] = MappingProxyType({}), **changes: Any) -> Resolved:
    given = {name: value for name, value in defaults_of(PREDICTION).items() if name != OPTIONS}
    given |= {"data": "digits", "store": store, "parts": PODS, **changes}
    return resolve_prediction(options={"threads": 1, **options}, **given)


def _predict(resolved: Resolved, raw: Path, folder: Path) -> list[Path]:
    """Run the pods one after the other; return their shares."""
    shares = [folder / f"share{number}" for number in range(len(resolved.Output))]
    for planned, share in zip(resolved.Output, shares, strict=True):
        predict(raw=raw, planned=planned, share=share)
    return shares


def _collect(resolved: Resolved, shares: list[Path], folder: Path) -> dict[str, float]:
    names = {name: folder / name for name in ("predictions", "uncertain", "metrics")}
    return collect(shares=shares, recipe=resolved.collection, **names)


def _whole(package: Path, raw: Path, folder: Path, model: str = "light/1") -> PredictionsDocument:
    """Predict in one process, as the verb does."""
    program = open_program(package / "model.onnx", package / "package.json", model, 1)
    return predict_all(inputs.Inputs(raw, program.package), program, folder)


def _stored(store: Store) -> list[str]:
    return sorted(entry.name.rpartition("/")[2] for entry in store.list("predictions/light"))


PARTS = [f"part-{number:05}.parquet" for number in range(6)]
OTHERS = ["drift-report.json", "predictions.csv", "predictions.json", "uncertain.html"]


@pytest.mark.usefixtures("package")
def test_a_store_within_the_data_is_refused(uri: str) -> None:
    data = uri.rpartition("/")[0]
    with pytest.raises(UserError, match=f"^store={uri} is within data={data}, .*; give another store$"):
        _resolve(uri, data=data)


def test_pods_make_the_table_of_one_process(package: Path, raw: Path, tmp_path: Path, store: Store, uri: str) -> None:
    resolved = _resolve(uri)
    shares = _predict(resolved, raw, tmp_path)
    metrics = _collect(resolved, shares, tmp_path)
    whole = _whole(package, raw, tmp_path / "whole")
    for name in (*PARTS, "predictions.csv"):
        assert (tmp_path / "predictions" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    found = PredictionsDocument.read(tmp_path / "predictions/predictions.json")
    different = {"seconds": whole.seconds, "drift": whole.drift}
    assert found.model_copy(update=different) == whole and (found.rows, found.errors) == (PICTURES, 1)
    page = (tmp_path / "uncertain").read_text()
    assert "Not judged: version 1 of light has no reference" in page
    assert page.count("<figure>") == PICTURES - 1 == (tmp_path / "whole/uncertain.html").read_text().count("<figure>")
    assert (metrics["rows"], metrics["errors"], metrics["accuracy"]) == (PICTURES, 1, 1.0)
    assert metrics["images_per_second"] > 0 and json.loads((tmp_path / "metrics").read_text()) == metrics
    assert _stored(store) == sorted([*OTHERS, *PARTS])


@pytest.mark.slow
@pytest.mark.parametrize(("number", "moment", "kept"), [(0, "before", 0), (1, "after", 2), (2, "before", 2)])
def test_a_killed_pod_goes_on_after_its_last_whole_part(
    package: Path, raw: Path, tmp_path: Path, store: Store, uri: str, number: int, moment: str, kept: int
) -> None:
    resolved = _resolve(uri)
    words = [str(number), moment, str(raw), resolved.Output[0], str(tmp_path / "share0")]
    killed = subprocess.run([sys.executable, "-c", KILLED, *words], cwd=ROOT, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    assert _stored(store) == PARTS[:kept] and not (tmp_path / "share0").exists()
    shares = _predict(resolved, raw, tmp_path)
    assert ShareDocument.read(shares[0] / "share.json").resumed == kept * PART
    _collect(resolved, shares, tmp_path)
    assert PredictionsDocument.read(tmp_path / "predictions/predictions.json").resumed_at == kept * PART
    _whole(package, raw, tmp_path / "whole")
    for name in (*PARTS, "predictions.csv"):
        assert (tmp_path / "predictions" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.mark.slow
def test_a_new_champion_under_way_changes_nothing(
    package: Path, raw: Path, tmp_path: Path, store: Store, uri: str
) -> None:
    resolved = _resolve(uri)
    write_package(tmp_path / "better", slope=0.1)
    assert register_package(store, tmp_path / "better", "light") == 2
    shares = _predict(resolved, raw, tmp_path)
    _collect(resolved, shares, tmp_path)
    _whole(package, raw, tmp_path / "whole")
    assert (tmp_path / "predictions/predictions.csv").read_bytes() == (tmp_path / "whole/predictions.csv").read_bytes()
    again = _resolve(uri)
    assert again.Output != resolved.Output and "model=light/2" in again.Output[0]
    assert _resolve(uri, model="versions/1") == resolved
    assert _resolve(uri).Output == again.Output, "so that a cache knows the same champion again"
    _collect(again, _predict(again, raw, tmp_path / "again"), tmp_path / "again")
    found = PredictionsDocument.read(tmp_path / "again/predictions/predictions.json")
    assert (found.model, found.resumed_at) == ("light/2", 0), "nothing is taken from the old champion's"
    assert len({entry.name.split("/")[2] for entry in store.list("predictions/light")}) == 2


@pytest.mark.usefixtures("package")
def test_of_two_pods_at_one_part_the_first_one_counts(tmp_path: Path, uri: str) -> None:
    stored = StoredPredictions(uri, Chosen("light/1", "a" * 64), "b" * 64)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / PARTS[0]).write_text(name)
        stored.keep_part(0, tmp_path / name)
    assert (tmp_path / "second" / PARTS[0]).read_text() == "first"


@pytest.mark.slow
def test_what_others_removed_is_stored_again(package: Path, raw: Path, tmp_path: Path, store: Store, uri: str) -> None:
    resolved = _resolve(uri)
    shares = _predict(resolved, raw, tmp_path)
    _collect(resolved, shares, tmp_path)
    entries = {entry.name.rpartition("/")[2]: entry for entry in store.list("predictions/light")}
    store.remove(entries[PARTS[1]].name, entries["predictions.csv"].name)
    _collect(resolved, shares, tmp_path / "again")
    assert _stored(store) == sorted([*OTHERS, *PARTS])
    before = store.stat(entries["predictions.json"].name)
    _collect(resolved, shares, tmp_path / "third")
    assert store.stat(entries["predictions.json"].name) == before, "it is written once"


@pytest.mark.slow
def test_old_predictions_are_pruned_and_made_again(
    package: Path, raw: Path, tmp_path: Path, store: Store, uri: str
) -> None:
    def pruned(**given: Any) -> list[str]:
        return [line for line in models.prune(store, keep=None, **given) if "predictions" in line]

    complete = _resolve(uri)
    _collect(complete, _predict(complete, raw, tmp_path / "complete"), tmp_path)
    write_package(tmp_path / "better", slope=0.1)
    register_package(store, tmp_path / "better", "light")
    _predict(_resolve(uri), raw, tmp_path / "interrupted")
    assert pruned(days=1, predictions=1, is_dry=False) == [], "a young one may be under way"
    (line,) = pruned(days=0, is_dry=True)
    assert re.fullmatch(
        r"would remove the predictions \w{12} by light, 6 files, .* MB, which were never completed", line
    )
    assert pruned(days=0, is_dry=False) == [line.replace("would remove", "removed")]
    assert _stored(store) == sorted([*OTHERS, *PARTS]), "complete ones stay"
    (line,) = pruned(days=7, predictions=0, is_dry=False)
    assert re.fullmatch(r"removed the predictions \w{12} by light, 10 files, .* MB", line) and _stored(store) == []
    _collect(complete, _predict(complete, raw, tmp_path / "again"), tmp_path / "again")
    assert _stored(store) == sorted([*OTHERS, *PARTS])
    assert [*store.list("models")], "versions are no predictions"


@pytest.mark.slow
def test_a_damaged_part_is_predicted_again(package: Path, raw: Path, tmp_path: Path, store: Store, uri: str) -> None:
    resolved = _resolve(uri)
    _predict(resolved, raw, tmp_path)
    name = next(entry.name for entry in store.list("predictions/light") if entry.name.endswith(PARTS[1]))
    content, _ = store.get_bytes(name)
    damaged = tmp_path / "damaged"
    damaged.write_bytes(content[:-1] + b"?")
    store._client.fput_object(store._bucket, store._key(name), str(damaged), metadata={"sha256": "0" * 64})
    shares = _predict(resolved, raw, tmp_path / "again")
    assert ShareDocument.read(shares[0] / "share.json").resumed == PART, "the first part alone"
    assert store.get_bytes(name)[0] == content == (shares[0] / PARTS[1]).read_bytes()


@pytest.mark.slow
def test_without_a_store_a_package_predicts(package: Path, raw: Path, tmp_path: Path, store: Store) -> None:
    resolved = _resolve("", model=package.as_uri(), parts=3)
    assert len(resolved.Output) == 3
    shares = _predict(resolved, raw, tmp_path)
    metrics = _collect(resolved, shares, tmp_path)
    assert metrics["rows"] == PICTURES and _stored(store) == []
    assert f"Not judged: beside {package.as_uri()} is no evaluation" in (tmp_path / "uncertain").read_text()
    _whole(package, raw, tmp_path / "whole", model=package.as_uri())
    assert (tmp_path / "predictions/predictions.csv").read_bytes() == (tmp_path / "whole/predictions.csv").read_bytes()


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"model": "versions/7"}, r"light has no version 7; it has versions 1 to 1"),
        ({"model_name": "heavy"}, r"has no model heavy; it has light"),
        ({"store": ""}, r"model=champion is a model of the store, and store= is empty; give store="),
        ({"model": "light"}, r"model=light is not accepted; give champion, versions/N, or the s3:// or file:// URI"),
        ({"model": "file:///nowhere"}, r"/nowhere/package.json is missing"),
        ({"model": "STORE/nothing"}, r"nothing/package.json does not exist"),
        ({"model": "STORE/models/light/versions/1"}, r"versions/1 has no model.onnx; give the folder of a whole"),
        ({"data": "nothing"}, r"data=nothing is not accepted"),
        ({"parts": 0}, r"parts=0 is not accepted; give a number from 1 to 200"),
    ],
)
@pytest.mark.usefixtures("package")
def test_an_unknown_model_is_refused_before_the_download(given: dict[str, Any], error: str, uri: str) -> None:
    given = {name: value.replace("STORE", uri) if isinstance(value, str) else value for name, value in given.items()}
    with pytest.raises(UserError, match=error) as raised:
        _resolve(**{"store": uri, **given})
    assert raised.value.remedy and "\n" not in str(raised.value)


@pytest.mark.usefixtures("package")
def test_among_several_models_one_must_be_named(tmp_path: Path, store: Store, uri: str) -> None:
    write_package(tmp_path / "other", slope=0.2)
    register_package(store, tmp_path / "other", "other", wins=False)
    with pytest.raises(UserError, match="has 2 models: light, other; give model_name=NAME"):
        _resolve(uri)
    with pytest.raises(UserError, match="other has no champion; give model=versions/N"):
        _resolve(uri, model_name="other")
    assert "model=other/1" in _resolve(uri, model_name="other", model="versions/1").Output[0]


def test_a_package_that_has_changed_is_refused(package: Path, raw: Path, tmp_path: Path) -> None:
    resolved = _resolve("", model=package.as_uri())
    write_package(package, slope=0.3)
    with pytest.raises(UserError, match=r"the package of .* was .* when the run began and is .* now; run it again"):
        _predict(resolved, raw, tmp_path)


@pytest.mark.usefixtures("package")
def test_shares_of_another_table_are_not_joined(raw: Path, tmp_path: Path, uri: str) -> None:
    resolved = _resolve(uri)
    first, second = _predict(resolved, raw, tmp_path)
    with pytest.raises(UserError, match="share1 begins with part 3, and part 0 is missing; run it again"):
        _collect(resolved, [second], tmp_path)
    with pytest.raises(UserError, match=r"no share follows .*share0, which is not the last; run it again"):
        _collect(resolved, [first], tmp_path)
    document = json.loads((second / "share.json").read_text())
    (second / "share.json").write_text(json.dumps({**document, "data_digest": "f" * 64}))
    with pytest.raises(UserError, match="are not of one table; run it again"):
        _collect(resolved, [second, first], tmp_path)
    assert not (tmp_path / "predictions").exists()


@pytest.mark.slow
def test_drift_starts_a_training_run_once(
    tmp_path: Path, store: Store, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_package(tmp_path / "package")
    dark = np.random.default_rng(7).integers(0, 60, (200, 1, 16, 16), np.uint8)
    document, vectors = reference([(dark, np.full((200, 2), 0.5, np.float32))], CLASSES)
    write_npy(tmp_path / "package/reference.npy", vectors)
    document.write(tmp_path / "package/drift.json")
    register_package(store, tmp_path / "package", "light")
    for number in range(100):
        path = tmp_path / f"pictures/{'dark' if number < 50 else 'light'}/{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16), number * 2 + 50, np.uint8)).save(path)
    raw = fetched(tmp_path / "pictures", tmp_path / "raw")
    data = (tmp_path / "pictures").as_uri()
    monkeypatch.setenv(NEXT_RUN, str(tmp_path / "next-run.json"))

    kept = _resolve(uri, data=data, options={"retrain": False})
    shares = _predict(kept, raw, tmp_path)
    metrics = _collect(kept, shares, tmp_path / "kept")
    assert metrics["drift findings"] > 0 and not (tmp_path / "next-run.json").exists()
    assert _training(tmp_path / "kept") == "no training run: retrain=false"
    resolved = _resolve(uri, data=data)
    assert resolved.Output == kept.Output, "pods do not depend on what follows of drift"
    _collect(resolved, shares, tmp_path / "first")
    assert _training(tmp_path / "first").startswith("training run retrain-light-")
    wanted = NextRunDocument.read(tmp_path / "next-run.json").parameters
    assert (wanted["data"], wanted["store"], wanted["model_name"]) == (data, uri, "light")
    _collect(resolved, shares, tmp_path / "second")
    assert "was started for the same data" in _training(tmp_path / "second")
    other = _resolve(uri, data=data, options={"retrain_data": "digits"})
    _collect(other, shares, tmp_path / "third")
    assert "and the next one may be started 24 hours later" in _training(tmp_path / "third")


def _training(folder: Path) -> str:
    return PredictionsDocument.read(folder / "predictions/predictions.json").training


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 1797, 100_000, 1_000_000])
@pytest.mark.parametrize("pods", [1, 2, 7, 200])
def test_shares_are_whole_batches_without_a_gap(count: int, pods: int) -> None:
    shares = [share_of(count, 256, pod, pods) for pod in range(pods)]
    assert shares[0].first == 0 and shares[-1].end is None
    assert [share.end for share in shares[:-1]] == [share.first for share in shares[1:]]
    (rows,) = {share.part_rows for share in shares}
    assert rows % 256 == 0 and shares[-1].first * rows <= count
    ends = [-(-count // rows) if share.end is None else share.end for share in shares]
    largest = max(end - share.first for end, share in zip(ends, shares, strict=True))
    assert largest * rows <= max(256, 2 * count / pods + 256), "no pod has much more than the others"


@pytest.mark.parametrize("where", ["path", "file", "store"])
def test_a_prepared_dataset_is_predicted_as_it_is(
    package: Path, tmp_path: Path, store: Store, uri: str, cache: Path, where: str
) -> None:
    shape = PackageDocument.read(package / "package.json").input.sizes
    folder = write_dataset(tmp_path / "dataset", 10, CLASSES, side=shape[1])
    write_document(folder, open_dataset(folder).document.model_copy(update={"samples_sha256": "0" * 64}))
    store_dataset(store, folder)
    digest = open_dataset(folder).digest
    data = {"path": str(folder), "file": folder.as_uri(), "store": f"{uri}/datasets/{digest}"}[where]
    resolved = _resolve(uri, data=data)
    assert resolved.version == f"dataset:{digest}"
    raw = tmp_path / "raw"
    download(data=data, version=resolved.version, recipe=resolved.reading, needs_labels=False, raw=str(raw))
    assert (raw / "train-00000.images.npy").exists() == (where != "store")
    metrics = _collect(resolved, _predict(resolved, raw, tmp_path), tmp_path)
    assert metrics["rows"] == 8 + 8 + 10 and "accuracy" in metrics
    _whole(package, folder, tmp_path / "whole")
    found, expected = (tmp_path / name / "predictions.csv" for name in ("predictions", "whole"))
    assert found.read_bytes() == expected.read_bytes()
    with pytest.raises(UserError, match="was dataset:0 when the run began and is dataset:"):
        download(data=data, version="dataset:0", recipe=resolved.reading, needs_labels=False, raw=str(tmp_path / "b"))
    if where != "store":
        with pytest.raises(UserError, match=r"is a prepared dataset, .*; only a prediction|give the pictures"):
            download(data=data, version=resolved.version, recipe=resolved.reading, needs_labels=True, raw=str(raw))
