"""Step plan: the settings of a sweep -> its trials, each checked before any pod requests a GPU."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.shared.core import log
from components.shared.core.code_digest import code_digest
from components.shared.core.errors import UserError
from components.shared.core.step import step
from components.shared.data.dataset import open_dataset
from components.shared.parameters import check
from components.shared.training.search.settings import merge, sweep_id

READS = ("components.trial",)  # which reuses what other trials of the sweep have stored
(TRIAL,) = READS


@step
def plan(
    *,
    dataset: str | Path,
    settings: Sequence[Mapping[str, Any]],
    stopping: str,
    reduction: int,
    first_rung: int,
    image_size: int,
    seed: int,
    gpus: str,
    store: str,
    **parameters: Any,
) -> list[str]:
    """Return the trials as JSON texts: the settings, all parameters that may differ, and the rungs if ASHA may stop it.

    A number in such a text keeps its type on its way through KFP. Raises UserError if a parameter is out of range, a
    setting is invalid, or ASHA has no store or would have to stop a trial of several processes.
    """
    check(settings=settings, stopping=stopping, reduction=reduction, first_rung=first_rung, gpus=gpus, store=store)
    trials = merge(settings, parameters, image_size=image_size)
    rungs = None
    if stopping == "asha":
        _check_stopping(store, gpus)
        halving = {"first_rung": first_rung, "reduction": reduction}
        facts = {**halving, "seed": seed, "code_version": code_digest(TRIAL)}
        rungs = {"sweep": sweep_id(open_dataset(dataset).digest, trials, **facts), **halving}
    planned = []
    for number, (setting, trial) in enumerate(zip(settings, trials, strict=True), 1):
        typed = {name: trial[name] for name in setting}
        log.info(f"trial {number} of {len(trials)}: {json.dumps(typed)}")
        own = rungs and {**rungs, "trial": str(number)}
        # Kubeflow passes the members of an object in any order, and its cache identifies a trial by this text.
        planned.append(json.dumps({"settings": typed, "parameters": trial, "rungs": own}, sort_keys=True))
    return planned


def _check_stopping(store: str, gpus: str) -> None:
    if not store:
        raise UserError("stopping=asha compares trials through the store", "give store=s3://bucket/prefix")
    if int(gpus) > 1:
        raise UserError(f"gpus={gpus} and stopping=asha exclude each other: only one process can stop", "give gpus=1")
