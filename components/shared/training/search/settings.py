"""The trials of a sweep: settings that override parameters of a training, checked before any training begins."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from components.shared.core.errors import UserError, did_you_mean
from components.shared.core.files import sha256_json
from components.shared.parameters import RULES, check

LARGEST = 1e300
ACCEPTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
EXAMPLE = '[{"learning_rate": 0.01}, {"epochs": 5}]'


def merge(settings: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any], **common: Any) -> list[dict[str, Any]]:
    """Return the parameters of each trial: `parameters`, which are all that may differ, overridden by its settings.

    They are checked together with the parameters that are `common` to all trials. Raises UserError if there are no
    settings or two equal trials, or if a setting is not one of `parameters`, or its value has the wrong type or is out
    of range.
    """
    if not settings:
        raise UserError("settings=[] has no trial", f"give a list such as {EXAMPLE}")
    trials: list[dict[str, Any]] = []
    for number, setting in enumerate(settings, 1):
        try:
            trial = {**parameters, **{name: _typed(name, value, parameters) for name, value in setting.items()}}
            check(**trial, **common)
        except UserError as error:
            raise UserError(f"settings, trial {number}: {error.message}", error.remedy) from None
        if trial in trials:
            same = trials.index(trial) + 1
            raise UserError(f"settings: trials {same} and {number} have the same parameters", "leave one of them out")
        trials.append(trial)
    return trials


def _typed(name: str, value: Any, parameters: Mapping[str, Any]) -> Any:
    """Return the value in its parameter's type: KFP turns every number in a list into a float."""
    if name not in parameters:
        raise _unknown(name, list(parameters))
    kind = type(parameters[name])
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST < value < LARGEST
    is_whole = is_number and value == int(value)
    if (kind is bool and isinstance(value, bool)) or (kind is str and isinstance(value, str)):
        return value
    if (kind is float and is_number) or (kind is int and is_whole):
        return kind(value)
    if kind is str and is_whole:
        return str(int(value))
    raise UserError(f"{name}={json.dumps(value)} has the wrong type", f"give {ACCEPTED[kind]}")


def _unknown(name: str, names: list[str]) -> UserError:
    if name in RULES:
        return UserError(f"{name} must be the same for all trials", f"give it outside of settings, as {name}=...")
    hint = did_you_mean(name, names)
    return UserError(f"{name!r} is not a parameter of a training{hint}", f"give one of: {', '.join(names)}")


def sweep_id(dataset_digest: str, trials: Sequence[Mapping[str, Any]], **facts: Any) -> str:
    """Return the name of a sweep, 64 hexadecimal digits: equal sweeps share it, whichever run they belong to."""
    return sha256_json({"dataset_digest": dataset_digest, "trials": trials, **facts})
