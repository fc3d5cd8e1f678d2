"""The inputs of a pipeline as KFP reads them: a signature, and a docstring that its form shows."""

import inspect
from typing import Any

from components.shared.parameters.recipe import AsText, kind, marker
from components.shared.parameters.table import OPTIONS, inputs_of, model_of

OPTIONS_LINE = 'All other parameters of docs/parameters.md, by name, such as {"optimizer": "adamw", "mixup": 0.2}.'


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
    """Return the default of each input of a graph."""
    values = model_of(graph).of().values()
    return {name: values[name] for name in inputs_of(graph)} | {OPTIONS: {}}


def _type(field: Any) -> Any:
    return str if marker(field, AsText) else field.annotation if kind(field) in (list, dict) else kind(field)
