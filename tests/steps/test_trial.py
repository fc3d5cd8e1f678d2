"""The step trial: pytest tests/steps/test_trial.py"""

import json
from pathlib import Path
from typing import Any

import pytest

import pipeline
from components import steps
from components.shared.core.errors import TransientError, UserError, error_from_json
from components.shared.core.files import read_json, sha256_file
from components.train import train
from components.trial import trial
from runner.parameters import parse_parameters
from tests.servers.s3_server import BUCKET, S3Server
from tests.trained_digits import write_dataset

DEFAULTS = parse_parameters(pipeline.training, ["batch_size=64", "epochs=2", "threads=1"])
RUN: dict[str, Any] = {"seed": 0, "threads": 1, "gpus": "0", "store": "", "checkpoint_seconds": 30}
BOTH = {name: DEFAULTS[name] for name in steps.train.component_spec.inputs if name in DEFAULTS}
PARAMETERS = {name: value for name, value in BOTH.items() if name not in RUN}
RUNGS = {"sweep": "s", "first_rung": 1, "reduction": 3}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("digits") / "dataset")


def planned(rungs: dict[str, Any] | None = None, **settings: Any) -> str:
    return json.dumps({"settings": settings, "parameters": {**PARAMETERS, **settings}, "rungs": rungs})


@pytest.mark.slow
def test_a_trial_makes_the_same_model_as_a_training(tmp_path: Path, dataset: Path) -> None:
    trial(dataset=dataset, planned=planned(epochs=1), model=tmp_path / "tried", **RUN)
    train(**{**BOTH, "epochs": 1}, dataset=dataset, model=tmp_path / "trained")
    for name in ("model.json", "model.safetensors"):
        assert sha256_file(tmp_path / "tried" / name) == sha256_file(tmp_path / "trained" / name)
    document = read_json(tmp_path / "tried" / "trial.json", "torch2kubeflow/trial")
    assert (document["settings"], document["error"]) == ({"epochs": 1}, None)


@pytest.mark.slow
def test_a_trial_that_falls_behind_stops_with_a_reason(
    tmp_path: Path, dataset: Path, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    run: dict[str, Any] = {**RUN, "store": f"s3://{BUCKET}/trial", "dataset": dataset}
    trial(planned=planned({**RUNGS, "trial": "1"}), model=tmp_path / "1", **run)
    slow = planned({**RUNGS, "trial": "2"}, learning_rate=1e-5, epochs=5)
    trial(planned=slow, model=tmp_path / "2", **run)
    first, second = (read_json(tmp_path / n / "history.json", "torch2kubeflow/history") for n in ("1", "2"))
    assert (len(first["epochs"]), first["stopped"]) == (2, "")
    assert len(second["epochs"]) == 1
    assert "is not among the best 1/3 of 2 trials" in second["stopped"]
    trial(planned=slow, model=tmp_path / "again", **run)  # resumes from its checkpoint
    again = read_json(tmp_path / "again" / "history.json", "torch2kubeflow/history")
    assert (len(again["epochs"]), again["stopped"]) == (1, second["stopped"])
    trial(planned=planned(learning_rate=1e-5, epochs=5), model=tmp_path / "whole", **run)
    whole = read_json(tmp_path / "whole" / "history.json", "torch2kubeflow/history")
    assert (len(whole["epochs"]), whole["stopped"]) == (5, ""), "another rule takes no stopped training for its own"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "message", "remedy"),
    [
        ({"learning_rate": 1e30, "optimizer": "sgd"}, "the loss became", "give a lower learning_rate"),
        ({"batch_size": "9999"}, "batch_size=9999", "give a smaller"),
    ],
)
def test_a_training_that_fails_by_its_setting_is_a_result(
    tmp_path: Path, dataset: Path, settings: dict[str, Any], message: str, remedy: str
) -> None:
    trial(dataset=dataset, planned=planned(**settings), model=tmp_path / "model", **RUN)
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["trial.json"]
    document = read_json(tmp_path / "model" / "trial.json", "torch2kubeflow/trial")
    error = error_from_json(document["error"])
    assert message in error.message and remedy in str(error)


def test_damaged_data_or_an_outage_is_not_a_result(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"dataset\.json is missing"):
        trial(dataset=tmp_path, planned=planned(), model=tmp_path / "model", **RUN)

    def fail(*_: Any, **__: Any) -> None:
        raise TransientError("the store is out of reach", "try again later")

    monkeypatch.setattr("components.trial.train_model", fail)
    with pytest.raises(TransientError):
        trial(dataset=dataset, planned=planned(), model=tmp_path / "model", **RUN)
    assert not (tmp_path / "model").exists()
