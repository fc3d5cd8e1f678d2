"""The documents by which processes exchange trainings: pytest tests/training/distributed/test_task.py"""

import json
import re
from typing import Any

import pytest

from components.shared.core.errors import CorruptDataError, TransientError, UserError
from components.shared.training.distributed.task import TaskDocument, read_result, result_json

TASK = TaskDocument(
    dataset={"digest": "1"}, parameters={"epochs": 2}, seed=0, threads=1, store="s3://bucket", checkpoint_seconds=30
)


def test_a_task_survives_its_document() -> None:
    assert TaskDocument.parse(TASK.to_json(), "job.json") == TASK


@pytest.mark.parametrize(
    "change", [{"dataset": 1}, {"parameters": []}, {"seed": -1}, {"store": None}, {"checkpoint_seconds": 0}]
)
def test_a_task_with_a_wrong_field_is_one_line(change: dict[str, Any]) -> None:
    (field,) = change
    content = json.dumps({**json.loads(TASK.to_json()), **change}).encode()
    with pytest.raises(UserError, match=f"^job.json has no valid field '{field}'; run the pipeline again$"):
        TaskDocument.parse(content, "job.json")


@pytest.mark.parametrize("kind", [UserError, TransientError, CorruptDataError])
def test_an_error_keeps_its_type_message_and_remedy(kind: type[UserError]) -> None:
    result = read_result(result_json(kind("a; b", "c")), "result.json")
    assert type(result) is kind and (result.message, result.remedy) == ("a; b", "c")


def test_the_files_of_a_model_survive_their_document() -> None:
    assert read_result(result_json({"model.json": "0" * 64}), "result.json") == {"model.json": "0" * 64}


@pytest.mark.parametrize(
    ("fields", "invalid"),
    [
        ({}, "error"),
        ({"mistake": "from an older image"}, "error"),
        ({"files": ["model.json"]}, "files"),
        ({"files": {"model.json": 1}}, "files.model.json"),
        ({"files": {"../model.json": "0" * 64}}, "files.../model.json"),
        ({"error": "KeyError", "message": "a", "remedy": ""}, "error"),
        ({"error": "UserError", "message": "a"}, "remedy"),
    ],
)
def test_a_result_that_is_neither_is_one_line(fields: dict[str, Any], invalid: str) -> None:
    content = json.dumps({"format": "torch2kubeflow/job-result", **fields}).encode()
    with pytest.raises(CorruptDataError, match=f"^result.json has no valid field {re.escape(repr(invalid))}; run "):
        read_result(content, "result.json")
    with pytest.raises(CorruptDataError, match=r"^result\.json"):
        read_result(b"\xff", "result.json")
