"""The checkpoints in the store by name: list and delete them, without PyTorch and without opening one."""

import os
import re
from collections.abc import Iterable

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.storage.client import Entry, Store, open_store

FOLDER = "checkpoints"
NAME = re.compile(rf"{FOLDER}/[^/]+/(\d{{10}})\.safetensors")


def checkpoint_name(key: str, step: int) -> str:
    """Return the name of the checkpoint that a training of this key writes after so many steps."""
    return f"{FOLDER}/{key}/{step:010}.safetensors"


def step_of(name: str) -> int:
    """Return the number of steps in the name of a checkpoint."""
    match = NAME.fullmatch(name)
    assert match, name
    return int(match[1])


def list_checkpoints(store: Store, key: str) -> list[Entry]:
    """Return the checkpoints of a key, in the order of their steps."""
    return [entry for entry in store.list(f"{FOLDER}/{key}") if NAME.fullmatch(entry.name)]


def delete_checkpoints(store: Store, key: str, steps: Iterable[int]) -> None:
    """Delete the checkpoints of a key that were written after so many steps. Raises UserError if the store fails."""
    store.remove(*(checkpoint_name(key, step) for step in steps))


def delete_superseded(uri: str, trainings: Iterable[tuple[str, Iterable[int]]]) -> None:
    """Delete all but the last checkpoint of finished trainings, each given by its key and steps; only log a failure.

    The last one holds the finished training: a step that must run again, as after a change of other code in a cluster,
    finds it instead of training. Pruning the store deletes it, and what a failure leaves.
    """
    try:
        store = open_store(uri, os.environ)
        for key, steps in trainings:
            delete_checkpoints(store, key, sorted(steps)[:-1])
    except UserError as error:
        log.info(f"superseded checkpoints were not deleted: {error}")
