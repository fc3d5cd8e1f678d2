"""Step trial: a prepared dataset and one setting of a sweep -> a model folder as step train makes it, and `trial.json`.

A training that fails because of its setting, for example with a loss that is not finite, is a result too: then the
folder holds `trial.json` alone, with the error.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from components.shared.core import log
from components.shared.core.errors import CorruptDataError, TransientError, UserError
from components.shared.core.files import new_folder, write_json
from components.shared.core.step import step
from components.shared.data.dataset import open_dataset
from components.shared.parameters import check
from components.shared.storage.client import open_store
from components.shared.training.distributed.launch import launch
from components.shared.training.distributed.process_group import check_gpus
from components.shared.training.engine import train_model
from components.shared.training.search.asha import SuccessiveHalving
from components.shared.training.settings import read_settings

FORMAT = "torch2kubeflow/trial"


@step
def trial(
    *,
    dataset: str | Path,
    planned: str,
    seed: int,
    threads: int,
    gpus: str,
    store: str,
    checkpoint_seconds: int,
    model: str | Path,
) -> None:
    """Train as `planned` by step plan, and write the weights of the best epoch and `trial.json` to folder `model`.

    If the plan has rungs, the training stops at one where it has fallen behind others. Raises UserError if the dataset
    is damaged, there are fewer GPUs than `gpus`, or the store cannot be used.
    """
    one = json.loads(planned)
    run: dict[str, Any] = {"seed": seed, "threads": threads, "store": store, "checkpoint_seconds": checkpoint_seconds}
    check(**run)
    settings, data = read_settings({**one["parameters"], "gpus": gpus}), open_dataset(dataset)
    if settings.gpus:
        check_gpus(settings.gpus)
    stop = None
    if one["rungs"]:
        stop = SuccessiveHalving(open_store(store, os.environ), epochs=settings.epochs, **one["rungs"])
    if store:
        open_store(store, os.environ).check_access()  # a store that refuses is no result of a setting
    log.info(f"settings: {json.dumps(one['settings'])}")
    error = None
    with new_folder(model) as folder:
        try:
            if settings.gpus > 1:
                launch(settings, dataset, processes=settings.gpus, **run, folder=folder)
            else:
                train_model(settings, data, **run, folder=folder, stop=stop, stop_rule=stop.rule if stop else "")
        except (CorruptDataError, TransientError):  # not because of the setting
            raise
        except UserError as failure:
            log.info(f"ended without a model: {failure}")
            error = failure.to_json()
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_json(folder / "trial.json", {"format": FORMAT, "settings": one["settings"], "error": error})
