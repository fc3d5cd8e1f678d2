"""Step train-distributed: a prepared dataset -> a model folder as step train makes it, by a TrainJob of many nodes.

The nodes read the data from the store and deliver the model through it; this step only waits. A retried step resumes
the job that exists.
"""

from pathlib import Path

from components.shared.core.errors import UserError
from components.shared.core.files import new_folder
from components.shared.core.step import step
from components.shared.data.dataset import Dataset, open_dataset
from components.shared.parameters.training import TrainingRecipe
from components.shared.training.distributed.task import TaskDocument
from components.shared.training.distributed.trainjob.manifest import TaskConfig
from components.shared.training.distributed.trainjob.run import run_trainjob
from components.shared.training.initialize import check_exportable


@step
def train_distributed(*, dataset: str | Path, recipe: str, task_config: TaskConfig, model: str | Path) -> None:
    """Train as step train does, on `nodes` machines with `gpus` GPUs each, and fetch the model to folder `model`.

    The job's pods get what `task_config` says. Raises UserError if `recipe` is invalid, it has no store or the
    dataset is not in it, Trainer or a permission is missing, or a node reports an error, and TransientError if
    processes die too often; the checkpoints stay in the store.
    """
    parameters = TrainingRecipe.read(recipe)
    data = _stored_dataset(dataset, parameters.store)
    check_exportable(parameters.as_settings(), data)
    task = TaskDocument(
        dataset=data.document.fields(), parameters=parameters.as_settings().values(), **parameters.run_arguments()
    )
    with new_folder(model) as folder:
        run_trainjob(task, parameters.nodes, task_config, folder)


def _stored_dataset(dataset: str | Path, store: str) -> Dataset:
    """Return the dataset. Raises UserError if other machines cannot read its shards."""
    if not store:
        raise UserError("store= is empty, but nodes exchange the data and the model through it", "give store=s3://...")
    data = open_dataset(dataset)
    if not data.is_remote:
        raise UserError(
            f"{dataset} holds the data itself, which other nodes cannot read", "prepare it by handover_mib=0"
        )
    return data
