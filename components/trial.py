"""Step trial: a prepared dataset and some trials of a sweep -> a model folder for each, as step train makes it.

Each has a file `trial.json`. A training that fails because of its setting, for example with a loss that is not finite,
is a result too: then the folder holds `trial.json` alone, with the error. With a store, a pod that is started again
finds there the trials that it has finished, and resumes the one at which it was.
"""

import json
import os
import shutil
from pathlib import Path

from components.shared.core import log
from components.shared.core.code_digest import code_digest
from components.shared.core.errors import CorruptDataError, TransientError, UserError
from components.shared.core.files import new_folder
from components.shared.core.step import step
from components.shared.data.dataset import Dataset, open_dataset
from components.shared.storage.client import open_store
from components.shared.training.distributed.process_group import check_gpus
from components.shared.training.machine import train_here
from components.shared.training.search.asha import SuccessiveHalving
from components.shared.training.search.outcome import keep_best_weights, write_outcome
from components.shared.training.search.planned import Planned, Rungs, Trial


@step
def trial(*, dataset: str | Path, planned: str, trials: str | Path) -> None:
    """Do the trials that step resolve has `planned`, one after the other, each to the folder of its number in `trials`.

    Of the models only the best keeps its weights, those of its best epoch. If the plan has rungs, a training stops at
    one where it has fallen behind others. Raises UserError if the dataset is damaged, there are fewer GPUs than `gpus`,
    or the store cannot be used.
    """
    plan, data = Planned.read(planned), open_dataset(dataset)
    if plan.common.gpus:
        check_gpus(plan.common.gpus)
    if plan.common.store:
        open_store(plan.common.store, os.environ).check_access()  # a store that refuses is no result of a setting
    with new_folder(trials) as folder:
        for one in plan.trials:
            log.info(f"trial {one.number}: {json.dumps(one.settings)}")
            (folder / str(one.number)).mkdir()
            _try(one, plan.rungs, data, folder / str(one.number))
            keep_best_weights(folder)


def _try(one: Trial, rungs: Rungs | None, data: Dataset, folder: Path) -> None:
    """Do one trial. Raises TransientError and CorruptDataError, which are not because of its settings."""
    settings, run = one.recipe.as_settings(), one.recipe.run_arguments()
    stop = None
    if rungs:
        stop = SuccessiveHalving(
            open_store(one.recipe.store, os.environ),
            sweep=rungs.sweep_id(dataset_digest=data.digest, code_version=code_digest(__name__)),
            trial=str(one.number),
            epochs=settings.epochs,
            first_rung=rungs.first_rung,
            reduction=rungs.reduction,
        )
    try:
        train_here(settings, data, **run, folder=folder, stop=stop, stop_rule=stop.rule if stop else "")
    except (CorruptDataError, TransientError):
        raise
    except UserError as failure:
        log.info(f"trial {one.number} ended without a model: {failure}")
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_outcome(folder, one.number, one.settings, failure)  # here: a kept error would keep the training
    else:
        write_outcome(folder, one.number, one.settings, None)
