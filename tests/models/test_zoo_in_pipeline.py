"""Every network of the table by the pipeline's own steps: pytest tests/models/test_zoo_in_pipeline.py

`make test` takes a few; `make test-slow` all, and adds what it saw to bench/results/networks.jsonl.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.shared.data.sources.digits import read_digits
from components.shared.models.catalogue import ZOO
from tests.conftest import ROOT
from tests.dataset_writer import DatasetWriter
from tests.trained_digits import trained

pytestmark = pytest.mark.slow

ALL = "ALL_NETWORKS" in os.environ
OVERFITTED = list(ZOO) if ALL else ["resnet18", "squeezenet1_1"]
IN_PIPELINE = list(ZOO) if ALL else ["mobilenet_v2"]
RESULTS = ROOT / "bench" / "results" / "networks.jsonl"
# Where a first step of 0.001 is too far
RATES = {"squeezenet1_1": 0.0005, "resnet152": 0.0003, "resnext101_32x8d": 0.0003}
EPOCHS = {"squeezenet1_1": 60, "resnet152": 30}  # SqueezeNet has no batch normalisation
PLAIN = {"rotation": 0.0, "shift": 0.0, "scale": 0.0, "shear": 0.0, "label_smoothing": 0.0, "ema_decay": 0.0}
TRAINED_TOGETHER = 32


def pictures(count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The first digits of scikit-learn (uint8, N x 1 x size x size), enlarged by whole factors, and their labels."""
    pixels, labels = read_digits()
    factor = size // 8
    images = (pixels[:count].reshape(-1, 1, 8, 8) * 255 / 16).astype(np.uint8).repeat(factor, 2).repeat(factor, 3)
    return images, labels[:count].astype(np.int64)


def image_size(name: str) -> int:
    return 16 if ZOO[name].smallest <= 16 else 24


@pytest.mark.parametrize("name", OVERFITTED)
def test_a_network_overfits_32_images(tmp_path: Path, name: str) -> None:
    size = image_size(name)
    images, labels = pictures(TRAINED_TOGETHER, size)
    (tmp_path / "dataset").mkdir()
    counts = dict.fromkeys(("train", "val", "test"), TRAINED_TOGETHER)
    classes = list("0123456789")
    writer = DatasetWriter(tmp_path / "dataset", classes=classes, image_shape=(1, size, size), counts=counts)
    for split in counts:
        writer.append(split, images, labels)
    writer.finish(name="digits", seconds={"download": 0.0, "preprocess": 0.0})
    settings = {"network": name, "optimizer": "adamw", "learning_rate": RATES.get(name, 0.001), "threads": 0, **PLAIN}
    epochs = EPOCHS.get(name, 20)
    model = trained(
        tmp_path / "dataset", tmp_path / "model", **settings, batch_size="32", epochs=epochs, patience=epochs
    )
    losses = [epoch.train_loss for epoch in model.history.epochs]
    assert losses[1] < losses[0], "one step lowers the loss of its batch"
    if name != "squeezenet1_1":
        assert min(losses) < 0.1  # its averages need more steps than these for validation
    else:
        assert model.document.val_accuracy > 0.9  # SqueezeNet's last ReLU may put out a picture for good


@pytest.mark.parametrize("name", IN_PIPELINE)
def test_a_network_goes_through_the_compiled_pipeline(tmp_path: Path, name: str) -> None:
    size = image_size(name)
    images, labels = pictures(300, size)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = tmp_path / "pictures" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(folder / f"{number}.png")
    words = (f"data={tmp_path / 'pictures'}", f"network={name}", f"image_size={size}", "optimizer=adamw", "epochs=1")
    others = (f"learning_rate={RATES.get(name, 0.001)}", "batch_size=32", "min_accuracy=0", "min_recall=0", "store=")
    command = [sys.executable, "pipeline.py", "local", "--runs", str(tmp_path / "runs"), *words, *others]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    latest = tmp_path / "runs" / "latest"
    package = json.loads((latest / "package" / "measurements.json").read_text())
    assert package["parity"], "the exported programs were compared with PyTorch"
    summary = json.loads((latest / "summary.json").read_text())
    assert summary["steps"]["export"]["state"] == "done"
    _note(name, size, latest, summary)


def _note(name: str, size: int, run: Path, summary: dict[str, Any]) -> None:
    """Keep what a test of all networks has seen."""
    if not ALL:
        return
    (epoch,) = json.loads((run / "model" / "history.json").read_text())["epochs"]
    seconds = {step: summary["steps"][step]["seconds"] for step in ("train", "evaluate", "export")}
    figures = {figure: round(epoch[figure], 1) for figure in ("images_per_second", "memory_mib")}
    with open(RESULTS, "a") as file:
        file.write(json.dumps({"network": name, "image_size": size, "seconds": seconds, **figures}) + "\n")
