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


def _states(tmp_path: Path) -> dict[str, str]:
    summary: dict[str, Any] = json.loads((tmp_path / "runs/latest/summary.json").read_text())
    return {name: step["state"] for name, step in summary["steps"].items()}


def test_pictures_are_prepared_by_pods_and_trained_on(
    tmp_path: Path, run_pipeline: Runner, store: Store, uri: str
) -> None:
    pixels, labels = load_digits(n_class=3, return_X_y=True)
    for number, (image, label) in enumerate(zip(pixels.reshape(-1, 8, 8), labels, strict=True)):
        path = tmp_path / "pictures" / str(label) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).astype(np.uint8)).save(path)
    words = ["--graph", "bigdata", f"data={tmp_path / 'pictures'}", f"store={uri}", "parts=2", "image_size=32"]
    words += ["epochs=3", "batch_size=32", "threads=1", "min_accuracy=0.8", "min_recall=0.5"]
    done = run_pipeline(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "settle     1 units of 32,768 pictures; 0 were there" in done.stdout
    names = ("resolve", "partition", "prepare", "settle", "train", "evaluate", "export", "register", "finish")
    assert _states(tmp_path) == dict.fromkeys(names, "done")
    (dataset,) = (tmp_path / "runs/latest").glob("*/settle/dataset")
    assert {path.name for path in dataset.iterdir()} == {"dataset.json", "samples.png"}

    again = run_pipeline(*[word.replace("parts=2", "parts=1") for word in words])
    assert again.returncode == 0 and "1 units of 32,768 pictures; 1 were there" in again.stdout
    assert "train      resumed after step" in again.stdout, "the same dataset, from another number of pods"
