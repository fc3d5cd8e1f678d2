"""Model -> ONNX and torch.export programs with normalisation and softmax inside, proven equal to PyTorch."""

import json
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from components.shared import models
from components.shared.cpu import cpu_count
from components.shared.dataset import open_dataset
from components.shared.files import Document, new_folder, read_json, sha256_file, write_json
from components.shared.parameters import check
from components.shared.progress import Progress, say
from components.shared.transforms import normalise

FORMAT = "torch2kubeflow/package"
BATCH = 1000
TOLERANCE = 1e-4  # of a probability: float32 sums in another order
LATENCY_BATCHES = (1, 256)
LATENCY_SECONDS = 0.2

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class ParityError(RuntimeError):
    """An exported program that does not predict what PyTorch predicts."""


class Classifier(nn.Module):
    """A network with normalisation before and softmax after it: images (uint8, N x C x H x W) -> probabilities."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: models.Model) -> None:
        super().__init__()
        self.network = model.module
        self.register_buffer("mean", model.mean)
        self.register_buffer("std", model.std)

    def forward(self, images: Tensor) -> Tensor:
        """Class probabilities (float32, N x C)."""
        return torch.softmax(self.network(normalise(images, self.mean, self.std)), dim=1)


def export(*, dataset: str, model: str, evaluation: str, threads: int, package: str) -> None:
    """Write `model.onnx`, `model.pt2` and `package.json` into the folder `package`.

    ParityError where ONNX Runtime or the reloaded program differs from PyTorch, or PyTorch from the predictions that
    were evaluated, on any image of the test split.
    """
    check(threads=threads)
    started = time.monotonic()
    torch.set_num_threads(threads or cpu_count())
    data, trained = open_dataset(dataset), models.load(model)
    evaluated = read_json(Path(evaluation) / "evaluation.json", "torch2kubeflow/evaluation")
    classifier = Classifier(trained).eval()
    images, _ = data.load("test")
    metadata = _metadata(trained, evaluated)
    with new_folder(package) as folder:
        _write_programs(classifier, images, folder, metadata)
        programs = _load_programs(classifier, folder, threads or cpu_count())
        evaluated_probabilities = np.load(Path(evaluation) / "predictions.npy", allow_pickle=False)
        parity = _prove_parity(programs, images, evaluated_probabilities)
        document: Document = {
            "format": FORMAT,
            "input": {"name": "images", "dtype": "uint8", "shape": ["batch", *data.image_shape]},
            "output": {"name": "probabilities", "dtype": "float32", "shape": ["batch", len(data.classes)]},
            **metadata,
            "files": {name: _describe(folder / name) for name in ("model.onnx", "model.pt2")},
            "parity": parity,
            "latency_microseconds": {name: _latency(predict, images) for name, predict in programs.items()},
            "seconds": evaluated["seconds"] | {"export": round(time.monotonic() - started, 3)},
        }
        write_json(folder / "package.json", document)
    say("export", f"the same class on {parity['num_images']:,} test images by PyTorch, ONNX Runtime and torch.export")


def _metadata(model: models.Model, evaluated: Document) -> Document:
    return {
        "classes": model.classes,
        "dataset_digest": model.document["dataset_digest"],
        "weights_sha256": model.document["weights_sha256"],
        "code_version": model.document["code_version"],
        "test_accuracy": evaluated["accuracy"],
    }


def _write_programs(classifier: Classifier, images: NDArray[np.uint8], folder: Path, metadata: Document) -> None:
    """Trace the classifier once, with a batch of any size, and write it in both formats."""
    say("export", "tracing")
    example = torch.from_numpy(images[:2].copy())
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(classifier, (example,), dynamic_shapes={"images": {0: batch}})
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()}
    torch.export.save(program, folder / "model.pt2", extra_files={"metadata.json": json.dumps(metadata)})
    say("export", "translating to ONNX")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's notes on its own internals
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        converted = torch.onnx.export(
            program, input_names=["images"], output_names=["probabilities"], dynamo=True, verbose=False
        )
    assert converted is not None
    proto = converted.model_proto
    onnx.helper.set_model_props(proto, texts)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save_model(proto, folder / "model.onnx")


def _load_programs(classifier: Classifier, folder: Path, threads: int) -> dict[str, Predict]:
    """The three programs as functions from images to probabilities, the two written ones read back."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    exported = torch.export.load(folder / "model.pt2").module()

    def by_onnx(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        (probabilities,) = session.run(None, {"images": images})
        return np.asarray(probabilities)

    return {"eager": _by_torch(classifier), "onnxruntime": by_onnx, "torch_export": _by_torch(exported)}


def _by_torch(module: nn.Module) -> Predict:
    def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            probabilities: NDArray[np.float32] = module(torch.from_numpy(images)).numpy()
        return probabilities

    return predict


def _prove_parity(
    programs: dict[str, Predict], images: NDArray[np.uint8], evaluated: NDArray[np.float32]
) -> dict[str, float]:
    """The largest difference of each program's probabilities from PyTorch's; ParityError where a class differs."""
    progress = Progress("export", "compare", len(programs) * len(images), "images")
    found: dict[str, list[NDArray[np.float32]]] = {name: [] for name in programs}
    for start in range(0, len(images), BATCH):
        batch = np.ascontiguousarray(images[start : start + BATCH])
        for name, predict in programs.items():
            found[name].append(predict(batch))
            progress.advance(len(batch))
    predictions = {name: np.concatenate(parts) for name, parts in found.items()}
    eager = predictions.pop("eager")
    differences: dict[str, float] = {"num_images": len(images)}
    for name, probabilities in {"evaluated": evaluated, **predictions}.items():
        if probabilities.shape != eager.shape:
            raise ParityError(f"{name} predicts {probabilities.shape} where PyTorch predicts {eager.shape}")
        largest = float(np.abs(probabilities - eager).max())
        other = int((probabilities.argmax(axis=1) != eager.argmax(axis=1)).sum())
        if other or not largest <= TOLERANCE:
            raise ParityError(
                f"{name} and PyTorch differ in the class of {other:,} of {len(images):,} test images, "
                f"by {largest:.2g} in a probability at most (allowed {TOLERANCE:g})"
            )
        differences[f"largest_difference_{name}"] = largest
    return differences


def _latency(predict: Predict, images: NDArray[np.uint8]) -> dict[str, float]:
    """Median microseconds of a call, by batch size."""
    found = {}
    for size in LATENCY_BATCHES:
        batch = np.resize(images, (size, *images.shape[1:]))
        predict(batch)
        times = []
        end = time.perf_counter() + LATENCY_SECONDS
        while not times or time.perf_counter() < end:
            started = time.perf_counter()
            predict(batch)
            times.append(time.perf_counter() - started)
        found[f"batch_{size}"] = round(statistics.median(times) * 1e6, 1)
    return found


def _describe(path: Path) -> Document:
    return {"sha256": sha256_file(path), "bytes": path.stat().st_size}
