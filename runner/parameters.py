"""Parse the parameters of a pipeline as a user types them, words `name=value`, into the inputs that KFP wants.

For people every name is flat; in KFP those without an input of their own are members of the input `options`. A version
that was uploaded by earlier code may have an input for each, and is still run.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from kfp.dsl.base_component import BaseComponent

from components.shared.parameters.form import OPTIONS
from components.shared.parameters.recipe import Recipe
from components.shared.parameters.sweep import SETTINGS, as_columns, as_objects
from components.shared.parameters.table import model_of
from runner.graphs import graph_of
from runner.words import parse_words


def parse_parameters(pipeline: BaseComponent, words: Sequence[str]) -> dict[str, Any]:
    """Return the parameters that the words `name=value` set.

    Raises UserError for an unknown name, a value of the wrong type or out of range, and a name given twice.
    """
    return parse_words(graph_of(pipeline), words, names_of(pipeline))


def complete(pipeline: BaseComponent, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all parameters of a run: those given, and the pipeline's defaults of the others."""
    inputs = pipeline.component_spec.inputs
    defaults = {name: spec.default for name, spec in inputs.items() if name != OPTIONS}
    names = names_of(pipeline)
    values = _model(pipeline).of(**{**defaults, **given}).values()
    return {name: values[name] for name in names}


def as_inputs(pipeline: BaseComponent, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given parameters as arguments for the inputs of a pipeline."""
    inputs = pipeline.component_spec.inputs
    default = inputs[SETTINGS].default if SETTINGS in inputs else []
    if SETTINGS in given and as_objects(default) != default:  # columns, which an earlier version does not take
        given = {**given, SETTINGS: as_columns(given[SETTINGS])}
    own = {name: value for name, value in given.items() if name in inputs}
    others = {name: value for name, value in given.items() if name not in inputs}
    return {**own, OPTIONS: others} if others else own


def parse_inputs(pipeline: BaseComponent, words: Sequence[str]) -> dict[str, Any]:
    """Return the arguments for the inputs of a pipeline that the words set; KFP takes the others from its version.

    Raises UserError as `parse_parameters` does.
    """
    return as_inputs(pipeline, parse_parameters(pipeline, words))


def flat(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a run by the names that people use."""
    options = inputs.get(OPTIONS) or {}
    found = {**{name: value for name, value in inputs.items() if name != OPTIONS}, **options}
    return {name: as_objects(value) if name == SETTINGS else value for name, value in found.items()}


def names_of(pipeline: BaseComponent) -> list[str]:
    """Return the names of the pipeline's parameters, those that are inputs of their own first."""
    inputs, fields = pipeline.component_spec.inputs, _model(pipeline).model_fields
    own = [name for name in inputs if name in fields]
    return own + [name for name in fields if name not in own] if OPTIONS in inputs else own


def _model(pipeline: BaseComponent) -> type[Recipe]:
    return model_of(graph_of(pipeline))
