"""The settings of a sweep, as objects and as columns."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.shared.core.errors import UserError
from components.shared.parameters.sweep import SweepRecipe, as_columns, as_objects

VALUES = st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=9)
NAMES = st.lists(st.text(max_size=9), max_size=4, unique=True)
ALIKE = NAMES.flatmap(lambda names: st.lists(st.fixed_dictionaries(dict.fromkeys(names, VALUES))))


@pytest.mark.parametrize(
    ("objects", "columns"),
    [
        ([{"epochs": 5}, {"epochs": 9}], [["epochs", 5, 9]]),
        ([{"epochs": 5, "mixup": 0.2}, {"mixup": 0.1, "epochs": 9}], [["epochs", 5, 9], ["mixup", 0.2, 0.1]]),
    ],
)
def test_columns_are_the_same_settings_as_objects(objects: Any, columns: Any) -> None:
    assert as_columns(objects) == columns and as_objects(columns) == objects
    assert SweepRecipe.of(settings=columns) == SweepRecipe.of(settings=objects)
    assert SweepRecipe.of(settings=columns).values()["settings"] == objects


@pytest.mark.parametrize("objects", [[], [{}], [{}, {}], [{"mixup": 1}, {"epochs": 5}], [{"mixup": 1, "epochs": 5}]])
def test_objects_stay_if_columns_are_longer_or_have_gaps(objects: Any) -> None:
    assert as_columns(objects) == objects == as_objects(objects)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(ALIKE | st.lists(st.dictionaries(st.text(max_size=9), VALUES, max_size=4)))
def test_any_objects_survive_their_columns(objects: list[dict[str, Any]]) -> None:
    assert as_objects(as_columns(objects)) == objects
    assert as_objects(json.loads(json.dumps(as_columns(objects)))) == objects


@pytest.mark.parametrize(
    "value",
    [
        [["epochs", 1, 2], ["mixup", 0.1]],
        [["epochs", 1], ["epochs", 2]],
        [[1, 2]],
        [[]],
        [["epochs", 1], {"epochs": 2}],
        [["epochs", 1], []],
        [[["epochs"], 1]],
    ],
)
def test_what_is_neither_is_refused(value: Any) -> None:
    with pytest.raises(UserError, match=r"is not accepted; give a list such as \[\{.*\}\] or \[\[.*\]\]$"):
        SweepRecipe.of(settings=value)
