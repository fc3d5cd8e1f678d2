"""Recipes: each parameter's rule, and the texts that steps take."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.shared.core.document import MAX_COUNT
from components.shared.core.errors import UserError
from components.shared.parameters.common import StoreUri
from components.shared.parameters.evaluation import EvaluateRecipe, ExportRecipe
from components.shared.parameters.preparation import PreprocessRecipe
from components.shared.parameters.recipe import Recipe
from components.shared.parameters.registration import RegisterRecipe
from components.shared.parameters.sweep import SweepRecipe
from components.shared.parameters.table import Parameters, SweepParameters
from components.shared.parameters.training import Settings, TrainingRecipe
from components.shared.training.search.planned import Planned, Rungs, Trial

DIGEST = "#sha256=" + "0" * 64
RECIPES = [PreprocessRecipe, TrainingRecipe, SweepRecipe, EvaluateRecipe, ExportRecipe, RegisterRecipe]
HOSTILE = [
    '"',
    "'",
    "\\",
    "a|b",
    "a;b",
    "a=b",
    "%",
    "%22",
    "&<>",
    " a ",
    "naïve/三",
    "a\nb\t",
    "\u2028",
    "\x7f",
    "{{$}}",
]
PLAIN = re.compile(r"[\w/:,.\-~+@ =;|%]*", re.ASCII)  # none of which JSON escapes, not in Go either


@pytest.mark.parametrize("name", ["data", "store", "pretrained", "network", "s3_secret"])
@pytest.mark.parametrize("value", ["", "a", "s3://", "s3://bucket/../a", "://", "#", "s3://bucket/\n", "\ud800"])
def test_the_rule_of_a_text_accepts_or_refuses_in_one_line(name: str, value: str) -> None:
    try:
        assert getattr(Parameters.of(**{name: value}), name) == value
    except UserError as error:
        assert name in error.message or "there is no network" in error.message
        assert error.remedy and "\n" not in str(error)


@pytest.mark.parametrize("value", ["", "s3://bucket", "s3://bucket/prefix/"])
def test_a_store_is_empty_or_an_s3_uri(value: str) -> None:
    assert StoreUri.of(store=value).store == value


@pytest.mark.parametrize("value", ["bucket/prefix", "https://bucket", "s3://bucket/../a"])
def test_any_other_store_is_refused(value: str) -> None:
    with pytest.raises(UserError, match=f"^store={value} is not accepted; give s3://bucket or s3://bucket/prefix$"):
        StoreUri.of(store=value)


@pytest.mark.parametrize("value", ["", "a/model.safetensors", "s3://bucket/a", f"s3://bucket/a{DIGEST}", f"/a{DIGEST}"])
def test_pretrained_weights_are_a_path_or_in_s3(value: str) -> None:
    assert Settings.of(pretrained=value).pretrained == value


@pytest.mark.parametrize("value", ["https://a/b", "s3://bucket/../a", "/a#sha256=0", f"/a{DIGEST}0", DIGEST])
def test_any_other_pretrained_weights_are_refused(value: str) -> None:
    with pytest.raises(UserError, match=r"is not accepted; give s3://bucket/\.\.\. or a path"):
        Settings.of(pretrained=value)


@pytest.mark.parametrize("name", ["bias", "flip", "torch_compile", "deterministic"])
def test_a_switch_is_true_or_false(name: str) -> None:
    assert getattr(Settings.of(**{name: False}), name) is False
    with pytest.raises(UserError, match=f"^{name}=1 has the wrong type; give true or false$"):
        Settings.of(**{name: 1})


@pytest.mark.parametrize(
    "name, value", [("learning_rate", float("inf")), ("rotation", float("nan")), ("mixup", -float("inf"))]
)
def test_a_number_is_finite(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"^{name}={value} is not accepted; give a number"):
        Settings.of(**{name: value})


@pytest.mark.parametrize("value", [2**53 + 1, 2**53 + 2.0, 10**400, -(2**53) - 1])
def test_a_whole_number_above_2_to_the_53_is_refused(value: float) -> None:
    assert Settings.of(epochs=MAX_COUNT).epochs == Settings.of(epochs=float(MAX_COUNT)).epochs == 2**53
    with pytest.raises(UserError, match=r"^epochs=-?\d+(\.0)? has the wrong type; give a whole number$"):
        Settings.of(epochs=value)


@pytest.mark.parametrize(
    ("value", "accepted"),
    [("auto", 0), ("1", 1), ("64", 64), (64, 64), (64.0, 64), ("999999999", 999_999_999)],
)
def test_a_batch_size_is_a_text_or_a_whole_number(value: Any, accepted: int) -> None:
    found = Settings.of(batch_size=value)
    assert found.batch_size == accepted
    assert found.values()["batch_size"] == ("auto" if accepted == 0 else str(accepted))


@pytest.mark.parametrize("value", ["", "0", "064", "-1", "6.4", "1e3", "٣", "1000000000", 0, 64.5, True, None, "Auto"])
def test_any_other_batch_size_is_refused(value: Any) -> None:
    with pytest.raises(UserError, match=r"^batch_size=.* is not accepted; give 1 or more, or auto$"):
        Settings.of(batch_size=value)


@pytest.mark.parametrize("value", ["", "auto", "00", "-1", "100", 100, 1.5])
def test_gpus_are_a_whole_number_below_100(value: Any) -> None:
    assert (Settings.of(gpus="99").gpus, Settings.of(gpus=0).values()["gpus"]) == (99, "0")
    with pytest.raises(UserError, match=r"^gpus=.* is not accepted; give a whole number from 0 to 99$"):
        Settings.of(gpus=value)


def test_parameters_that_exclude_each_other_are_refused() -> None:
    Settings.of(mixup=0.2, cutmix=0.0)
    with pytest.raises(UserError, match=r"mixup=0\.2 and cutmix=1\.0 exclude each other; set one of them to 0"):
        Settings.of(mixup=0.2, cutmix=1.0)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"^'handover' is not a parameter \(did you mean handover_mib\?\); give one of"):
        PreprocessRecipe.of(handover=0)
    with pytest.raises(UserError, match=r"^'val_fracton' is not a parameter \(did you mean val_fraction or "):
        PreprocessRecipe.of(val_fracton=0.1)


@pytest.mark.parametrize("recipe", [*RECIPES, Parameters, SweepParameters])
def test_the_defaults_are_accepted_and_survive_their_text(recipe: type[Recipe]) -> None:
    defaults = recipe()
    assert recipe.of(**defaults.values()) == recipe.read(defaults.text()) == defaults
    assert defaults.text().split(";") == sorted(defaults.text().split(";"))


@pytest.mark.parametrize(
    ("recipe", "one", "same"),
    [
        (Settings, {"epochs": 5}, {"epochs": 5.0}),
        (Settings, {"learning_rate": 5}, {"learning_rate": 5.0}),
        (Settings, {"batch_size": "64"}, {"batch_size": 64.0}),
        (EvaluateRecipe, {"min_recall": 1}, {"min_recall": 1.0}),
        (
            EvaluateRecipe,
            {"min_behavior": {"noisy": 1, "shifted": 0}},
            {"min_behavior": {"shifted": 0.0, "noisy": 1.0}},
        ),
        (SweepRecipe, {"settings": [{"epochs": 2, "bias": True}]}, {"settings": [{"bias": True, "epochs": 2}]}),
    ],
)
def test_equal_values_of_other_types_give_one_text(
    recipe: type[Recipe], one: dict[str, Any], same: dict[str, Any]
) -> None:
    assert recipe.of(**one).text() == recipe.of(**same).text() != recipe().text()


@pytest.mark.parametrize("value", HOSTILE)
def test_a_text_survives_the_text_of_its_recipe(value: str) -> None:
    recipe = TrainingRecipe.of(pretrained=value)
    assert TrainingRecipe.read(recipe.text()) == recipe
    trials = [Trial(7, {"epochs": 9, "pretrained": value}, TrainingRecipe.of(pretrained=value, epochs=9))]
    for rungs in (None, Rungs(trials="a" * 64)):
        planned = Planned(recipe, rungs, trials)
        assert Planned.read(planned.text()) == planned
        assert_plain(planned.text())
    sweep = SweepRecipe.of(settings=[{"pretrained": value}, {value: value}])
    assert SweepRecipe.read(sweep.text()) == sweep
    for text in (recipe.text(), sweep.text()):
        assert_plain(text)


def assert_plain(text: str) -> None:
    """Argo keeps the inputs of a step as JSON in JSON, six times over."""
    assert json.dumps(text) == f'"{text}"' and PLAIN.fullmatch(text)


@pytest.mark.parametrize("recipe", [*RECIPES, Parameters, SweepParameters])
def test_no_text_of_defaults_has_what_json_escapes(recipe: type[Recipe]) -> None:
    assert_plain(recipe().text())


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: "://" not in text and "#" not in text),
    st.floats(0, 1),
    st.integers(1, MAX_COUNT),
    st.booleans(),
)
def test_any_recipe_is_plain_and_survives_its_text(text: str, share: float, whole: int, switch: bool) -> None:
    recipe = TrainingRecipe.of(pretrained=text, weight_decay=share, epochs=whole, bias=switch)
    assert TrainingRecipe.read(recipe.text()) == recipe
    assert_plain(recipe.text())


@pytest.mark.parametrize("name", ["", "min_accurac", "a b", "\ud800", "x" * 9999])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="is not a parameter"):
        EvaluateRecipe.of(**{"min_recall": 2, name: 1})


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(st.text(), st.integers() | st.floats() | st.booleans() | st.none() | st.text())
def test_any_value_is_accepted_or_refused_in_words(text: str, value: Any) -> None:
    for name in SweepParameters.model_fields:
        for one in (text, value):
            try:
                SweepParameters.of(**{name: one})
            except UserError as error:
                assert error.message and error.remedy


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(EvaluateRecipe.model_fields)), st.text()), max_size=6))
def test_any_text_is_read_or_refused_in_words(words: list[tuple[str, str]]) -> None:
    text = ";".join(f"{name}={value}" for name, value in words)
    try:
        assert EvaluateRecipe.read(EvaluateRecipe.read(text).text()) == EvaluateRecipe.read(text)
    except UserError as error:
        assert error.message and error.remedy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"parameters missing: \['behavior_images', .*, 'threads'\], unknown: \[''\]"),
        ("min_accuracy=0.5;min_recall=0.5;threads=0", r"parameters missing: \['store'\], unknown: \[\]"),
        ("min_accuracy=0.5;min_recall=0.5;store=;threads=0;a=1", r"parameters missing: \[\], unknown: \['a'\]"),
        ("min_accuracy=x;min_recall=0.5;store=;threads=0", "min_accuracy=x has the wrong type; give a number"),
        ("min_accuracy=2;min_recall=0.5;store=;threads=0", r"min_accuracy=2(\.0)? is not accepted; give a number from"),
        ("min_accuracy=0;min_recall=0.5;store=;threads=0.5", r"threads=0\.5 has the wrong type; give a whole number"),
    ],
)
def test_a_text_that_is_no_recipe_is_refused(text: str, message: str) -> None:
    others = "behavior_images=9;min_behavior={}"
    with pytest.raises(UserError, match=f"^{message}"):
        EvaluateRecipe.read(f"{others};{text}" if text else "")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"noisey": 0.5}, r"'noisey' is not a test \(did you mean noisy\?\)"),
        ({"noisy": 1.5}, "the value of 'noisy' is no number from 0 to 1"),
        ({"noisy": "0.5"}, "the value of 'noisy' is no number from 0 to 1"),
        ({"noisy": True}, "the value of 'noisy' is no number from 0 to 1"),
        ({"noisy": float("nan")}, "the value of 'noisy' is no number from 0 to 1"),
    ],
)
def test_thresholds_of_no_test_or_no_share_are_refused(value: dict[str, Any], why: str) -> None:
    accepts = "give an object of numbers from 0 to 1 by shifted, thinned, inverted, noisy or occluded"
    with pytest.raises(UserError, match=f"^min_behavior=.* is not accepted: {why}; {accepts}$"):
        EvaluateRecipe.of(min_behavior=value)


def test_a_recipe_is_taken_from_the_values_of_a_run() -> None:
    values = Parameters.of(seed=3, epochs=9, batch_size="auto", store="s3://bucket").values()
    assert TrainingRecipe.taken_from(values) == TrainingRecipe.of(
        seed=3, epochs=9, batch_size="auto", store="s3://bucket"
    )
    assert PreprocessRecipe.taken_from(values) == PreprocessRecipe.of(seed=3, store="s3://bucket")
    with pytest.raises(UserError, match=r"^epochs=0 is not accepted"):
        TrainingRecipe.taken_from({**values, "epochs": 0})


def test_settings_of_a_recipe_lack_what_determines_no_weights() -> None:
    recipe = TrainingRecipe.of(seed=3, epochs=9, store="s3://bucket", checkpoint_seconds=7, threads=2)
    assert recipe.as_settings() == Settings.of(epochs=9)
    assert recipe.run_arguments() == {"seed": 3, "threads": 2, "store": "s3://bucket", "checkpoint_seconds": 7}


def test_a_parameter_given_twice_is_refused() -> None:
    words = EvaluateRecipe().text().split(";")
    with pytest.raises(UserError, match=r"; give each of .* once$"):
        EvaluateRecipe.from_words([*words, words[0]])
