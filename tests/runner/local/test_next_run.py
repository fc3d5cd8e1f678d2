"""The training run that a local run asks for: pytest tests/runner/local/test_next_run.py"""

from pathlib import Path

import pytest

from components.shared.prediction.training_run import NextRunDocument
from runner.local.next_run import run_next
from runner.summary import SummaryDocument


def _ask(runs: Path, **parameters: object) -> None:
    (runs / "20260101-000000").mkdir(parents=True)
    (runs / "latest").symlink_to("20260101-000000")
    NextRunDocument(parameters=parameters).write(runs / "latest/next-run.json")


def test_without_a_request_nothing_follows(tmp_path: Path) -> None:
    assert run_next(tmp_path) == 0


@pytest.mark.slow
def test_the_run_that_was_asked_for_follows(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = {"epochs": 1, "min_accuracy": 0, "learning_rate": 0.01, "node_selector": {"a": "b"}}
    _ask(tmp_path / "runs", data="digits", store="", **settings)
    assert run_next(tmp_path / "runs") == 0
    summary = SummaryDocument.read(tmp_path / "runs/latest/summary.json")
    assert {name: summary.parameters[name] for name in settings} == settings and summary.pipeline.endswith("training")
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_a_run_that_is_refused_fails(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _ask(tmp_path / "runs", data="no such data")
    assert run_next(tmp_path / "runs") == 2
    assert "error: data=no such data" in capfd.readouterr().err
