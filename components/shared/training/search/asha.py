"""Asynchronous successive halving: trials of a sweep that fall behind stop early (ASHA; Li et al., MLSys 2020).

The first rung is after `first_rung` epochs, each further one after `reduction` times as many. A trial that reaches a
rung continues if its validation accuracy is among the best 1/`reduction` of those that have reached it so far. It waits
for no other trial, so an early one may continue where a late one of the same accuracy would not; the best always does.

sweeps/<sweep>/<rung>/<trial>.json    a trial's accuracy and the decision, so that a repeated trial decides alike
"""

from collections.abc import Sequence

from components.shared.core import log
from components.shared.core.document import Document, Share, Size
from components.shared.core.errors import UserError
from components.shared.models.document import Epoch
from components.shared.storage.client import Store
from components.shared.storage.errors import NoSuchObject

FOLDER = "sweeps"


class RungDocument(Document):
    """A trial's accuracy at a rung and, once it has seen the others, its decision."""

    FORMAT = "torch2kubeflow/rung"
    REMEDY = "remove it"

    val_accuracy: Share
    trials: Size | None  # at the rung when it decided
    reason: str | None  # to stop


def should_continue(own: float, others: Sequence[float], reduction: int) -> bool:
    """Return whether an accuracy is among the best 1/`reduction` of all at a rung; at least the best one is."""
    better = sum(other > own for other in others)
    return better < max(1, (1 + len(others)) // reduction)


def is_rung(epochs: int, first_rung: int, reduction: int) -> bool:
    """Return whether a rung is after this number of epochs."""
    rung = first_rung
    while rung < epochs:
        rung *= reduction
    return rung == epochs


class SuccessiveHalving:
    """Decides about one trial: called with its epochs so far, it returns the reason to stop, or None."""

    def __init__(self, store: Store, *, sweep: str, trial: str, epochs: int, first_rung: int, reduction: int) -> None:
        """`epochs` is the number of the whole training."""
        self._store, self._sweep, self._trial = store, sweep, trial
        self._epochs, self._first_rung, self._reduction = epochs, first_rung, reduction

    @property
    def rule(self) -> str:
        """Return what determines the decisions: the sweep, whose id depends on all trials and on the rungs."""
        return f"asha {self._sweep} trial {self._trial}"

    def __call__(self, epochs: Sequence[Epoch]) -> str | None:
        """Decide; if the store fails, the trial continues."""
        rung = len(epochs)
        if not is_rung(rung, self._first_rung, self._reduction):
            return None
        try:
            reason = self._decide(rung, max(epoch.val_accuracy for epoch in epochs))
        except UserError as error:
            log.info(f"continuing after epoch {rung}, because the other trials could not be compared: {error}")
            return None
        return reason if rung < self._epochs else None

    def _decide(self, rung: int, accuracy: float) -> str | None:
        name = f"{FOLDER}/{self._sweep}/{rung}/{self._trial}.json"
        decision = self._read(name)
        if decision and decision.val_accuracy == accuracy and decision.trials is not None:
            return decision.reason
        undecided = RungDocument(val_accuracy=accuracy, trials=None, reason=None)
        self._store.put_bytes(undecided.to_json(), name)  # first: of two at the same time, at least one sees both
        others = self._others(rung, name)
        trials, reason = 1 + len(others), None
        if not should_continue(accuracy, others, self._reduction):
            reason = (
                f"{accuracy:.2%} validation accuracy up to epoch {rung} is not among the best "
                f"1/{self._reduction} of {trials} trials"
            )
        self._store.put_bytes(RungDocument(val_accuracy=accuracy, trials=trials, reason=reason).to_json(), name)
        return reason

    def _others(self, rung: int, own: str) -> list[float]:
        """Return the accuracies of the other trials at a rung."""
        names = [entry.name for entry in self._store.list(f"{FOLDER}/{self._sweep}/{rung}")]
        return [found.val_accuracy for name in names if name != own and (found := self._read(name))]

    def _read(self, name: str) -> RungDocument | None:
        """Return a trial's document, None if there is none yet. Raises UserError if it is invalid."""
        try:
            return RungDocument.parse(self._store.get_bytes(name)[0], self._store.uri(name))
        except NoSuchObject:
            return None
