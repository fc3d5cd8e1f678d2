"""The trials of a sweep, checked and dealt to pods: pytest tests/training/search/test_planned.py"""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

import pipeline
from components.shared.core.errors import UserError
from components.shared.parameters.sweep import SweepRecipe
from components.shared.parameters.training import TrainingRecipe
from components.shared.training.search.planned import Planned, Rungs, Trial, plan
from runner.parameters import parse_parameters

DEFAULTS = TrainingRecipe()
ASHA = {"stopping": "asha", "store": "s3://b/team"}


def texts(image_size: int = 32, **given: Any) -> list[str]:
    """Return what the pods of a sweep with some parameters get."""
    sweep = {name: given.pop(name) for name in list(given) if name in SweepRecipe.model_fields}
    return [pod.text() for pod in plan(SweepRecipe.of(**sweep), TrainingRecipe.of(**given), image_size)]


def planned(**given: Any) -> list[Planned]:
    """Return what each pod gets to do."""
    return [Planned.read(text) for text in texts(**given)]


def trials(**given: Any) -> list[Trial]:
    """Return the trials of all pods by their numbers."""
    found = [trial for pod in planned(**given) for trial in pod.trials]
    return sorted(found, key=lambda trial: trial.number)


def rungs_of(**given: Any) -> Rungs:
    (pod, *_) = planned(**{**ASHA, **given})
    assert pod.rungs is not None
    return pod.rungs


def test_a_trial_has_all_parameters_overridden_by_its_settings() -> None:
    settings = [{"learning_rate": 0.5}, {"network": "resnet18", "epochs": 2}]
    first, second = trials(epochs=7, seed=3, settings=settings)
    assert first.recipe == TrainingRecipe(epochs=7, seed=3, learning_rate=0.5)
    assert second.recipe == TrainingRecipe(network="resnet18", epochs=2, seed=3)
    assert second.recipe.learning_rate == DEFAULTS.learning_rate
    assert (first.number, second.number) == (1, 2)
    assert (first.settings, second.settings) == ({"learning_rate": 0.5}, {"epochs": 2, "network": "resnet18"})
    assert {pod.rungs for pod in planned()} == {None}


@pytest.mark.parametrize(
    ("count", "parallel", "dealt"),
    [
        (3, 4, [[1], [2], [3]]),
        (4, 4, [[1], [2], [3], [4]]),
        (7, 3, [[1, 4, 7], [2, 5], [3, 6]]),
        (5, 1, [[1, 2, 3, 4, 5]]),
        (1, 100, [[1]]),
    ],
)
def test_trials_are_dealt_to_at_most_parallel_pods_in_turn(count: int, parallel: int, dealt: list[list[int]]) -> None:
    pods = planned(settings=[{"epochs": n} for n in range(1, count + 1)], parallel=parallel)
    assert [[trial.number for trial in pod.trials] for pod in pods] == dealt
    assert all(trial.recipe.epochs == trial.number for pod in pods for trial in pod.trials)


def test_the_order_of_settings_does_not_change_the_text() -> None:
    found = [
        texts(settings=[dict(pairs)])
        for pairs in ([("pooling", "avg"), ("epochs", 2)], [("epochs", 2), ("pooling", "avg")])
    ]
    assert found[0] == found[1]


def test_a_plan_names_what_differs_from_the_defaults_once() -> None:
    settings = [{"learning_rate": rate} for rate in (0.1, 0.2, 0.3, 0.4)] + [{"epochs": 9}, {}]
    store = "s3://b/team"
    assert texts(settings=settings, store=store, parallel=2) == [
        f"store={store}||epochs,learning_rate|1,3|%;0.1|%;0.3|9;%",
        f"store={store}||learning_rate|2,4|0.2|0.4|%",
    ]
    assert texts(settings=[{}]) == ["|||1|"]


def test_a_pods_plan_is_the_same_if_other_pods_get_more_trials() -> None:
    def first(count: int) -> str:
        return texts(settings=[{"epochs": n} for n in range(1, count + 1)], parallel=4)[0]

    assert first(1) == first(2) == first(4) == "||epochs|1|1"
    assert first(5) == first(8) == "||epochs|1,5|1|5"


@pytest.mark.slow
def test_hundreds_of_trials_are_short_texts_without_escapes() -> None:
    settings = [{"learning_rate": n / 1000, "pretrained": f'a "{n}"'} for n in range(1, 401)]
    found = texts(settings=settings, parallel=8)
    assert all(json.dumps(text) == f'"{text}"' for text in found)
    assert sum(map(len, found)) / 400 < 80, "characters for each trial"
    assert [trial.settings for trial in trials(settings=settings, parallel=8)] == settings


def test_a_parameter_may_be_as_in_the_recipe_or_empty() -> None:
    settings = [{"pretrained": ""}, {"epochs": 5}, {"pretrained": "%"}, {"pretrained": "a|b;c=d,%"}, {}]
    found = trials(settings=settings, pretrained="of-all", parallel=1)
    assert [trial.settings for trial in found] == settings
    assert [trial.recipe.pretrained for trial in found] == ["", "of-all", "%", "a|b;c=d,%", "of-all"]


def test_a_network_for_larger_images_is_refused() -> None:
    with pytest.raises(UserError, match="trial 2: inception_v4 accepts images of 23 x 23 pixels or more, not 16 x 16"):
        texts(16, settings=[{"network": "resnet18"}, {"network": "inception_v4"}])


def test_numbers_get_the_type_of_their_parameter() -> None:
    setting = {"epochs": 5.0, "batch_size": 64.0, "learning_rate": 1, "bias": False}
    (trial,) = trials(settings=[setting])
    found = {name: trial.recipe.values()[name] for name in setting}
    assert found == trial.settings == {"epochs": 5, "batch_size": "64", "learning_rate": 1.0, "bias": False}
    assert [type(value) for value in found.values()] == [int, str, float, bool]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "settings=[] has no trial"),
        (
            [{"learning_rte": 0.1}],
            "trial 1: 'learning_rte' is not a parameter of a training (did you mean learning_rate",
        ),
        (
            [{}, {"learnig_rat": 0.1}],
            "trial 2: 'learnig_rat' is not a parameter of a training (did you mean learning_rate",
        ),
        ([{"zzz": 1}], "'zzz' is not a parameter of a training; give one of: network, activation"),
        ([{"seed": 1}], "seed must be the same for all trials; give it outside of settings, as seed=..."),
        ([{"data": "mnist"}], "data must be the same for all trials"),
        ([{"image_size": 64}], "image_size must be the same for all trials"),
        ([{"settings": []}], "settings must be the same for all trials"),
        ([{"epochs": 2.5}], "epochs=2.5 has the wrong type; give a whole number"),
        ([{"epochs": True}], "epochs=true has the wrong type; give a whole number"),
        ([{"epochs": "3"}], 'epochs="3" has the wrong type; give a whole number'),
        ([{"epochs": None}], "epochs=null has the wrong type"),
        ([{"learning_rate": "fast"}], 'learning_rate="fast" has the wrong type; give a number'),
        ([{"bias": 1}], "bias=1 has the wrong type; give true or false"),
        ([{"network": ["lenet5"]}], 'network=["lenet5"] has the wrong type; give a text'),
        ([{"learning_rate": float("inf")}], "trial 1: learning_rate=inf is not accepted; give a number above 0"),
        ([{"learning_rate": 10**400}], "has the wrong type; give a number"),
        ([{"learning_rate": -1}], "trial 1: learning_rate=-1 is not accepted; give a number above 0"),
        ([{"epochs": 0}], "epochs=0 is not accepted; give 1 or more"),
        ([{"optimizer": "adam"}], "optimizer=adam is not accepted; give one of sgd, adamw, muon"),
        ([{"network": "lenet6"}], "lenet6"),
        ([{"mixup": 0.2, "cutmix": 1}], "trial 1: mixup=0.2 and cutmix=1.0 exclude each other"),
        ([{"epochs": 3}, {"epochs": 3.0}], "trials 1 and 2 have the same parameters"),
        ([{"learning_rate": 0.1}, {}, {"epochs": 3}], "trials 2 and 3 have the same parameters"),
        ([[1]], "settings=[[1]] is not accepted; give a list such as"),
    ],
)
def test_an_invalid_setting_is_refused_in_one_line(settings: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        planned(settings=settings)
    assert message in str(error.value)
    assert str(error.value).startswith("settings")
    with pytest.raises(UserError) as error:
        parse_parameters(pipeline.sweep, [f"settings={json.dumps(settings)}"])
    assert message in str(error.value), "on the command line too"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"store": ""}, "stopping=asha compares trials through the store; give store=s3://bucket/prefix"),
        ({"gpus": "2"}, "gpus=2 and stopping=asha exclude each other"),
        ({"reduction": 1}, "reduction=1 is not accepted; give a number from 2 to 100"),
        ({"first_rung": 0}, "first_rung=0 is not accepted"),
        ({"stopping": "median"}, "stopping=median is not accepted; give one of none, asha"),
        ({"parallel": 0}, "parallel=0 is not accepted; give a number from 1 to 100"),
    ],
)
def test_stopping_needs_a_store_one_process_and_valid_rungs(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        planned(**{**ASHA, **given})
    assert message in str(error.value)


def test_only_equal_sweeps_share_their_rungs() -> None:
    settings = [{"epochs": 3}, {"epochs": 9}]
    first = rungs_of(settings=settings, first_rung=1, reduction=3)
    assert (first.first_rung, first.reduction) == (1, 3) and re.fullmatch("[0-9a-f]{64}", first.trials)
    same: list[dict[str, Any]] = [{"store": "s3://another"}, {"parallel": 1}, {"checkpoint_seconds": 7}]
    assert {rungs_of(**{"settings": settings, **one}) for one in same} == {first}
    changed: list[dict[str, Any]] = [{"learning_rate": 0.5}, {"seed": 1}, {"reduction": 2}, {"first_rung": 2}]
    changed += [{"settings": [{"epochs": 3}]}]
    ids = {rungs_of(**{"settings": settings, **one}).sweep_id(dataset_digest="d") for one in changed}
    assert len({first.sweep_id(dataset_digest="d"), first.sweep_id(dataset_digest="e"), *ids}) == 7


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: "x=1" + text,
        lambda text: text + "|5;1",
        lambda text: text.replace("|epochs|", "|epoch|"),
        lambda text: text.replace("|1|", "|one|"),
    ],
)
def test_a_text_that_is_no_plan_is_one_line(change: Callable[[str], str]) -> None:
    (text,) = texts(settings=[{"epochs": 5}])
    with pytest.raises(UserError, match="plans no trials; run the pipeline again"):
        Planned.read(change(text))
