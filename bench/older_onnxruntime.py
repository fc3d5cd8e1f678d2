"""Run exported networks in the ONNX Runtime of KServe's default Triton: `python bench/older_onnxruntime.py`.

Each network is trained for an epoch on some of scikit-learn's digits and exported by the pipeline's own steps; then an
environment of its own, in build/, with ONNX Runtime 1.15.1 on Python 3.11, predicts the whole test split, and its
probabilities are compared with those of PyTorch. It needs the package index.
"""

import argparse
import json
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from measure import ROOT, write_result
from mnist import prepare
from pictures import write_pictures

from components.export import MeasurementsDocument, export
from components.shared.data.dataset import Dataset
from components.shared.models.catalogue import LENET_SIZE, LENETS, ZOO
from components.shared.parameters.evaluation import ExportRecipe
from components.shared.parameters.training import TrainingRecipe
from components.train import train

VERSION, PYTHON = "1.15.1", "3.11"
NETWORKS = (
    "resnet50",
    "seresnet50",
    "densenet121",
    "inception_v4",
    "xception",
    "nasnet_a_mobile",
    "mobilenet_v2",
    "shufflenet_v2_x1_0",
)
PICTURES, TEST_FRACTION = 250, 0.6  # so that there are many images to compare and few to learn from
CHILD = """
import json, sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("package/model.onnx", providers=["CPUExecutionProvider"])
images = np.load("images.npy")
found = np.concatenate([session.run(None, {"images": images[n : n + 32]})[0] for n in range(0, len(images), 32)])
expected = np.load("package/predictions.npy")
print(json.dumps({
    "onnxruntime": onnxruntime.__version__,
    "images": len(found),
    "other_classes": int((found.argmax(axis=1) != expected.argmax(axis=1)).sum()),
    "largest_difference": float(np.abs(found - expected).max()),
}))
"""


def main() -> None:
    """Measure, print, and write `bench/results/older-onnxruntime.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=NETWORKS, metavar="NAME")
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time")
    arguments = parser.parse_args()
    python, rows = _environment(), []
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool:
        waiting = [pool.submit(_measure, name, python) for name in arguments.networks]
        for done in as_completed(waiting):
            rows.append(done.result())
            print(rows[-1], flush=True)
            settings = {"data": "scikit-learn's digits", "pictures": PICTURES, "test_fraction": TEST_FRACTION}
            write_result("older-onnxruntime", {**settings, "networks": rows})


def _environment() -> Path:
    """Make the environment with the older ONNX Runtime if it is not there; return its Python."""
    folder, uv = ROOT / "build" / f"onnxruntime-{VERSION}", str(ROOT / ".venv" / "bin" / "uv")
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([uv, "venv", "-q", "--python", PYTHON, str(folder)], check=True)
    wanted = [f"onnxruntime=={VERSION}", "numpy<2"]  # it was built for NumPy 1
    subprocess.run([uv, "pip", "install", "-q", "--python", str(python), *wanted], check=True)
    return python


def _measure(name: str, python: Path) -> dict[str, Any]:
    """Return how far the probabilities of the older ONNX Runtime are from PyTorch's, over the whole test split."""
    size = LENET_SIZE if name in LENETS else 8 * -(-max(16, ZOO[name].smallest) // 8)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        write_pictures(scratch / "pictures", PICTURES)
        data = prepare(scratch, str(scratch / "pictures"), image_size=size, test_fraction=TEST_FRACTION)
        _export(name, scratch, data)
        np.save(scratch / "images.npy", data.load("test")[0])
        done = subprocess.run([python, "-c", CHILD], cwd=scratch, stdout=subprocess.PIPE, text=True, check=True)
        graph = onnx.load(scratch / "package" / "model.onnx", load_external_data=False)
        parity = MeasurementsDocument.read(scratch / "package" / "measurements.json").parity
    return {
        "network": name,
        "image_size": size,
        "opset": graph.opset_import[0].version,
        "ir": graph.ir_version,
        **json.loads(done.stdout),
        "largest_difference_here": parity.largest_difference["onnxruntime"],
    }


def _export(name: str, scratch: Path, data: Dataset) -> None:
    settings = {"network": name, "optimizer": "adamw", "learning_rate": 0.001, "batch_size": "32", "epochs": 1}
    train(dataset=data.folder, recipe=TrainingRecipe.of(**settings).text(), model=scratch / "model")
    gates = ExportRecipe.of(min_accuracy=0.0, min_recall=0.0)
    export(dataset=data.folder, model=scratch / "model", recipe=gates.text(), package=scratch / "package")


if __name__ == "__main__":
    main()
