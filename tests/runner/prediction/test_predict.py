"""Verb `predict`, by a package and by a version of a real store: pytest tests/runner/prediction"""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.shared.core.errors import CorruptDataError, UserError
from components.shared.core.npy import write_npy
from components.shared.prediction.drift import DriftReportDocument
from components.shared.prediction.reference import reference
from components.shared.storage.client import Store
from runner.prediction import predict
from runner.prediction.predict import PredictDocument
from tests.prediction.programs import CLASSES, register_package, write_package
from tests.runner.verbs import answered, run_verb
from tests.small_packages import evaluation_of, write_dataset

pytestmark = pytest.mark.slow


@pytest.fixture
def package(tmp_path: Path) -> Path:
    write_package(tmp_path / "package")
    return tmp_path / "package"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.fromarray(np.full((20, 20, 3), 250, np.uint8)).save(tmp_path / "white.jpg")
    return tmp_path / "white.jpg"


def _write_reference(folder: Path) -> None:
    """Write the reference of random pictures."""
    folder.mkdir(exist_ok=True)
    pictures = np.random.default_rng(7).integers(0, 256, (500, 1, 16, 16), np.uint8)
    document, vectors = reference([(pictures, np.full((500, 2), 0.5, np.float32))], CLASSES)
    write_npy(folder / "reference.npy", vectors)
    document.write(folder / "drift.json")


def _predicted(folder: Path) -> list[dict[str, str]]:
    with open(folder / "predictions.csv", newline="") as file:
        return [*csv.DictReader(file)]


def test_a_picture_is_predicted_by_a_package(
    package: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run_verb(predict, str(picture), "--model", str(package), "--output", str(out)) == 0
    (row,) = _predicted(out)
    assert (row["source"], row["class"], row["model"], row["label"]) == ("white.jpg", "light", str(package), "")
    lines = capsys.readouterr().out.splitlines()
    assert f"1 picture predicted by {package}" in lines and f"  {out}/predictions.csv" in lines
    assert not [line for line in lines if "labels predicted" in line]
    assert run_verb(predict, picture.as_uri(), "--model", str(package), "--output", str(tmp_path / "again")) == 0
    assert _predicted(tmp_path / "again") == [row]
    for folder in ("/proc/predictions", f"{picture}/predictions"):
        with pytest.raises(UserError, match=f"nothing can be written to {folder}; give another --output"):
            run_verb(predict, str(picture), "--model", str(package), "--output", folder)


@pytest.mark.usefixtures("s3_variables")
def test_the_champion_is_taken_from_the_store(
    package: Path, picture: Path, tmp_path: Path, store: Store, uri: str
) -> None:
    words = [str(picture), "--store", uri, "--output", str(tmp_path / "out")]
    with pytest.raises(UserError, match="has no models yet; run the pipeline"):
        run_verb(predict, *words)
    register_package(store, package, "first")
    document = answered(predict, *words)
    assert isinstance(document, PredictDocument)
    assert (document.predictions.model, document.predictions.predicted) == ("first/1", {"dark": 0, "light": 1})
    register_package(store, package, "second", wins=False)
    with pytest.raises(UserError, match="has 2 models: first, second; give --model NAME"):
        run_verb(predict, *words)
    for name in ("third", "fourth", "fifth", "sixth", "seventh"):
        store.put_bytes(b"", f"models/{name}/register.json")
    shown = "has 7 models: fifth, first, fourth, second, seventh and 2 more; give --model NAME"
    with pytest.raises(UserError, match=shown):
        run_verb(predict, *words)
    with pytest.raises(UserError, match="second has no champion; give --model second/VERSION"):
        run_verb(predict, *words, "--model", "second")
    with pytest.raises(UserError, match="second has no version 7; it has versions 1 to 1"):
        run_verb(predict, *words, "--model", "second/7")
    words[-1] = str(tmp_path / "other")
    assert run_verb(predict, *words, "--model", "second/1") == 0


@pytest.mark.parametrize("threads", ["-1", "many"])
def test_a_wrong_number_of_threads_is_refused(threads: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_verb(predict, "pictures", "--threads", threads)
    assert f"{threads} is not allowed; give 0 to 1,024" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["../package", "Mnist", "mnist/x"])
def test_what_is_no_model_is_refused(given: str, picture: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"--model {given} is neither a folder with package.json nor a model; give"):
        run_verb(predict, str(picture), "--model", given, "--output", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_labels_of_a_table_are_compared(package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    for name, value in {"a": 10, "b": 200, "c": 220}.items():
        Image.fromarray(np.full((16, 16), value, np.uint8)).save(tmp_path / f"photos/{name}.png")
    (tmp_path / "photos/labels.csv").write_text("file,class\na.png,dark\nb.png,light\nc.png,dark\n")
    words = ["--model", str(package), "--labels", "labels.csv", "--output", str(tmp_path / "out")]
    assert run_verb(predict, str(tmp_path / "photos"), *words) == 0
    assert "66.67% of 3 labels predicted correctly" in capsys.readouterr().out
    assert [row["label"] for row in _predicted(tmp_path / "out")] == ["dark", "light", "dark"]


def _drift(*words: str) -> DriftReportDocument:
    document = answered(predict, *words)
    assert isinstance(document, PredictDocument)
    return document.drift


def test_drift_is_judged_by_the_evaluation_beside_a_package(package: Path, tmp_path: Path) -> None:
    pictures = write_dataset(tmp_path / "dataset", 200, CLASSES, side=16)
    words = [str(pictures), "--model", str(package), "--output"]
    report = _drift(*words, str(tmp_path / "none"))
    assert report.sentence == f"drift is not judged: beside {package} is no evaluation with a drift.json"
    _write_reference(tmp_path / "evaluation")
    assert {one.name for one in _drift(*words, str(tmp_path / "found")).findings} >= {"entropy", "confidence"}
    assert not _drift(*words, str(tmp_path / "high"), "--drift-threshold", "99").drifted
    probabilities = np.full((2, 2), 0.5, np.float32)
    other = evaluation_of(probabilities, np.arange(2), CLASSES, dataset="a" * 64, model="b" * 64)
    other.write(tmp_path / "evaluation/evaluation.json")
    report = _drift(*words, str(tmp_path / "other"))
    assert report.not_judged == f"{tmp_path}/evaluation is the evaluation of another model than {package}"


@pytest.mark.usefixtures("s3_variables")
def test_drift_is_judged_by_the_files_of_a_version(
    package: Path, tmp_path: Path, store: Store, uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = write_dataset(tmp_path / "dataset", 200, CLASSES, side=16)
    words = [str(pictures), "--store", uri, "--output"]
    register_package(store, package, "first")
    assert run_verb(predict, *words, str(tmp_path / "none")) == 0
    said = "drift is not judged: version 1 of first has no reference; register a newer evaluation of it"
    assert said in capsys.readouterr().out.splitlines()
    _write_reference(package)
    register_package(store, package, "second")
    words += [str(tmp_path / "found"), "--model", "second"]
    assert {one.name for one in _drift(*words).findings} >= {"entropy", "confidence"}
    store.put_bytes(b"{}", "models/second/versions/1/drift.json")
    words[words.index("--output") + 1] = str(tmp_path / "damaged")
    with pytest.raises(CorruptDataError, match=r"second/versions/1/drift\.json"):
        run_verb(predict, *words)
    assert not (tmp_path / "damaged").exists()
