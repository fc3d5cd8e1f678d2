"""The documents of an evaluated and of an exported model: pytest tests/evaluation/test_document.py"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.shared.core.errors import UserError
from components.shared.core.files import MAX_JSON_BYTES, sha256_without
from components.shared.evaluation.document import EvaluationDocument
from components.shared.evaluation.exported_model import PackageDocument
from tests.small_packages import CLASSES, evaluation_of, package_of

ONE_HALF = {"class": "dark", "images": 1, "precision": 0.5, "recall": 0.5, "f1": 0.5}


def evaluation() -> dict[str, Any]:
    right = np.eye(2, dtype=np.float32)
    return evaluation_of(right, np.array([0, 1]), CLASSES, dataset="d" * 64, model="e" * 64).fields()


def package(**changes: Any) -> dict[str, Any]:
    """Return the content of package.json, some fields changed, with its digest."""
    content = {**package_of(classes=CLASSES, image_shape=[1, 4, 4]).fields(), **changes}
    return {**content, "digest": sha256_without(content, "digest")}


def tensor(*shape: object) -> dict[str, Any]:
    return {"name": "images", "dtype": "uint8", "shape": [*shape]}


def test_an_evaluation_may_exceed_the_usual_limit(tmp_path: Path) -> None:
    content = json.dumps({**evaluation(), "code_version": ""}).encode()
    (tmp_path / "evaluation.json").write_bytes(content.ljust(MAX_JSON_BYTES + 1))
    assert EvaluationDocument.read(tmp_path / "evaluation.json").accuracy == 1


def test_an_evaluation_reads_from_the_verdict_to_the_figures() -> None:
    names = list(evaluation())
    assert names[:5] == ["format", "accepted", "reasons", "min_accuracy", "min_recall"]
    assert names[5:8] == ["images", "accuracy", "accuracy_low"] and names[-1] == "seconds"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"reasons": ["too low"]}, "reasons"),
        ({"accuracy": 1.5}, "accuracy"),
        ({"accuracy": True}, "accuracy"),
        ({"log_loss": None}, "log_loss"),
        ({"per_class": [ONE_HALF, ONE_HALF]}, "per_class"),
        ({"per_class": [{**ONE_HALF, "images": 0}]}, "per_class.0.images"),
        ({"confusion_matrix": [[1, 0]]}, "confusion_matrix"),
        ({"confusion_matrix": [[1, 0], [1]]}, "confusion_matrix"),
        ({"confusion_matrix": [[1, 0], [0, -1]]}, "confusion_matrix.1.1"),
        ({"reliability": [{"low": 0.0}]}, "reliability.0.high"),
    ],
)
def test_an_evaluation_that_contradicts_itself_is_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(UserError, match=f"x.json has no valid field '{field}'; evaluate the model again"):
        EvaluationDocument.parse(json.dumps({**evaluation(), **changes}).encode(), "x.json")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"input": tensor(1, 4, 4)}, "no valid field 'input.shape'"),
        ({"input": tensor("batch")}, "no valid field 'input.shape'"),
        ({"input": tensor("batch", 4, 0)}, "no valid field 'input.shape'"),
        ({"input": tensor("batch", True)}, "no valid field 'input.shape'"),
        ({"output": {**tensor("batch", 2), "layout": ""}}, "the unknown field 'output.layout'"),
        ({"files": {}}, "no valid field 'files'"),
        ({"files": {"../model.onnx": {"sha256": "c" * 64, "bytes": 1}}}, "no valid field 'files"),
        ({"classes": []}, "no valid field 'classes'"),
    ],
)
def test_a_package_with_an_invalid_field_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=f"x.json has {problem}"):
        PackageDocument.parse(json.dumps(package(**changes)).encode(), "x.json")


def test_the_sizes_of_a_tensor_leave_out_the_batch() -> None:
    assert PackageDocument.parse(json.dumps(package()).encode(), "x.json").input.sizes == [1, 4, 4]
