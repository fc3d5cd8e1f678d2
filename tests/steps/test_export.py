"""The step export, on a network trained on digits: pytest tests/steps/test_export.py"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from components.export import MeasurementsDocument, export
from components.shared.core.errors import UserError
from components.shared.core.files import sha256_file
from components.shared.data.dataset import open_dataset
from components.shared.evaluation.document import METRICS
from components.shared.evaluation.exported_model import PackageDocument
from components.shared.evaluation.parity import ParityError
from tests.conftest import ROOT
from tests.small_packages import fingerprint
from tests.trained_digits import CLASSES, write_dataset


def exported(artifacts: Path, folder: Path, evaluation: Path | None = None, dataset: Path | None = None) -> Path:
    export(
        dataset=dataset or artifacts / "dataset",
        model=artifacts / "model",
        evaluation=evaluation or artifacts / "evaluation",
        threads=1,
        package=folder / "package",
    )
    return folder / "package"


@pytest.fixture(scope="module")
def package(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(artifacts, tmp_path_factory.mktemp("exported"))


@pytest.fixture
def copied(artifacts: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(artifacts / "evaluation", tmp_path / "evaluation"))


def document(package: Path) -> PackageDocument:
    return PackageDocument.read(package / "package.json")


def evaluated(artifacts: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the test images and their probabilities in the evaluation."""
    images, _ = open_dataset(artifacts / "dataset").load("test")
    return images, np.load(artifacts / "evaluation/predictions.npy")


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 7, 150])
def test_both_programs_predict_what_was_evaluated(artifacts: Path, package: Path, size: int) -> None:
    images, expected = evaluated(artifacts)
    session = onnxruntime.InferenceSession(package / "model.onnx", providers=["CPUExecutionProvider"])
    (by_onnx,) = session.run(["probabilities"], {"images": images[:size]})
    by_torch = torch.export.load(package / "model.pt2").module()(torch.from_numpy(images[:size])).detach().numpy()
    for found in (by_onnx, by_torch):
        assert found == pytest.approx(expected[:size], abs=1e-5)


@pytest.mark.slow
def test_the_programs_describe_themselves(artifacts: Path, package: Path) -> None:
    known = document(package)
    graph = onnx.load(package / "model.onnx")
    onnx.checker.check_model(graph, full_check=True)
    texts = {entry.key: entry.value for entry in graph.metadata_props}
    extra = {"description.json": ""}
    torch.export.load(package / "model.pt2", extra_files=extra)
    description = json.loads(extra["description.json"])
    assert json.loads(texts["classes"]) == description["classes"] == known.classes == CLASSES
    for name in ("dataset_digest", "model_digest", "weights_sha256", "code_version"):
        assert texts[name] == description[name] == getattr(known, name)
    assert float(texts["test_accuracy"]) == known.test_accuracy == known.metrics["accuracy"]
    shape = graph.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in shape] == known.input.shape == ["batch", 1, 32, 32]


@pytest.mark.slow
def test_the_document_lists_files_and_metrics(artifacts: Path, package: Path) -> None:
    known = document(package)
    assert known.files.keys() == {"model.onnx", "model.pt2"}
    for name, entry in known.files.items():
        assert entry == fingerprint(package / name)
    assert known.metrics.keys() == set(METRICS), "no thresholds: they are not figures of the model"
    assert "parity" not in known.fields(), "it differs from CPU to CPU"
    assert known.predictions_sha256 == sha256_file(artifacts / "evaluation/predictions.npy")


@pytest.mark.slow
def test_measurements_are_apart_from_the_package(package: Path) -> None:
    measured = MeasurementsDocument.read(package / "measurements.json")
    assert measured.parity.images == 150
    assert all(0 <= difference < 1e-5 for difference in measured.parity.largest_difference.values())
    assert measured.parity.largest_difference.keys() == {"onnxruntime", "torch_export", "evaluated"}
    assert measured.latency_microseconds.keys() == {"eager", "onnxruntime", "torch_export"}
    for latencies in measured.latency_microseconds.values():
        assert 0 < latencies["batch_1"] < latencies["batch_256"]
    assert list(measured.seconds) == ["download", "preprocess", "train", "evaluate", "export"]


@pytest.mark.slow
def test_a_model_exported_again_is_the_same_package(artifacts: Path, package: Path, tmp_path: Path) -> None:
    again = exported(artifacts, tmp_path)
    for name in ("package.json", "model.onnx", "model.pt2"):
        assert (again / name).read_bytes() == (package / name).read_bytes(), name


@pytest.mark.slow
def test_other_thresholds_give_the_same_package(artifacts: Path, package: Path, copied: Path, tmp_path: Path) -> None:
    path = copied / "evaluation.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "min_accuracy": 0.123, "min_recall": 0.1}))
    again = exported(artifacts, tmp_path, evaluation=copied)
    assert document(again).digest == document(package).digest


@pytest.mark.slow
def test_a_package_that_was_changed_is_refused(package: Path, tmp_path: Path) -> None:
    document(package).model_copy(update={"test_accuracy": 1.0}).write(tmp_path / "package.json")
    with pytest.raises(UserError, match="differs from its digest; export the model again"):
        document(tmp_path)


@pytest.mark.slow
def test_the_programs_contain_no_paths_of_this_machine(package: Path) -> None:
    here = str(Path(__file__).parents[2]).encode()
    for name in ("model.onnx", "model.pt2"):  # neither is compressed
        assert here not in (package / name).read_bytes()


@pytest.mark.slow
def test_predictions_of_other_classes_stop_the_export(artifacts: Path, copied: Path, tmp_path: Path) -> None:
    predictions = np.load(copied / "predictions.npy")
    predictions[[3, 77]] = np.roll(predictions[[3, 77]], 1, axis=1)
    np.save(copied / "predictions.npy", predictions)
    with pytest.raises(ParityError, match="the evaluation and PyTorch differ in the class of 2 of 150 test images"):
        exported(artifacts, tmp_path, evaluation=copied)
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation"]


@pytest.mark.slow
@pytest.mark.parametrize("value", [0.2, np.nan])
def test_predictions_of_other_probabilities_stop_the_export(
    artifacts: Path, copied: Path, tmp_path: Path, value: float
) -> None:
    predictions = np.load(copied / "predictions.npy")
    predictions[5, predictions[5].argmin()] = value
    np.save(copied / "predictions.npy", predictions)
    with pytest.raises(ParityError, match="in a probability"):
        exported(artifacts, tmp_path, evaluation=copied)


def test_an_evaluation_of_another_model_is_refused(artifacts: Path, copied: Path, tmp_path: Path) -> None:
    path = copied / "evaluation.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_digest": "0" * 64}))
    with pytest.raises(UserError, match=f"is of the model {'0' * 64}, not of"):
        exported(artifacts, tmp_path, evaluation=copied)


def test_another_dataset_than_the_evaluated_one_is_refused(artifacts: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "dataset", list("0123456789"))
    with pytest.raises(UserError, match=r"is of the dataset .*, not of"):
        exported(artifacts, tmp_path, dataset=other)
    assert not (tmp_path / "package").exists()


@pytest.mark.parametrize("field", ["model_digest", "log_loss", "seconds"])
def test_an_evaluation_without_a_field_is_refused(artifacts: Path, copied: Path, tmp_path: Path, field: str) -> None:
    path = copied / "evaluation.json"
    path.write_text(json.dumps({name: v for name, v in json.loads(path.read_text()).items() if name != field}))
    with pytest.raises(UserError, match=f"no valid field '{field}'; evaluate the model again"):
        exported(artifacts, tmp_path, evaluation=copied)


def test_a_folder_without_evaluation_is_refused(artifacts: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"evaluation\.json is missing"):
        exported(artifacts, tmp_path, evaluation=tmp_path)


@pytest.mark.slow
def test_onnx_runtime_sends_no_telemetry(tmp_path: Path) -> None:
    code = "import components.shared.evaluation.inference as p, pathlib, sys; p.load_onnx(pathlib.Path(sys.argv[1]), 1)"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    run = subprocess.run([sys.executable, "-c", code, "none.onnx"], cwd=ROOT, env=environment, capture_output=True)
    assert b"none.onnx" in run.stderr  # it got as far as loading the model
    assert not list(tmp_path.iterdir()), "it collects telemetry in the user's cache"
