"""The graph `bigdata` as a user runs it, with pictures of real digits: pytest tests/runner/local/test_bigdata.py"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from components.shared.storage.client import Store
from tests.conftest import Runner

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("s3_variables")]

TRAINING = ("image_size=32", "epochs=3", "batch_size=32", "threads=1", "min_accuracy=0.8", "min_recall=0.5")


def _states(tmp_path: Path) -> dict[str, str]:
    summary: dict[str, Any] = json.loads((tmp_path / "runs/latest/summary.json").read_text())
    return {name: step["state"] for name, step in summary["steps"].items()}


def _artifact(tmp_path: Path, step: str, name: str) -> Path:
    (found,) = (tmp_path / "runs/latest").glob(f"*/{step}/{name}")
    return found


def _results(tmp_path: Path, step: str) -> tuple[str, str]:
    """Return the digest of the dataset, which a step prepared, and of the weights."""
    dataset = json.loads((_artifact(tmp_path, step, "dataset") / "dataset.json").read_text())
    model = json.loads((_artifact(tmp_path, "train", "model") / "model.json").read_text())
    return dataset["digest"], model["weights_sha256"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of pictures of the digits 0, 1 and 2."""
    pixels, labels = load_digits(n_class=3, return_X_y=True)
    for number, (image, label) in enumerate(zip(pixels.reshape(-1, 8, 8), labels, strict=True)):
        path = tmp_path / "pictures" / str(label) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).astype(np.uint8)).save(path)
    return tmp_path / "pictures"


def test_pictures_are_prepared_by_pods_and_trained_on(
    tmp_path: Path, run_pipeline: Runner, pictures: Path, uri: str
) -> None:
    words = ["--graph", "bigdata", f"data={pictures}", f"store={uri}", "parts=2", *TRAINING]
    done = run_pipeline(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "settle     units of up to 32,768 pictures: 1; already in the store: 0" in done.stdout
    names = ("resolve", "partition", "prepare", "settle", "train", "evaluate", "export", "register", "finish")
    assert _states(tmp_path) == dict.fromkeys(names, "done")
    dataset = _artifact(tmp_path, "settle", "dataset")
    assert {path.name for path in dataset.iterdir()} == {"dataset.json", "samples.png"}
    evaluation = json.loads((_artifact(tmp_path, "evaluate", "evaluation") / "evaluation.json").read_text())
    assert [*evaluation["seconds"]] == ["partition", "prepare", "settle", "train", "evaluate"]

    again = run_pipeline(*[word.replace("parts=2", "parts=1") for word in words])
    assert again.returncode == 0 and "units of up to 32,768 pictures: 1; already in the store: 1" in again.stdout
    assert "train      resumed after step" in again.stdout, "the same dataset, from another number of pods"


def test_a_source_above_handover_mib_is_never_copied_whole(
    tmp_path: Path, run_here: Runner, pictures: Path, store: Store, uri: str
) -> None:
    for path in sorted(pictures.rglob("*.png")):
        store.put_file(path, f"source/{path.relative_to(pictures).as_posix()}")
    words = (f"data={store.uri('source')}", *TRAINING)
    plain = run_here(*words, f"store={uri}/plain")
    assert plain.returncode == 0 and (_artifact(tmp_path, "download", "raw") / "raw.json").exists()
    expected = _results(tmp_path, "preprocess")

    listed = run_here(*words, f"store={uri}/listed", "handover_mib=0")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert (
        "a list of 537 images of 3 classes" in listed.stdout
        and "preprocess units: 1; already in the store: 0" in listed.stdout
    )
    raw = _artifact(tmp_path, "download", "raw")
    assert {path.name for path in raw.iterdir()} == {"listing.json", "listing.parquet"}
    dataset = _artifact(tmp_path, "preprocess", "dataset")
    assert {path.name for path in dataset.iterdir()} == {"dataset.json", "samples.png"}
    assert _results(tmp_path, "preprocess") == expected

    parts = run_here("--graph", "bigdata", *words, f"store={uri}/listed", "parts=2")
    assert "settle     units of up to 32,768 pictures: 1; already in the store: 1" in parts.stdout, (
        "those of the other graph"
    )
    assert _results(tmp_path, "settle") == expected
