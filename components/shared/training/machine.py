"""A training on this machine: in this process, or in one for each of several GPUs."""

from pathlib import Path
from typing import Any

from components.shared.data.dataset import Dataset
from components.shared.parameters.training import Settings
from components.shared.training.distributed.launch import launch
from components.shared.training.early_stopping import Stop
from components.shared.training.engine import train_model
from components.shared.training.initialize import check_exportable


def train_here(
    settings: Settings, data: Dataset, *, folder: Path, stop: Stop | None = None, stop_rule: str = "", **run: Any
) -> None:
    """Train as `train_model` of engine.py does, with the arguments `run` of a recipe.

    Several processes cannot `stop`, which plans refuse. Raises UserError as `train_model`, `launch`, and
    `check_exportable` do.
    """
    check_exportable(settings, data)
    if settings.gpus > 1:
        launch(settings, data.folder, processes=settings.gpus, **run, folder=folder)
    else:
        train_model(settings, data, **run, folder=folder, stop=stop, stop_rule=stop_rule)
