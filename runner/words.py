"""The words `name=value` that a user types after a verb, checked by the table of the parameters alone: without KFP."""

from collections.abc import Sequence
from typing import Any

from components.shared.core.errors import UserError, did_you_mean
from components.shared.parameters.form import inputs_of
from components.shared.parameters.recipe import parse
from components.shared.parameters.table import SWEEP, model_of
from components.shared.parameters.training import TrainingRecipe
from components.shared.training.search.settings import merge


def names_in(graph: str) -> list[str]:
    """Return the names of the parameters of a graph, those that are inputs of their own first."""
    own = inputs_of(graph)
    return [*own, *(name for name in model_of(graph).model_fields if name not in own)]


def parse_words(graph: str, words: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """Return the parameters that the words `name=value` set, of those with these `names`.

    Raises UserError for an unknown name, a value of the wrong type or out of range, and a name given twice.
    """
    model = model_of(graph)
    given: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or name not in names:
            raise _unknown(word, name, names)
        if name in given:
            raise UserError(f"{word}: {name} is given twice", "give it once")
        given[name] = parse(model.model_fields[name], name, text)
    values = model.of(**given).values()
    if graph == SWEEP:
        merge(values["settings"], TrainingRecipe.taken_from(values), values["image_size"])
    return {name: values[name] for name in given}


def _unknown(word: str, name: str, names: Sequence[str]) -> UserError:
    if name in names:
        return UserError(f"{word} has no value", f"give {name}=...")
    message = f"{word!r} is not a parameter{did_you_mean(name, names)}"
    return UserError(message, f"give name=value with one of: {', '.join(names)}")
