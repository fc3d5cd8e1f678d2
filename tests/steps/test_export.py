"""The step export, on a network trained on digits: pytest tests/steps/test_export.py"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from components.export import MeasurementsDocument, export
from components.shared.core.errors import UserError
from components.shared.core.files import sha256_file
from components.shared.data.dataset import open_dataset
from components.shared.evaluation.document import METRICS, EvaluationDocument
from components.shared.evaluation.exported_model import PackageDocument, RefusalDocument
from components.shared.evaluation.inference import Classify, load_onnx
from components.shared.evaluation.memory_probe import Need
from components.shared.evaluation.parity import ParityError
from components.shared.parameters.evaluation import ExportRecipe
from runner.registry.pickles import pickles
from tests.conftest import ROOT
from tests.small_packages import fingerprint
from tests.trained_digits import CLASSES, write_dataset


def exported(artifacts: Path, folder: Path, dataset: Path | None = None, **values: Any) -> Path:
    export(
        dataset=dataset or artifacts / "dataset",
        model=artifacts / "model",
        recipe=ExportRecipe.of(**{"min_accuracy": 0.5, "min_recall": 0.1, **values}, threads=1).text(),
        package=folder / "package",
    )
    return folder / "package"


@pytest.fixture(scope="module")
def package(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(artifacts, tmp_path_factory.mktemp("exported"))


def document(package: Path) -> PackageDocument:
    return PackageDocument.read(package / "package.json")


def versions(graph: onnx.ModelProto) -> tuple[int, int]:
    """Return the version of the operators, the only ones, and that of the format."""
    (operators,) = graph.opset_import
    return operators.version, graph.ir_version


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
    assert versions(graph) == (18, 8), "what ONNX Runtime 1.14 reads, and Triton 23.05"
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
def test_the_program_holds_no_pickle(package: Path) -> None:
    assert pickles(package / "model.pt2") == []


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
    assert measured.parity.largest_difference.keys() == {"onnxruntime", "torch_export"}
    assert measured.latency_microseconds.keys() == {"eager", "onnxruntime", "torch_export"}
    for latencies in measured.latency_microseconds.values():
        assert 0 < latencies["batch_1"] < latencies["batch_256"]
    assert list(measured.seconds) == ["download", "preprocess", "train", "export"]


@pytest.mark.slow
def test_a_model_exported_again_is_the_same_package(artifacts: Path, package: Path, tmp_path: Path) -> None:
    again = exported(artifacts, tmp_path)
    for name in ("package.json", "model.onnx", "model.pt2"):
        assert (again / name).read_bytes() == (package / name).read_bytes(), name


@pytest.mark.slow
def test_other_thresholds_give_the_same_package(artifacts: Path, package: Path, tmp_path: Path) -> None:
    again = exported(artifacts, tmp_path, min_accuracy=0.123)
    assert document(again).digest == document(package).digest


@pytest.mark.slow
def test_the_opset_is_the_one_that_was_asked_for(artifacts: Path, tmp_path: Path) -> None:
    assert versions(onnx.load(exported(artifacts, tmp_path, onnx_opset=21) / "model.onnx")) == (21, 10)


@pytest.mark.slow
def test_the_predictions_are_those_that_were_evaluated(artifacts: Path, package: Path) -> None:
    found = (package / "predictions.npy").read_bytes()
    assert found == (artifacts / "evaluation/predictions.npy").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gates", "reason"),
    [
        ({"min_accuracy": 1.0}, r"accuracy 0\.\d+ is below min_accuracy=1\.0"),
        ({"min_recall": 1.0}, r"recall 0\.\d+ of class .* is below min_recall=1\.0"),
        ({"min_behavior": {"occluded": 1.0}}, r"accuracy 0\.\d+ on occluded images is below 1 \(min_behavior\)"),
    ],
)
def test_a_model_that_is_not_accepted_is_not_exported(
    artifacts: Path, tmp_path: Path, gates: dict[str, Any], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    package = exported(artifacts, tmp_path, **gates)
    assert [path.name for path in package.iterdir()] == ["refused.json"]
    (found,) = RefusalDocument.read(package / "refused.json").reasons
    assert re.fullmatch(reason, found)
    assert f"[export] not accepted, not exported: {found}\n" in capsys.readouterr().out
    if "min_behavior" in gates:
        document = EvaluationDocument.read(artifacts / "evaluation/evaluation.json")
        assert document.behavior and document.behavior.reasons(gates["min_behavior"]) == [found], "evaluate's verdict"


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
def test_a_batch_beyond_the_memory_stops_before_predicting(
    artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.shared.evaluation.trained_model.measure_need", lambda *_: Need(2**50, 0))
    with pytest.raises(UserError, match=r"lenet5 needs about .* to predict 150 images of 32 x 32 pixels at once"):
        exported(artifacts, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: np.roll(found, 1, axis=1), "onnxruntime and PyTorch differ in the class of 150 of 150 test"),
        (lambda found: found + np.float32(0.01), "in a probability"),
        (lambda found: found * np.float32(np.nan), "in a probability"),
    ],
)
def test_a_program_that_predicts_otherwise_stops_the_export(
    artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, message: str
) -> None:
    def load(path: Path, threads: int) -> Classify:
        classify = load_onnx(path, threads)
        return lambda images: change(classify(images))

    monkeypatch.setattr("components.export.load_onnx", load)
    with pytest.raises(ParityError, match=message):
        exported(artifacts, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_another_dataset_than_that_of_the_training_is_refused(artifacts: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "dataset", list("0123456789"))
    with pytest.raises(UserError, match=r"was trained on the dataset .*, not on"):
        exported(artifacts, tmp_path, dataset=other)
    assert not (tmp_path / "package").exists()


@pytest.mark.slow
def test_a_program_that_does_not_fit_is_not_begun(
    artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**17))  # PyTorch would abort the process
    with pytest.raises(OSError, match=r"No space left on device: .*model\.pt2"):
        exported(artifacts, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_onnx_runtime_sends_no_telemetry(tmp_path: Path) -> None:
    code = "import components.shared.evaluation.inference as p, pathlib, sys; p.load_onnx(pathlib.Path(sys.argv[1]), 1)"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    run = subprocess.run([sys.executable, "-c", code, "none.onnx"], cwd=ROOT, env=environment, capture_output=True)
    assert b"none.onnx" in run.stderr  # it got as far as loading the model
    assert not list(tmp_path.iterdir()), "it collects telemetry in the user's cache"
