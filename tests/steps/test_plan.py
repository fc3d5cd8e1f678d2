"""The step plan: pytest tests/steps/test_plan.py"""

import json
from pathlib import Path
from typing import Any

import pytest

import pipeline
from components import steps
from components.plan import plan
from components.shared.core.errors import UserError
from runner.parameters import parse_parameters
from tests.trained_digits import write_dataset

DEFAULTS = parse_parameters(pipeline.sweep, [])
DEFAULT_INPUTS = {name: DEFAULTS[name] for name in steps.plan.component_spec.inputs if name in DEFAULTS}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("digits") / "dataset")


def planned(dataset: Path, **given: Any) -> list[Any]:
    return [json.loads(text) for text in plan(dataset=dataset, **{**DEFAULT_INPUTS, **given})]


def test_a_trial_has_all_parameters_overridden_by_its_settings(dataset: Path) -> None:
    first, second = planned(dataset, epochs=7, settings=[{"learning_rate": 0.5}, {"network": "resnet18", "epochs": 2}])
    assert first["parameters"] == {**second["parameters"], "learning_rate": 0.5, "network": "lenet5", "epochs": 7}
    assert second["parameters"]["learning_rate"] == DEFAULTS["learning_rate"]
    assert (first["settings"], second["settings"]) == ({"learning_rate": 0.5}, {"network": "resnet18", "epochs": 2})
    assert first["rungs"] is second["rungs"] is None
    assert not {"seed", "threads", "gpus", "data"} & first["parameters"].keys()


def test_the_order_of_settings_does_not_change_the_text(dataset: Path) -> None:
    texts = [
        plan(dataset=dataset, **{**DEFAULT_INPUTS, "settings": [dict(pairs)]})
        for pairs in ([("pooling", "avg"), ("epochs", 2)], [("epochs", 2), ("pooling", "avg")])
    ]
    assert texts[0] == texts[1]


def test_numbers_get_the_type_of_their_parameter(dataset: Path) -> None:
    setting = {"epochs": 5.0, "batch_size": 64.0, "learning_rate": 1, "bias": False}
    (trial,) = planned(dataset, settings=[setting])
    found = {name: trial["parameters"][name] for name in setting}
    assert found == trial["settings"] == {"epochs": 5, "batch_size": "64", "learning_rate": 1.0, "bias": False}
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
        ([{"learning_rate": float("inf")}], "learning_rate=Infinity has the wrong type; give a number"),
        ([{"learning_rate": 10**400}], "has the wrong type; give a number"),
        ([{"learning_rate": -1}], "trial 1: learning_rate=-1.0 is not accepted; give a number above 0"),
        ([{"epochs": 0}], "epochs=0 is not accepted; give 1 or more"),
        ([{"optimizer": "adam"}], "optimizer=adam is not accepted; give one of sgd, adamw, muon"),
        ([{"network": "lenet6"}], "lenet6"),
        ([{"mixup": 0.2, "cutmix": 1}], "trial 1: mixup=0.2 and cutmix=1.0 exclude each other"),
        ([{"epochs": 3}, {"epochs": 3.0}], "trials 1 and 2 have the same parameters"),
        ([{"learning_rate": 0.1}, {}, {"epochs": 3}], "trials 2 and 3 have the same parameters"),
        ([[1]], "settings=[[1]] is not accepted; give a list of objects"),
    ],
)
def test_an_invalid_setting_is_refused_in_one_line(dataset: Path, settings: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        planned(dataset, settings=settings)
    assert message in str(error.value)
    assert str(error.value).startswith("settings")
    if "[[" not in message:  # the command line refuses another type than a list of objects itself
        with pytest.raises(UserError) as error:
            parse_parameters(pipeline.sweep, [f"settings={json.dumps(settings)}"])
        assert message in str(error.value), "on the command line too"


def test_a_network_for_larger_images_is_refused(dataset: Path) -> None:
    with pytest.raises(UserError, match="trial 2: inception_v4 accepts images of 23 x 23 pixels or more, not 16 x 16"):
        planned(dataset, image_size=16, settings=[{"network": "resnet18"}, {"network": "inception_v4"}])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"store": ""}, "stopping=asha compares trials through the store; give store=s3://bucket/prefix"),
        ({"gpus": "2"}, "gpus=2 and stopping=asha exclude each other"),
        ({"reduction": 1}, "reduction=1 is not accepted; give a number from 2 to 100"),
        ({"first_rung": 0}, "first_rung=0 is not accepted"),
        ({"stopping": "median"}, "stopping=median is not accepted; give one of none, asha"),
    ],
)
def test_stopping_needs_a_store_one_process_and_valid_rungs(dataset: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        planned(dataset, **{"stopping": "asha", "store": "s3://b/team", **given})
    assert message in str(error.value)


def test_only_equal_sweeps_share_their_rungs(dataset: Path) -> None:
    def rungs(**given: Any) -> list[Any]:
        settings = [{"epochs": 3}, {"epochs": 9}]
        return [
            trial["rungs"]
            for trial in planned(dataset, **{"stopping": "asha", "store": "s3://b", "settings": settings, **given})
        ]

    first, second = rungs()
    assert (first["trial"], second["trial"]) == ("1", "2")
    assert first["sweep"] == second["sweep"] == rungs(store="s3://another")[0]["sweep"]
    changed = ({"learning_rate": 0.5}, {"seed": 1}, {"reduction": 2}, {"first_rung": 2}, {"settings": [{"epochs": 3}]})
    others = [rungs(**one)[0]["sweep"] for one in changed]
    assert len({first["sweep"], *others}) == 6
