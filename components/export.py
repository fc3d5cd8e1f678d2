"""Step export: an evaluated model -> ONNX and torch.export programs, proven to predict what was evaluated.

Both programs take uint8 images of any batch size and return probabilities: they include normalization and softmax.
"""

import gc
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch

from components.shared.core import log
from components.shared.core.document import Document, Fingerprint, Number
from components.shared.core.errors import UserError
from components.shared.core.files import new_folder, sha256_file
from components.shared.core.npy import read_npy
from components.shared.core.resources import thread_count
from components.shared.core.step import step
from components.shared.core.torch_runtime import prepare_process
from components.shared.data.dataset import Dataset, Images, open_dataset
from components.shared.evaluation.classifier import Classifier, on_arrays
from components.shared.evaluation.document import EvaluationDocument
from components.shared.evaluation.exported_model import Description, PackageDocument, Tensor
from components.shared.evaluation.inference import Classify, load_onnx
from components.shared.evaluation.parity import Parity, prove_parity
from components.shared.models import saved_model
from components.shared.parameters.common import Threads

LATENCY_BATCHES = (1, 256)
LATENCY_SECONDS = 0.05  # for each program and batch size


class MeasurementsDocument(Document):
    """`measurements.json`, apart from the package, because measurements differ from machine to machine."""

    FORMAT = "torch2kubeflow/measurements"
    REMEDY = "export the model again"

    parity: Parity
    latency_microseconds: dict[str, dict[str, Number]]  # by program and batch size
    seconds: dict[str, Number]  # that each step of the pipeline took


@step
def export(
    *, dataset: str | Path, model: str | Path, evaluation: str | Path, threads: int, package: str | Path
) -> None:
    """Write `model.onnx`, `model.pt2`, `measurements.json` and, last, `package.json` to folder `package`.

    Raises UserError if a parameter is out of range, or `evaluation` is of another model or dataset. Raises ParityError
    if ONNX Runtime or the reloaded torch.export program differs from the predictions that were evaluated in the class
    of any test image, or by more than 1e-4 in a probability; or if these are not what PyTorch predicts here.
    """
    started = time.monotonic()
    Threads.of(threads=threads)
    data, trained, evaluated = _open(dataset, model, evaluation)
    prepare_process(threads)
    classifier = Classifier(trained)
    with new_folder(package) as folder:
        description = _describe(trained, evaluated)
        with _garbage_collection_paused():
            _write_programs(classifier, folder, description)
        programs = {
            "eager": on_arrays(classifier),
            "onnxruntime": load_onnx(folder / "model.onnx", thread_count(threads)),
            "torch_export": on_arrays(torch.export.load(folder / "model.pt2").module()),
        }
        shape = (data.counts["test"], len(data.classes))
        predictions = read_npy(Path(evaluation) / "predictions.npy", shape, np.float32)
        document = PackageDocument(
            **dict(description),
            predictions_sha256=sha256_file(Path(evaluation) / "predictions.npy"),
            metrics=evaluated.scalars(),
            files={
                "model.onnx": _fingerprint(folder / "model.onnx"),
                "model.pt2": _fingerprint(folder / "model.pt2"),
            },
        )
        measurements = MeasurementsDocument(
            parity=prove_parity(programs, data, predictions),
            latency_microseconds={name: _latencies(program, data) for name, program in programs.items()},
            seconds={**evaluated.seconds, "export": time.monotonic() - started},
        )
        measurements.write(folder / "measurements.json")
        document.sealed().write(folder / "package.json")
    log.info(f"the same class in ONNX Runtime, torch.export and PyTorch for {len(predictions):,} test images")


def _open(
    dataset: str | Path, model: str | Path, evaluation: str | Path
) -> tuple[Dataset, saved_model.Model, EvaluationDocument]:
    data, trained = open_dataset(dataset), saved_model.load(model)
    evaluated = EvaluationDocument.read(Path(evaluation) / "evaluation.json")
    for name, found, expected in (
        ("model", evaluated.model_digest, trained.digest),
        ("dataset", evaluated.dataset_digest, data.digest),
    ):
        if found != expected:
            raise UserError(
                f"{evaluation} is of the {name} {found}, not of {expected}",
                f"give the {name} that was evaluated, or evaluate again",
            )
    return data, trained, evaluated


def _describe(model: saved_model.Model, evaluated: EvaluationDocument) -> Description:
    return Description(
        classes=model.classes,
        input=Tensor(name="images", dtype="uint8", shape=["batch", *model.image_shape]),
        output=Tensor(name="probabilities", dtype="float32", shape=["batch", len(model.classes)]),
        dataset_digest=model.document.dataset_digest,
        model_digest=model.digest,
        weights_sha256=model.document.weights_sha256,
        code_version=model.document.code_version,
        test_accuracy=evaluated.accuracy,
    )


def _write_programs(classifier: Classifier, folder: Path, description: Description) -> None:
    """Trace the classifier once, for any batch size, and write it in both formats."""
    log.info("tracing the network")
    example, fields = torch.zeros(2, *description.input.sizes, dtype=torch.uint8), description.model_dump()
    sizes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(classifier, (example,), dynamic_shapes=sizes)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it contains paths of this machine
    torch.export.save(
        program, folder / "model.pt2", extra_files={"description.json": json.dumps(fields, ensure_ascii=False)}
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
        for name, value in fields.items()
    }
    onnx.helper.set_model_props(graph, texts)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save_model(graph, folder / "model.onnx")


@contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    """Import torch.export and the ONNX exporter a fifth faster: the collector would traverse their many objects."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _latencies(program: Classify, data: Dataset) -> dict[str, float]:
    """Return the median microseconds of a call by batch size."""
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


def _fingerprint(path: Path) -> Fingerprint:
    return Fingerprint(sha256=sha256_file(path), bytes=path.stat().st_size)
