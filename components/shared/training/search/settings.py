"""The trials of a sweep: settings that change the recipe of a training, checked before any training begins."""

from collections.abc import Mapping, Sequence
from typing import Any

from components.shared.core.errors import UserError, did_you_mean
from components.shared.models import catalogue
from components.shared.parameters.table import SweepParameters
from components.shared.parameters.training import Settings, TrainingRecipe

EXAMPLE = '[{"learning_rate": 0.01}, {"epochs": 5}]'
NAMES = frozenset(SweepParameters.model_fields)
MAY_DIFFER = tuple(name for name in Settings.model_fields if name != "gpus")


def merge(settings: Sequence[Mapping[str, Any]], common: TrainingRecipe, image_size: int) -> list[TrainingRecipe]:
    """Return the recipe of each trial: the common one, changed by its settings.

    Raises UserError if there are no settings or two equal trials, or if a setting is none of MAY_DIFFER, its value has
    the wrong type or is out of range, or its network does not take images of `image_size`.
    """
    if not settings:
        raise UserError("settings=[] has no trial", f"give a list such as {EXAMPLE}")
    trials: list[TrainingRecipe] = []
    for number, setting in enumerate(settings, 1):
        try:
            trial = _change(common, setting)
            catalogue.check(trial.network, image_size)
        except UserError as error:
            raise UserError(f"settings, trial {number}: {error.message}", error.remedy) from None
        if trial in trials:
            same = trials.index(trial) + 1
            raise UserError(f"settings: trials {same} and {number} have the same parameters", "leave one of them out")
        trials.append(trial)
    return trials


def _change(common: TrainingRecipe, setting: Mapping[str, Any]) -> TrainingRecipe:
    for name in setting:
        if name not in MAY_DIFFER:
            raise _unknown(name)
    return TrainingRecipe.of(**{**common.values(), **setting})


def _unknown(name: str) -> UserError:
    if name in NAMES:
        return UserError(f"{name} must be the same for all trials", f"give it outside of settings, as {name}=...")
    hint = did_you_mean(name, MAY_DIFFER)
    return UserError(f"{name!r} is not a parameter of a training{hint}", f"give one of: {', '.join(MAY_DIFFER)}")
