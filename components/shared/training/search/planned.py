"""The trials of a sweep, dealt to pods: what each pod has to do is one short text in the form of recipes.

    store=s3://bucket/prefix|<rungs, or nothing>|epochs,learning_rate|1,5|%;0.01|20;0.02

First comes what the recipe of all trials changes of the defaults, which are part of the code. After the names of the
parameters that differ come the numbers of the first trials, of which the others continue the row, and the values of
each trial; `%` stands for the value in the recipe. There are no quotes and hardly a repetition, so that hundreds of
trials fit into what Argo keeps of a run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Self

from components.shared.core.errors import UserError
from components.shared.core.files import sha256_json
from components.shared.parameters.recipe import Recipe
from components.shared.parameters.sweep import SweepRecipe
from components.shared.parameters.training import TrainingRecipe
from components.shared.training.search.settings import merge

AS_ALL = "%"  # which no percent-encoded text is


class Rungs(Recipe):
    """When trials are compared, and all that they are compared with."""

    first_rung: int = 1
    reduction: int = 3
    trials: str = ""  # the digest of all trials of the sweep

    def sweep_id(self, **facts: str) -> str:
        """Return the name of a sweep in the store, 64 hexadecimal digits: equal sweeps of equal facts share it."""
        return sha256_json({**self.values(), **facts})


@dataclass(frozen=True)
class Trial:
    """One trial: its number, the parameters that its settings change, and its whole recipe."""

    number: int
    settings: dict[str, Any]
    recipe: TrainingRecipe


@dataclass(frozen=True)
class Planned:
    """Trials for one pod, the recipe that they change, and the rungs if ASHA may stop them."""

    common: TrainingRecipe
    rungs: Rungs | None
    trials: Sequence[Trial]

    def text(self) -> str:
        """Return the text that `read` reads."""
        names = sorted({name for trial in self.trials for name in trial.settings})
        rows = [";".join(_written(trial, name) for name in names) for trial in self.trials]
        rungs = self.rungs.text() if self.rungs else ""
        numbers = ",".join(str(trial.number) for trial in self.trials[:2])
        return "|".join([self.common.changes(), rungs, ",".join(names), numbers, *rows])

    @classmethod
    def read(cls, text: str) -> Self:
        """Return what a text plans. Raises UserError if it was written by other code."""
        try:
            changes, rungs, names, numbers, *rows = text.split("|")
            common = TrainingRecipe().changed(changes.split(";") if changes else [])
            first, *second = map(int, numbers.split(","))
            numbered = zip(count(first, second[0] - first if second else 0), rows, strict=False)
            trials = [_read_trial(common, names.split(","), number, row.split(";")) for number, row in numbered]
            return cls(common, Rungs.read(rungs) if rungs else None, trials)
        except UserError:
            raise
        except (KeyError, ValueError):
            raise UserError(f"{text[:40]!r}... plans no trials", "run the pipeline again") from None


def plan(sweep: SweepRecipe, common: TrainingRecipe, image_size: int) -> list[Planned]:
    """Check the settings of a sweep, and deal its trials to at most `parallel` pods.

    Raises UserError if a setting is invalid, or ASHA has no store or would have to stop a trial of several processes.
    """
    recipes = merge(sweep.settings, common, image_size)
    trials = [
        Trial(number, {name: recipe.values()[name] for name in sorted(setting)}, recipe)
        for number, (setting, recipe) in enumerate(zip(sweep.settings, recipes, strict=True), 1)
    ]
    rungs = None
    if sweep.stopping == "asha":
        _check_stopping(common)
        weights = [{**recipe.as_settings().values(), "seed": recipe.seed} for recipe in recipes]
        rungs = Rungs.of(first_rung=sweep.first_rung, reduction=sweep.reduction, trials=sha256_json(weights))
    pods = min(sweep.parallel, len(trials))
    return [Planned(common, rungs, trials[pod::pods]) for pod in range(pods)]


def _check_stopping(common: TrainingRecipe) -> None:
    if not common.store:
        raise UserError("stopping=asha compares trials through the store", "give store=s3://bucket/prefix")
    if common.gpus > 1:
        raise UserError(
            f"gpus={common.gpus} and stopping=asha exclude each other: only one process can stop", "give gpus=1"
        )


def _written(trial: Trial, name: str) -> str:
    if name not in trial.settings:
        return AS_ALL
    (word,) = trial.recipe.words(name)
    return word.partition("=")[2]


def _read_trial(common: TrainingRecipe, names: Sequence[str], number: int, values: Sequence[str]) -> Trial:
    given = {name: value for name, value in zip(names, values, strict=True) if value != AS_ALL and name}
    recipe = common.changed([f"{name}={value}" for name, value in given.items()])
    return Trial(number, {name: recipe.values()[name] for name in given}, recipe)
