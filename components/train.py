"""Step train: a prepared dataset -> a model folder with the weights of the best epoch.

On several GPUs, one process trains on each, see components/shared/training/machine.py.
"""

from pathlib import Path

from components.shared.core.files import new_folder
from components.shared.core.step import step
from components.shared.data.dataset import open_dataset
from components.shared.parameters.training import TrainingRecipe
from components.shared.training.machine import train_here


@step
def train(*, dataset: str | Path, recipe: str, model: str | Path) -> None:
    """Train a network on the train split of `dataset` and write the weights of the best epoch to folder `model`.

    The best epoch has the highest validation accuracy or, among equals, the lowest validation loss. With a store, a
    checkpoint is written there every `checkpoint_seconds`, and a retry resumes from the newest one of equal inputs; the
    result is the same, except for the seconds. Raises UserError if `recipe` is invalid, the dataset does not
    fit the network or the batch, there are fewer GPUs than `gpus`, the loss is not finite, memory is too small, or the
    store cannot be read at the start.
    """
    parameters = TrainingRecipe.read(recipe)
    settings, run = parameters.as_settings(), parameters.run_arguments()
    with new_folder(model) as folder:
        train_here(settings, open_dataset(dataset), **run, folder=folder)
