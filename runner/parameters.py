"""Parse the parameters of a pipeline as a user types them: words `name=value`."""

import inspect
import json
from collections.abc import Sequence
from typing import Any

from kfp.dsl.base_component import BaseComponent

from components.plan import plan
from components.shared.core.errors import UserError, did_you_mean
from components.shared.parameters import check
from components.shared.training.search.settings import merge

TYPES: dict[str, type] = {"String": str, "Integer": int, "Float": float, "Boolean": bool, "List": list, "Dict": dict}


def parse_parameters(pipeline: BaseComponent, words: Sequence[str]) -> dict[str, Any]:
    """Return the value of every parameter of the pipeline: its default, or that of a word `name=value`.

    Raises UserError for an unknown name, a value of the wrong type or out of range, and a name given twice.
    """
    inputs = pipeline.component_spec.inputs
    given: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or name not in inputs:
            raise _unknown(word, name, list(inputs))
        if name in given:
            raise UserError(f"{word}: {name} is given twice", "give it once")
        given[name] = _value(name, text, _kind(inputs[name].type))
    parameters = {name: given.get(name, _kind(spec.type)(spec.default)) for name, spec in inputs.items()}
    check(**parameters)
    if "settings" in parameters:
        _check_trials(pipeline, parameters)
    return parameters


def _check_trials(pipeline: BaseComponent, parameters: dict[str, Any]) -> None:
    """Check the settings of a sweep as step plan will."""
    inputs = pipeline.pipeline_spec.components["comp-plan"].input_definitions.parameters
    own = inspect.signature(plan).parameters
    may_differ = {name: value for name, value in parameters.items() if name in inputs and name not in own}
    merge(parameters["settings"], may_differ, image_size=parameters["image_size"])


def _unknown(word: str, name: str, names: list[str]) -> UserError:
    if name in names:
        return UserError(f"{word} has no value", f"give {name}=...")
    message = f"{word!r} is not a parameter{did_you_mean(name, names)}"
    return UserError(message, f"give name=value with one of: {', '.join(names)}")


def _kind(type_name: str) -> type:
    """Return Python's type for KFP's name of it, such as Dict[String, String]."""
    return TYPES[type_name.partition("[")[0]]


def _value(name: str, text: str, kind: type) -> Any:
    words = {"true": True, "false": False}
    try:
        if kind in (list, dict):
            return _json(text, kind)
        return words[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        accepted = {
            int: "a whole number",
            float: "a number",
            bool: "true or false",
            list: "a JSON list",
            dict: "a JSON object",
        }[kind]
        raise UserError(f"{name}={text} has the wrong type", f"give {accepted}") from None


def _json(text: str, kind: type) -> Any:
    value = json.loads(text)
    if not isinstance(value, kind):
        raise ValueError(text)
    return value
