"""The step evaluate, on a network trained on digits: pytest tests/steps/test_evaluate.py"""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.evaluate import Evaluation, evaluate
from components.shared.core.errors import UserError
from components.shared.data.dataset import open_dataset
from components.shared.evaluation.document import EvaluationDocument
from components.shared.models import saved_model
from components.shared.models.normalize import normalize
from components.shared.parameters.evaluation import EvaluateRecipe
from components.shared.storage.client import open_store
from tests.dataset_writer import DatasetWriter
from tests.evaluation.page import assert_self_contained
from tests.parameters.texts import recipe_text
from tests.servers.s3_server import BUCKET, s3_server
from tests.trained_digits import CLASSES, write_dataset, write_model


def recipe_of(**values: Any) -> str:
    return recipe_text(EvaluateRecipe, **{"min_accuracy": 0.0, "min_recall": 0.0, "threads": 1, **values})


def evaluated(artifacts: Path, folder: Path, store: str = "", /, **thresholds: Any) -> Evaluation:
    return evaluate(
        dataset=artifacts / "dataset",
        model=artifacts / "model",
        recipe=recipe_of(store=store, **thresholds),
        metrics=folder / "metrics.json",
        classification=folder / "classification.json",
        report=folder / "report.html",
        evaluation=folder / "evaluation",
    )


def outcome(artifacts: Path) -> tuple[np.ndarray, np.ndarray, EvaluationDocument]:
    """Probabilities, labels and document."""
    _, labels = open_dataset(artifacts / "dataset").load("test")
    document = EvaluationDocument.read(artifacts / "evaluation/evaluation.json")
    return np.load(artifacts / "evaluation/predictions.npy"), labels, document


def test_predictions_are_the_probabilities_of_the_network(artifacts: Path) -> None:
    probabilities, labels, _ = outcome(artifacts)
    data, model = open_dataset(artifacts / "dataset"), saved_model.load(artifacts / "model")
    images = torch.from_numpy(data.load("test")[0])
    with torch.no_grad():
        expected = model.module(normalize(images, model.mean, model.std)).softmax(1).numpy()
    assert len(list(data.shards("test"))) == 2
    assert probabilities.shape == (len(labels), len(CLASSES)) and probabilities.dtype == np.float32
    assert probabilities == pytest.approx(expected, abs=1e-6)


def test_figures_match_a_calculation_by_hand(artifacts: Path) -> None:
    probabilities, labels, document = outcome(artifacts)
    predicted = [max(range(len(CLASSES)), key=row.__getitem__) for row in probabilities.tolist()]
    matrix = [[0] * len(CLASSES) for _ in CLASSES]
    for label, guess in zip(labels.tolist(), predicted, strict=True):
        matrix[label][guess] += 1
    assert document.confusion_matrix == matrix
    right = sum(matrix[i][i] for i in range(len(CLASSES)))
    assert document.accuracy == right / len(labels) > 0.7
    assert document.accuracy_low < document.accuracy < document.accuracy_high
    for i, row in enumerate(document.per_class):
        column = sum(matrix[j][i] for j in range(len(CLASSES)))
        assert (row.name, row.images) == (CLASSES[i], sum(matrix[i]))
        assert row.recall == pytest.approx(matrix[i][i] / sum(matrix[i]))
        assert row.precision == pytest.approx(matrix[i][i] / column)
        assert row.f1 == pytest.approx(2 * matrix[i][i] / (column + sum(matrix[i])))
    assert document.macro_f1 == pytest.approx(np.mean([row.f1 for row in document.per_class]))
    assert document.weakest_recall == min(row.recall for row in document.per_class)
    losses = [-math.log(row[label]) for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True)]
    assert document.log_loss == pytest.approx(sum(losses) / len(losses))
    assert sum(b.images for b in document.reliability) == len(labels)
    assert 0 < document.expected_calibration_error < 0.3


def test_the_document_names_data_and_model_and_adds_its_seconds(artifacts: Path) -> None:
    _, _, document = outcome(artifacts)
    data, model = open_dataset(artifacts / "dataset"), saved_model.load(artifacts / "model")
    assert (document.dataset_digest, document.model_digest) == (data.digest, model.digest)
    assert list(document.seconds) == ["download", "preprocess", "train", "evaluate"]
    assert document.seconds["train"] == 4 and document.seconds["evaluate"] > 0
    assert document.accepted is True and document.reasons == []


@pytest.mark.slow
@pytest.mark.usefixtures("no_diagrams")
def test_the_result_suits_kubeflow(artifacts: Path, tmp_path: Path) -> None:
    result = evaluated(artifacts, tmp_path)
    assert all(type(value) is float for value in result.metrics.values())
    assert type(result.accepted) is bool
    assert len(json.dumps(result, allow_nan=False)) < 32_000
    assert result.classes == CLASSES


def test_the_report_is_self_contained_and_escapes_names(artifacts: Path) -> None:
    page = assert_self_contained((artifacts / "report.html").read_text())
    for name in ("<b>digits</b>", *CLASSES):
        assert name in page.text


@pytest.mark.usefixtures("no_diagrams")
@pytest.mark.parametrize(
    ("thresholds", "reason"),
    [
        ({"min_accuracy": 1.0}, r"accuracy 0\.\d+ is below min_accuracy=1\.0"),
        ({"min_recall": 1.0}, r"recall 0\.\d+ of class '.*' \(and that of \d more\) is below min_recall=1\.0"),
    ],
)
def test_a_model_below_a_threshold_is_refused_with_the_reason(
    artifacts: Path, tmp_path: Path, thresholds: dict[str, float], reason: str
) -> None:
    assert evaluated(artifacts, tmp_path, **thresholds).accepted is False
    document = EvaluationDocument.read(tmp_path / "evaluation/evaluation.json")
    assert document.accepted is False
    (found,) = document.reasons
    assert re.fullmatch(reason, found)


@pytest.mark.slow
def test_changed_images_are_predicted_and_can_refuse_a_model(artifacts: Path, tmp_path: Path) -> None:
    gates = {"min_behavior": {"inverted": 1.0, "shifted": 0.0}, "behavior_images": 40}
    assert evaluated(artifacts, tmp_path, **gates).accepted is False
    document = EvaluationDocument.read(tmp_path / "evaluation/evaluation.json")
    assert document.behavior and document.behavior.images == 40
    tests = {test.name: test for test in document.behavior.tests}
    assert list(tests) == ["shifted", "thinned", "inverted", "noisy", "occluded"]
    assert document.reasons == [f"accuracy {tests['inverted'].accuracy:g} on inverted images is below 1 (min_behavior)"]
    assert tests["noisy"].unchanged > 0.9 > tests["inverted"].unchanged
    page = assert_self_contained((tmp_path / "report.html").read_text())
    text = page.text[page.text.index("Behavior on changed images") :].partition("Worst mistakes")[0]
    assert all(test.change in text for test in tests.values()) and "100.00%" in text
    with pytest.raises(UserError, match="min_behavior is given, and behavior_images=0 tests nothing"):
        evaluated(artifacts, tmp_path / "none", min_behavior={"noisy": 0.5}, behavior_images=0)


@pytest.mark.slow
def test_slices_are_measured_and_changed_images_only_if_asked(artifacts: Path, tmp_path: Path) -> None:
    evaluated(artifacts, tmp_path, behavior_images=0)
    document = EvaluationDocument.read(tmp_path / "evaluation/evaluation.json")
    assert document.behavior is None and document.slices
    assert [part.accuracy for part in document.slices.by_class] == [row.recall for row in document.per_class]
    assert [part.images for part in document.slices.by_brightness] == [50, 50, 50]
    page = assert_self_contained((tmp_path / "report.html").read_text())
    assert "brightest third" in page.text and "Behavior on changed images" not in page.text


@pytest.mark.slow
def test_a_model_exactly_on_the_thresholds_is_accepted(artifacts: Path, tmp_path: Path) -> None:
    figures = evaluated(artifacts, tmp_path).metrics
    exactly = {"min_accuracy": figures["accuracy"], "min_recall": figures["weakest_recall"]}
    assert evaluated(artifacts, tmp_path, **exactly).accepted is True


@pytest.mark.slow
def test_a_class_that_is_never_predicted(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset", ["zero", "one"], channels=3)
    write_model(tmp_path / "model", dataset, epochs=0)
    result = evaluated(tmp_path, tmp_path)
    assert 0 in np.sum(result.confusion_matrix, axis=0)
    assert result.metrics["weakest_recall"] == 0
    assert_self_contained((tmp_path / "report.html").read_text())


@pytest.mark.slow
def test_a_perfect_model(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    counts = {"train": 64, "val": 2, "test": 20}
    writer = DatasetWriter(tmp_path / "dataset", classes=["black", "white"], image_shape=(1, 32, 32), counts=counts)
    for name, count in counts.items():
        labels = np.arange(count) % 2
        writer.append(
            name, np.broadcast_to(labels[:, None, None, None] * 255, (count, 1, 32, 32)).astype(np.uint8), labels
        )
    writer.finish(name="black and white", seconds={})
    write_model(tmp_path / "model", tmp_path / "dataset", epochs=4)
    result = evaluated(tmp_path, tmp_path, min_accuracy=1.0, min_recall=1.0)
    assert result.accepted and result.metrics["accuracy"] == result.metrics["accuracy_high"] == 1
    assert "every test image was classified correctly" in (tmp_path / "report.html").read_text()


def test_a_dataset_other_than_the_models_is_refused(artifacts: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "dataset", list("0123456789"))
    with pytest.raises(UserError, match=f"was trained on the dataset .*, not on {open_dataset(other).digest}"):
        evaluate(
            dataset=other,
            model=artifacts / "model",
            recipe=recipe_of(),
            metrics=tmp_path / "metrics.json",
            classification=tmp_path / "classification.json",
            report=tmp_path / "report.html",
            evaluation=tmp_path / "evaluation",
        )
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


def test_a_threshold_out_of_range_is_refused(artifacts: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"min_accuracy=1\.5 is not accepted; give a number from 0 to 1"):
        evaluated(artifacts, tmp_path, min_accuracy=1.5)


@pytest.mark.slow  # needs the real server
def test_only_the_last_checkpoint_of_the_training_stays(
    artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = saved_model.load(artifacts / "model")
    (tmp_path / "model").mkdir()
    history = given.history.model_copy(update={"checkpoints": [1, 2]})
    facts = {**dict(given.document), "checkpoint_key": "a" * 64}
    saved_model.save(tmp_path / "model", given.module, history, **facts)
    (tmp_path / "dataset").symlink_to(artifacts / "dataset")
    (tmp_path / "s3").mkdir()
    with s3_server(tmp_path / "s3") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        store = open_store(f"s3://{BUCKET}/prefix", server.environment)
        names = [
            f"checkpoints/{key * 64}/{step:010}.safetensors" for key, step in (("a", 1), ("a", 2), ("a", 3), ("b", 1))
        ]
        for name in names:
            store.put_bytes(b"checkpoint", name)
        evaluated(tmp_path, tmp_path, store.uri())
        assert [entry.name for entry in store.list()] == names[1:], "step 3 is another training's"
        evaluated(tmp_path, tmp_path, "s3://no-such-bucket")
    line = "[evaluate] superseded checkpoints were not deleted: s3://no-such-bucket"
    assert line in capsys.readouterr().out
