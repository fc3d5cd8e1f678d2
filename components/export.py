"""Step export: an evaluated model -> ONNX and torch.export programs, proven to predict what was evaluated.

Both programs take uint8 images of any batch size and return probabilities; normalisation and softmax are inside.
"""

import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.core.files import Document, new_folder, sha256_file, write_json
from components.shared.core.npy import read_npy
from components.shared.core.resources import thread_count
from components.shared.core.step import step
from components.shared.core.torch_runtime import prepare_process
from components.shared.data.dataset import Dataset, Images, open_dataset
from components.shared.evaluation.classifier import Classifier, on_arrays
from components.shared.evaluation.document import METRICS, read_evaluation
from components.shared.evaluation.exported_model import write_package
from components.shared.evaluation.inference import Classify, load_onnx, predict
from components.shared.models import saved_model
from components.shared.parameters import check

MEASUREMENTS_FORMAT = "torch2kubeflow/measurements"
TIE = 1e-6  # two classes whose probabilities lie closer may change places
TOLERANCE = 1e-4  # of a probability: float32 sums in another order
LATENCY_BATCHES = (1, 256)
LATENCY_SECONDS = 0.2  # for each program and batch size


class ParityError(RuntimeError):
    """A program that does not predict what PyTorch predicts."""


@step
def export(
    *, dataset: str | Path, model: str | Path, evaluation: str | Path, threads: int, package: str | Path
) -> None:
    """Write `model.onnx`, `model.pt2`, `measurements.json` and, last, `package.json` to folder `package`.

    UserError where a parameter is out of range, or `evaluation` is not of this model and dataset. ParityError where
    ONNX Runtime, the reloaded torch.export program or the predictions that were evaluated differ from PyTorch in the
    class of any test image, or by more than 1e-4 in a probability.
    """
    started = time.monotonic()
    check(threads=threads)
    data, trained, evaluated = _open(dataset, model, evaluation)
    prepare_process(threads)
    classifier = Classifier(trained)
    with new_folder(package) as folder:
        description = _describe(trained, evaluated)
        _write_programs(classifier, folder, description)
        programs = {
            "eager": on_arrays(classifier),
            "onnxruntime": load_onnx(folder / "model.onnx", thread_count(threads)),
            "torch_export": on_arrays(torch.export.load(folder / "model.pt2").module()),
        }
        shape = (data.counts["test"], len(data.classes))
        reference = read_npy(Path(evaluation) / "predictions.npy", shape, np.float32)
        document = {
            **description,
            "predictions_sha256": sha256_file(Path(evaluation) / "predictions.npy"),
            "metrics": {name: evaluated[name] for name in METRICS},
            "files": {path.name: _file(path) for path in sorted(folder.iterdir())},
        }
        measurements = {  # what another machine measures otherwise
            "format": MEASUREMENTS_FORMAT,
            "parity": _prove_parity(programs, data, reference),
            "latency_microseconds": {name: _latencies(program, data) for name, program in programs.items()},
            "seconds": {**evaluated["seconds"], "export": time.monotonic() - started},
        }
        write_json(folder / "measurements.json", measurements)
        write_package(folder, document)
    log.info(f"the same class in ONNX Runtime, torch.export and PyTorch for {len(reference):,} test images")


def _open(
    dataset: str | Path, model: str | Path, evaluation: str | Path
) -> tuple[Dataset, saved_model.Model, Document]:
    data, trained = open_dataset(dataset), saved_model.load(model)
    evaluated = read_evaluation(evaluation)
    for name, digest in (("model", trained.digest), ("dataset", data.digest)):
        if evaluated[f"{name}_digest"] != digest:
            raise UserError(
                f"{evaluation} is of the {name} {evaluated[f'{name}_digest']}, not of {digest}; "
                "give what was evaluated, or evaluate anew"
            )
    return data, trained, evaluated


def _describe(model: saved_model.Model, evaluated: Document) -> Document:
    """What a user of the programs must know; it is inside them, too."""
    return {
        "classes": model.classes,
        "input": {"name": "images", "dtype": "uint8", "shape": ["batch", *model.image_shape]},
        "output": {"name": "probabilities", "dtype": "float32", "shape": ["batch", len(model.classes)]},
        "dataset_digest": model.document["dataset_digest"],
        "model_digest": model.digest,
        "weights_sha256": model.document["weights_sha256"],
        "code_version": model.document["code_version"],
        "test_accuracy": evaluated["accuracy"],
    }


def _write_programs(classifier: Classifier, folder: Path, description: Document) -> None:
    """Trace the classifier once, for a batch of any size, and write it in both formats."""
    log.info("tracing")
    example = torch.zeros(2, *description["input"]["shape"][1:], dtype=torch.uint8)
    sizes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(classifier, (example,), dynamic_shapes=sizes)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it tells the paths of this machine
    torch.export.save(
        program, folder / "model.pt2", extra_files={"description.json": json.dumps(description, ensure_ascii=False)}
    )
    log.info("translating to ONNX")
    translated = torch.onnx.export(
        program,
        dynamic_shapes=sizes,
        input_names=["images"],
        output_names=["probabilities"],
        dynamo=True,
        verbose=False,
    )
    assert translated is not None
    graph = translated.model_proto
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in description.items()
    }
    onnx.helper.set_model_props(graph, texts)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save_model(graph, folder / "model.onnx")


def _prove_parity(programs: Mapping[str, Classify], data: Dataset, evaluated: NDArray[np.float32]) -> Document:
    """How far each program, and what was evaluated, lies from PyTorch over the whole test split."""
    shards = list(data.shards("test"))
    progress = log.Progress("comparing", len(programs) * data.counts["test"], "images")
    predictions = {name: predict(program, shards, progress) for name, program in programs.items()}
    eager = predictions.pop("eager")
    differences = {name: _difference(name, found, eager) for name, found in predictions.items()}
    return {
        "images": len(eager),
        "largest_difference": {**differences, "evaluated": _difference("the evaluation", evaluated, eager)},
    }


def _difference(name: str, found: NDArray[np.float32], eager: NDArray[np.float32]) -> float:
    """The largest difference of a probability; ParityError where it is large or a class differs."""
    if found.shape != eager.shape:
        raise ParityError(f"{name} has predictions of shape {found.shape} where PyTorch has {eager.shape}")
    second, first = np.sort(eager, axis=1)[:, -2:].T
    others = int(((found.argmax(axis=1) != eager.argmax(axis=1)) & (first - second >= TIE)).sum())
    largest = float(np.abs(found - eager).max())
    if others or not largest <= TOLERANCE:  # not a number is no parity
        raise ParityError(
            f"{name} and PyTorch differ in the class of {others:,} of {len(eager):,} test images, and by up to "
            f"{largest:.2g} in a probability (allowed: {TOLERANCE:g}); this model is not exported"
        )
    return largest


def _latencies(program: Classify, data: Dataset) -> dict[str, float]:
    """The median microseconds of a call, by batch size."""
    return {
        f"batch_{size}": _latency(program, np.zeros((size, *data.image_shape), np.uint8)) for size in LATENCY_BATCHES
    }


def _latency(program: Classify, batch: Images) -> float:
    program(batch)
    times: list[float] = []
    end = time.perf_counter() + LATENCY_SECONDS
    while not times or time.perf_counter() < end:
        started = time.perf_counter()
        program(batch)
        times.append(time.perf_counter() - started)
    return round(statistics.median(times) * 1e6, 1)


def _file(path: Path) -> Document:
    return {"sha256": sha256_file(path), "bytes": path.stat().st_size}
