"""The step trial: pytest tests/steps/test_trial.py"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components import trial as step
from components.shared.core.errors import TransientError, UserError
from components.shared.core.files import sha256_file
from components.shared.models.document import HistoryDocument
from components.shared.parameters.training import TrainingRecipe
from components.shared.training.loop import Training
from components.shared.training.search.outcome import TrialDocument
from components.shared.training.search.planned import Planned, Rungs, Trial
from components.train import train
from components.trial import trial
from tests.trained_digits import write_dataset

COMMON: dict[str, Any] = {"batch_size": "64", "epochs": 2, "threads": 1}
RUNGS = Rungs(trials="all", first_rung=1, reduction=3)
FALLS_BEHIND: dict[str, Any] = {"learning_rate": 1e-5, "epochs": 5}


class Killed(BaseException):
    """Stands for kill -9."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("digits") / "dataset")


def planned(*settings: dict[str, Any], first: int = 1, rungs: Rungs | None = None, **common: Any) -> str:
    """The plan of a pod with a trial for each of the settings, numbered from `first`."""
    recipe = TrainingRecipe.of(**{**COMMON, **common})
    trials = [
        Trial(number, setting, TrainingRecipe.of(**{**recipe.values(), **setting}))
        for number, setting in enumerate(settings, first)
    ]
    return Planned(recipe, rungs, trials).text()


def history(folder: Path) -> HistoryDocument:
    return HistoryDocument.read(folder / "history.json")


def document(folder: Path) -> TrialDocument:
    return TrialDocument.read(folder / "trial.json")


@pytest.fixture
def steps_taken(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The learning rate of each step that a training takes."""
    steps, taken = Training.steps, []

    def counted(training: Training) -> Iterator[None]:
        for _ in steps(training):
            taken.append(training.settings.learning_rate)
            yield

    monkeypatch.setattr(Training, "steps", counted)
    return taken


@pytest.mark.slow
def test_a_trial_makes_the_same_model_as_a_training(tmp_path: Path, dataset: Path) -> None:
    trial(dataset=dataset, planned=planned({"epochs": 1}, first=4), trials=tmp_path / "tried")
    recipe = TrainingRecipe.of(**{**COMMON, "epochs": 1}).text()
    train(dataset=dataset, recipe=recipe, model=tmp_path / "trained")
    tried = tmp_path / "tried" / "4"
    for name in ("model.json", "model.safetensors"):
        assert sha256_file(tried / name) == sha256_file(tmp_path / "trained" / name)
    found = document(tried)
    assert (found.number, found.settings, found.error) == (4, {"epochs": 1}, None)


@pytest.mark.slow
def test_of_several_trials_only_the_best_keeps_its_weights(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings: list[dict[str, Any]] = [{"learning_rate": 1e-5}, {}, {"learning_rate": 1e30, "optimizer": "sgd"}]
    settings += [{"learning_rate": 1e-4}]
    trial(dataset=dataset, planned=planned(*settings, first=7, epochs=1), trials=tmp_path / "trials")
    assert sorted(path.name for path in (tmp_path / "trials").iterdir()) == ["10", "7", "8", "9"]
    assert [document(tmp_path / "trials" / n).settings for n in ("7", "8", "9", "10")] == settings
    whole = {"model.json", "history.json", "trial.json"}
    files = {n: {path.name for path in (tmp_path / "trials" / n).iterdir()} for n in ("7", "8", "9", "10")}
    assert files == {"7": whole, "8": {*whole, "model.safetensors"}, "9": {"trial.json"}, "10": whole}
    assert "[trial] trial 9 ended without a model: the loss became" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("s3_variables")
def test_a_trial_that_falls_behind_stops_with_a_reason(tmp_path: Path, dataset: Path, uri: str) -> None:
    both = planned({}, FALLS_BEHIND, rungs=RUNGS, store=uri)
    trial(dataset=dataset, planned=both, trials=tmp_path / "both")
    first, second = (history(tmp_path / "both" / n) for n in ("1", "2"))
    assert (len(first.epochs), first.stopped) == (2, "")
    assert len(second.epochs) == 1
    assert "is not among the best 1/3 of 2 trials" in second.stopped
    trial(dataset=dataset, planned=both, trials=tmp_path / "again")  # resumes from its checkpoint
    again = history(tmp_path / "again" / "2")
    assert (len(again.epochs), again.stopped) == (1, second.stopped)
    trial(dataset=dataset, planned=planned(FALLS_BEHIND, store=uri), trials=tmp_path / "whole")
    whole = history(tmp_path / "whole" / "1")
    assert (len(whole.epochs), whole.stopped) == (5, ""), "another rule takes no stopped training for its own"


@pytest.mark.slow
@pytest.mark.usefixtures("s3_variables")
def test_trials_in_other_pods_are_compared_through_the_store(tmp_path: Path, dataset: Path, uri: str) -> None:
    for number, setting in ((1, {}), (2, FALLS_BEHIND)):
        one = planned(setting, first=number, rungs=RUNGS, store=uri)
        trial(dataset=dataset, planned=one, trials=tmp_path / str(number))
    assert history(tmp_path / "1" / "1").stopped == ""
    assert "is not among the best 1/3 of 2 trials" in history(tmp_path / "2" / "2").stopped


@pytest.mark.slow
@pytest.mark.usefixtures("s3_variables")
def test_a_killed_pod_trains_no_finished_trial_again(
    tmp_path: Path, dataset: Path, uri: str, steps_taken: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = {"learning_rate": 0.02}, {"learning_rate": 0.01}
    plan = planned(one, two, store=uri)
    trial(dataset=dataset, planned=planned(one, two), trials=tmp_path / "whole")
    expected, counts = history(tmp_path / "whole" / "1"), [steps_taken.count(rate) for rate in (0.02, 0.01)]
    steps_taken.clear()
    with monkeypatch.context() as patch:
        patch.setattr(step, "keep_best_weights", killing)
        with pytest.raises(Killed):
            trial(dataset=dataset, planned=plan, trials=tmp_path / "trials")
    assert not (tmp_path / "trials").exists() and set(steps_taken) == {0.02}
    steps_taken.clear()
    trial(dataset=dataset, planned=plan, trials=tmp_path / "trials")
    assert [steps_taken.count(rate) for rate in (0.02, 0.01)] == [0, counts[1]]
    for name in ("1", "2"):
        for file in ("model.json", "trial.json"):
            assert sha256_file(tmp_path / "trials" / name / file) == sha256_file(tmp_path / "whole" / name / file)
    resumed = history(tmp_path / "trials" / "1")
    assert [row.val_loss for row in resumed.epochs] == [row.val_loss for row in expected.epochs]


def killing(_: Path) -> None:
    raise Killed


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
    trial(dataset=dataset, planned=planned(settings), trials=tmp_path / "trials")
    assert [path.name for path in (tmp_path / "trials" / "1").iterdir()] == ["trial.json"]
    error = document(tmp_path / "trials" / "1").error
    assert error and error.error == "UserError" and message in error.message and remedy in error.remedy


def test_damaged_data_or_an_outage_is_not_a_result(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"dataset\.json is missing"):
        trial(dataset=tmp_path, planned=planned({}), trials=tmp_path / "trials")

    def fail(*_: Any, **__: Any) -> None:
        raise TransientError("the store is out of reach", "try again later")

    monkeypatch.setattr("components.shared.training.machine.train_model", fail)
    with pytest.raises(TransientError):
        trial(dataset=dataset, planned=planned({}), trials=tmp_path / "trials")
    assert not (tmp_path / "trials").exists()
