"""Step export: an accepted model -> ONNX and torch.export programs, proven to predict what PyTorch predicts.

Both programs take uint8 images of any batch size and return probabilities: they include normalization and softmax.
"""

import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from components.shared.core import log
from components.shared.core.document import Document, Fingerprint, Number
from components.shared.core.files import new_folder, sha256_file
from components.shared.core.npy import write_npy
from components.shared.core.resources import thread_count
from components.shared.core.step import step
from components.shared.core.torch_runtime import prepare_process
from components.shared.data.dataset import Dataset, Images, Labels
from components.shared.evaluation.behavior import observe
from components.shared.evaluation.classifier import Classifier, on_arrays
from components.shared.evaluation.document import Behavior, Metrics
from components.shared.evaluation.exported_model import (
    Description,
    PackageDocument,
    Preparation,
    RefusalDocument,
    Tensor,
)
from components.shared.evaluation.inference import Classify, batch_size, load_onnx
from components.shared.evaluation.memory_probe import check_need, latency_batch, measure_need
from components.shared.evaluation.metrics import Probabilities, measure
from components.shared.evaluation.parity import Parity, prove_parity
from components.shared.evaluation.programs import write_programs
from components.shared.evaluation.trained_model import open_trained, predict_test_split
from components.shared.models import saved_model
from components.shared.parameters.evaluation import ExportRecipe, Gates

REVISION = 2  # of the package's format
LATENCY_SECONDS = 0.05  # for each program and batch size


class MeasurementsDocument(Document):
    """`measurements.json`, apart from the package, because measurements differ from machine to machine."""

    FORMAT = "torch2kubeflow/measurements"
    REMEDY = "export the model again"

    parity: Parity
    latency_microseconds: dict[str, dict[str, Number]]  # by program and batch size
    seconds: dict[str, Number]  # that each step of the pipeline took


@step
def export(*, dataset: str | Path, model: str | Path, recipe: str, package: str | Path) -> None:
    """Write `model.onnx`, `model.pt2`, `predictions.npy`, `measurements.json` and `package.json` to folder `package`.

    It runs beside step evaluate and comes to the same verdict: if the model is not accepted, there is nothing but
    `refused.json`. Raises UserError if `recipe` is invalid, the model was trained on another dataset, the memory is too
    small, or the network cannot be translated. Raises ParityError if ONNX Runtime or the reloaded torch.export program
    differs from PyTorch in the class of any test image, or by more than 1e-4 in a probability.
    """
    started = time.monotonic()
    parameters = ExportRecipe.read(recipe)
    data, trained = open_trained(dataset, model)
    prepare_process(parameters.threads)
    classifier = Classifier(trained)
    predictions, labels = predict_test_split(classifier, data)
    metrics = measure(predictions, labels, data.classes)
    verdict = metrics.judge(parameters, _gated_behavior(classifier, data, predictions, labels, parameters))
    with new_folder(package) as folder:
        if not verdict.accepted:
            log.info(f"not accepted, not exported: {'; '.join(verdict.reasons)}")
            refusal = RefusalDocument(reasons=verdict.reasons, model_digest=trained.digest)
            refusal.write(folder / "refused.json")
            return
        write_npy(folder / "predictions.npy", predictions)
        description = _describe(trained, metrics)
        write_programs(classifier, folder, description, name=classifier.name, opset=parameters.onnx_opset)
        programs = _load(classifier, folder, parameters.threads)
        batch = batch_size(data.image_shape)
        needs = [measure_need(program, data.image_shape, batch) for program in programs.values()]
        check_need(needs, classifier.name, data.image_shape, min(batch, len(labels)))
        measurements = MeasurementsDocument(
            parity=prove_parity(programs, data, predictions),
            latency_microseconds=_latencies(programs, data, latency_batch(needs, batch)),
            seconds={**trained.history.seconds, "export": time.monotonic() - started},
        )
        measurements.write(folder / "measurements.json")
        _document(folder, description, metrics).write(folder / "package.json")
    log.info(f"the same class in ONNX Runtime, torch.export and PyTorch for {len(predictions):,} test images")


def _gated_behavior(
    classifier: Classifier, data: Dataset, predictions: Probabilities, labels: Labels, gates: Gates
) -> Behavior | None:
    """Return what came of the tests that have a threshold."""
    if not gates.min_behavior:
        return None
    classify, names = on_arrays(classifier), gates.min_behavior
    return observe(classify, data, predictions, labels, images=gates.behavior_images, names=names).behavior


def _load(classifier: Classifier, folder: Path, threads: int) -> dict[str, Classify]:
    """Return the programs in `folder`, and the classifier itself."""
    return {
        "eager": on_arrays(classifier),
        "onnxruntime": load_onnx(folder / "model.onnx", thread_count(threads)),
        "torch_export": on_arrays(torch.export.load(folder / "model.pt2").module()),
    }


def _document(folder: Path, description: Description, metrics: Metrics) -> PackageDocument:
    return PackageDocument(
        **{name: value for name, value in description if value is not None},
        revision=REVISION,
        predictions_sha256=sha256_file(folder / "predictions.npy"),
        metrics=metrics.scalars(),
        files={"model.onnx": _fingerprint(folder / "model.onnx"), "model.pt2": _fingerprint(folder / "model.pt2")},
    ).sealed()


def _describe(model: saved_model.Model, metrics: Metrics) -> Description:
    return Description(
        classes=model.classes,
        input=Tensor(name="images", dtype="uint8", shape=["batch", *model.image_shape]),
        output=Tensor(name="probabilities", dtype="float32", shape=["batch", len(model.classes)]),
        dataset_digest=model.document.dataset_digest,
        model_digest=model.digest,
        weights_sha256=model.document.weights_sha256,
        code_version=model.document.code_version,
        test_accuracy=metrics.accuracy,
        value_range=model.document.value_range,
        preparation=_preparation(model),
        temperature=model.document.temperature,
    )


def _preparation(model: saved_model.Model) -> Preparation:
    channels, size, _ = model.image_shape
    crop: dict[str, bool] = {"crop": True} if model.document.crop else {}
    return Preparation(image_size=size, channels=channels, **crop)


def _latencies(programs: Mapping[str, Classify], data: Dataset, batch: int) -> dict[str, dict[str, float]]:
    """Return the median microseconds of a call of each program, by batch size: 1 and `batch`."""
    sizes = sorted({1, batch})
    return {
        name: {f"batch_{size}": _latency(program, np.zeros((size, *data.image_shape), np.uint8)) for size in sizes}
        for name, program in programs.items()
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


def _fingerprint(path: Path) -> Fingerprint:
    return Fingerprint(sha256=sha256_file(path), bytes=path.stat().st_size)
