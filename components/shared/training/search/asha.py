"""Asynchronous successive halving: trials of a sweep that are left behind stop (ASHA; Li et al., MLSys 2020).

The rungs are after `first_rung` epochs, and each of the next after `reduction` times as many. A trial that reaches one
goes on while its validation accuracy is among the best 1/`reduction` of those that have reached it so far. It waits
for no other, so an early one may go on where a late one of the same accuracy would not; the best of a rung always does.

sweeps/<sweep>/<rung>/<trial>.json    what a trial had reached there, and what was decided: a repeat decides alike
"""

from collections.abc import Sequence
from typing import Protocol

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.core.files import Document, json_bytes, parse_json
from components.shared.storage.client import Store
from components.shared.storage.errors import NoSuchObject

FOLDER = "sweeps"
FORMAT = "torch2kubeflow/rung"


class Validated(Protocol):
    """An epoch of which the accuracy on the val split is known."""

    @property
    def val_accuracy(self) -> float:
        """0 to 1."""


def goes_on(own: float, others: Sequence[float], reduction: int) -> bool:
    """Whether an accuracy is among the best 1/`reduction` of those at a rung, its own counted; of few, the best is."""
    better = sum(other > own for other in others)
    return better < max(1, (1 + len(others)) // reduction)


def is_rung(epochs: int, first_rung: int, reduction: int) -> bool:
    """Whether a rung is after so many epochs."""
    rung = first_rung
    while rung < epochs:
        rung *= reduction
    return rung == epochs


class Halving:
    """The decisions about one trial of a sweep; called with its epochs so far, it gives the reason to stop, or None."""

    def __init__(self, store: Store, *, sweep: str, trial: str, epochs: int, first_rung: int, reduction: int) -> None:
        """`epochs` are those of the whole training."""
        self._store, self._sweep, self._trial = store, sweep, trial
        self._epochs, self._first_rung, self._reduction = epochs, first_rung, reduction

    def __call__(self, epochs: Sequence[Validated]) -> str | None:
        """A store that fails ends no trial: the rung is passed, which is told."""
        rung = len(epochs)
        if not is_rung(rung, self._first_rung, self._reduction):
            return None
        try:
            reason = self._decide(rung, max(epoch.val_accuracy for epoch in epochs))
        except UserError as error:
            log.info(f"goes on after epoch {rung}, for the other trials are not known: {error}")
            return None
        return reason if rung < self._epochs else None

    def _decide(self, rung: int, accuracy: float) -> str | None:
        name = f"{FOLDER}/{self._sweep}/{rung}/{self._trial}.json"
        kept = self._read(name)
        if not kept or kept["val_accuracy"] != accuracy or kept["trials"] is None:
            kept = {"format": FORMAT, "val_accuracy": accuracy, "trials": None, "reason": None}
            self._store.put_bytes(json_bytes(kept), name)  # first, so that of two at once one sees the other
            others = list(self._others(rung, name))
            kept["trials"] = 1 + len(others)
            if not goes_on(accuracy, others, self._reduction):
                kept["reason"] = (
                    f"{accuracy:.2%} validation accuracy up to epoch {rung} is not among the best "
                    f"1/{self._reduction} of {kept['trials']} trials"
                )
            self._store.put_bytes(json_bytes(kept), name)
        reason: str | None = kept["reason"]
        return reason

    def _others(self, rung: int, own: str) -> list[float]:
        """What the other trials had reached at a rung."""
        names = [entry.name for entry in self._store.list(f"{FOLDER}/{self._sweep}/{rung}")]
        return [kept["val_accuracy"] for name in names if name != own and (kept := self._read(name))]

    def _read(self, name: str) -> Document | None:
        """What a trial has kept; None where it has kept nothing, or another wrote there, which is told."""
        try:
            document = parse_json(self._store.get_bytes(name)[0], FORMAT, self._store.uri(name))
        except NoSuchObject:
            return None
        match document:
            case {"val_accuracy": float(), "trials": int() | None, "reason": str() | None}:
                return document
        raise UserError(f"{self._store.uri(name)} tells no validation accuracy; remove it")
