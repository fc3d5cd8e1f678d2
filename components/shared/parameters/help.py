"""The parameters as people read them: in groups, with their defaults as one would type them."""

import json
import textwrap

from components.shared.parameters.common import Seed, StoreUri, Threads
from components.shared.parameters.evaluation import ExportRecipe
from components.shared.parameters.pods import Pods
from components.shared.parameters.prediction import PredictionRecipe
from components.shared.parameters.preparation import PreprocessRecipe
from components.shared.parameters.recipe import Recipe
from components.shared.parameters.registration import RegisterRecipe
from components.shared.parameters.sweep import SweepRecipe
from components.shared.parameters.table import PredictionParameters, Source, SweepParameters
from components.shared.parameters.training import TrainingRecipe

GROUPS: dict[str, tuple[type[Recipe], ...]] = {  # a parameter belongs to the first group that has it
    "Several steps": (StoreUri, Seed, Threads),
    "Data and preparation": (Source, PreprocessRecipe),
    "Training": (TrainingRecipe,),
    "Evaluation and export": (ExportRecipe,),
    "Registration": (RegisterRecipe,),
    "Pods in a cluster": (Pods,),
    "Sweeps": (SweepRecipe,),
    "Prediction": (PredictionRecipe,),
}
FIELDS = {**SweepParameters.model_fields, **PredictionParameters.model_fields}  # every parameter of every graph
MARGIN = 38  # columns left of the descriptions


def groups() -> dict[str, list[str]]:
    """Return the names of all parameters by group, each once."""
    left, found = list(FIELDS), {}
    for title, recipes in GROUPS.items():
        found[title] = [name for recipe in recipes for name in recipe.model_fields if name in left]
        left = [name for name in left if name not in found[title]]
    assert not left, f"{left} belong to no group"
    return found


def defaults() -> dict[str, str]:
    """Return the default of each parameter as the pipeline has it."""
    values = {**SweepParameters.of().values(), **PredictionParameters.of().values()}
    return {name: value or '""' if isinstance(value, str) else json.dumps(value) for name, value in values.items()}


def listed(columns: int) -> str:
    """Return all parameters with defaults and descriptions, as the help of a verb shows them in so many columns."""
    shown = ["parameters, with their defaults (docs/parameters.md has what each accepts):"]
    given = defaults()
    for title, names in groups().items():
        shown += ["", f"{title.lower()}:"]
        for name in names:
            begin, line = f"  {name}={given[name]} ", FIELDS[name].description or ""
            shown += textwrap.wrap(line, columns, initial_indent=f"{begin:<{MARGIN}}", subsequent_indent=" " * MARGIN)
    return "\n".join(shown)
