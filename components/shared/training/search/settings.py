"""The trials of a sweep: settings that override parameters of a training, checked before any training begins."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from components.shared.core.errors import UserError, did_you_mean
from components.shared.core.files import sha256_json
from components.shared.parameters import RULES, check

LARGEST = 1e300
ACCEPTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def merge(settings: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any], **common: Any) -> list[dict[str, Any]]:
    """The parameters of each trial: `parameters`, which are all that may differ, overridden by its settings.

    They are checked beside those that are `common` to all trials.

    UserError where there are no settings or twice the same, or one of them names what is no parameter or must be the
    same for all, or has a value of another type or out of its range.
    """
    if not settings:
        raise UserError('settings=[] has no trial; give a list such as [{"learning_rate": 0.01}, {"epochs": 5}]')
    trials: list[dict[str, Any]] = []
    for number, setting in enumerate(settings, 1):
        try:
            trial = {**parameters, **{name: _value(name, value, parameters) for name, value in setting.items()}}
            check(**trial, **common)
        except UserError as error:
            raise UserError(f"settings, trial {number}: {error}") from None
        if trial in trials:
            same = trials.index(trial) + 1
            raise UserError(f"settings: trials {same} and {number} have the same parameters; leave one of them out")
        trials.append(trial)
    return trials


def _value(name: str, value: Any, parameters: Mapping[str, Any]) -> Any:
    """The value in its parameter's own type: KFP makes a float of every number in a list."""
    if name not in parameters:
        raise UserError(_refusal(name, list(parameters)))
    kind = type(parameters[name])
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST < value < LARGEST
    is_whole = is_number and value == int(value)
    if (kind is bool and isinstance(value, bool)) or (kind is str and isinstance(value, str)):
        return value
    if (kind is float and is_number) or (kind is int and is_whole):
        return kind(value)
    if kind is str and is_whole:
        return str(int(value))
    raise UserError(f"{name}={json.dumps(value)} is of the wrong type; give {ACCEPTED[kind]}")


def _refusal(name: str, names: list[str]) -> str:
    if name in RULES:
        return f"{name} must be the same for all trials; give it beside settings, as {name}=..."
    return f"{name!r} is no parameter{did_you_mean(name, names)}; give one of: {', '.join(names)}"


def sweep_id(dataset_digest: str, trials: Sequence[Mapping[str, Any]], **facts: Any) -> str:
    """A name for a sweep that equal ones share, whichever run they belong to: 64 hexadecimal digits."""
    return sha256_json({"dataset_digest": dataset_digest, "trials": trials, **facts})
