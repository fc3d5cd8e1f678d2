"""Kubeflow's form for a run: which parameters have a field of their own, and the signature that KFP makes it from.

KFP's form shows a pipeline's inputs in alphabetical order and nothing grouped, so only those that people set and those
that Kubernetes needs have one; the others are members of the input `options`. For people every name is flat.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from components.shared.core.errors import UserError
from components.shared.parameters.recipe import AsText, Recipe, kind, marker, unknown
from components.shared.parameters.sweep import SETTINGS, as_columns
from components.shared.parameters.table import BIGDATA, DISTRIBUTED, PREDICTION, SWEEP, check, model_of

OPTIONS = "options"
INPUTS = (  # of a graph that trains
    "data",
    "store",
    "network",
    "image_size",
    "epochs",
    "batch_size",
    "learning_rate",
    "seed",
    "min_accuracy",
    "min_recall",
    "model_name",
    "gpus",
    "gpu_resource",
    "train_cpu",
    "train_memory",
    "node_selector",
    "tolerations",
    "s3_secret",
    "s3_config",
    "source_secret",
)
OWN_INPUTS = {SWEEP: ("settings",), DISTRIBUTED: ("nodes",), BIGDATA: ("parts",)}  # of one of these graphs
PREDICTION_INPUTS = ("data", "store", "model_name", "model", "parts", "s3_secret", "s3_config", "source_secret")
OPTIONS_LINE = 'All other parameters of docs/parameters.md, by name, such as {"optimizer": "adamw", "mixup": 0.2}.'


def inputs_of(graph: str) -> tuple[str, ...]:
    """Return the inputs of a graph, without `options`."""
    return PREDICTION_INPUTS if graph == PREDICTION else INPUTS + OWN_INPUTS.get(graph, ())


def signature_of(graph: str) -> inspect.Signature:
    """Return the inputs of a graph, with types and defaults."""
    model, defaults = model_of(graph), defaults_of(graph)
    types = {name: _type(model.model_fields[name]) for name in inputs_of(graph)} | {OPTIONS: dict[str, Any]}
    return inspect.Signature(
        [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=defaults[name], annotation=kind)
            for name, kind in types.items()
        ]
    )


def docstring_of(graph: str, description: str) -> str:
    """Return the docstring of a graph, with a line about each input."""
    fields = model_of(graph).model_fields
    lines = {name: fields[name].description for name in inputs_of(graph)} | {OPTIONS: OPTIONS_LINE}
    return "\n".join([description, "", "Args:", *(f"    {name}: {line}" for name, line in lines.items())])


def defaults_of(graph: str) -> dict[str, Any]:
    """Return the default of each input of a graph; settings are columns, which earlier versions do not take."""
    values = model_of(graph).of().values()
    if SETTINGS in values:
        values[SETTINGS] = as_columns(values[SETTINGS])
    return {name: values[name] for name in inputs_of(graph)} | {OPTIONS: {}}


def merge_options(graph: str, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> Recipe:
    """Return the parameters of a run of a graph from its inputs and options.

    Raises UserError for the first that is unknown, given twice or not accepted.
    """
    for name in options:
        if name in inputs:
            raise UserError(f"options has {name}, which is an input of its own", f"give it as {name}=...")
        if name not in model_of(graph).model_fields:
            refused = unknown(name, [name for name in model_of(graph).model_fields if name not in inputs])
            raise UserError(f"options: {refused.message}", refused.remedy)
    parameters = model_of(graph).of(**inputs, **options)
    check(graph, parameters)
    return parameters


def _type(field: Any) -> Any:
    return str if marker(field, AsText) else field.annotation if kind(field) in (list, dict) else kind(field)
