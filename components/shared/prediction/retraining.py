"""Training again after drift: on data with labels, once for each version of them, and not too often.

`retraining/<model>.json` in the store has a claim for each training run. It changes only by compare-and-swap, so that
of several predictions that find drift at once one starts a run.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from components.shared.core.document import Document, Items, Part, Sha256, Time
from components.shared.core.errors import TransientError, raise_as_corrupt
from components.shared.core.files import sha256_json
from components.shared.core.printable import told
from components.shared.data.sources.schemes import open_source
from components.shared.parameters.preparation import ReadingRecipe
from components.shared.parameters.table import Parameters
from components.shared.prediction.document import PredictionsDocument
from components.shared.prediction.drift import DriftReportDocument
from components.shared.prediction.training_run import Started, Wanted
from components.shared.registry.document import VersionDocument
from components.shared.storage.client import Store
from components.shared.storage.errors import Conflict, NoSuchObject

Start = Callable[[Wanted], Started]

ATTEMPTS = 50  # to write the claims, which others write too
ABANDONED = timedelta(hours=1)  # after which a claim counts as one of a process that was killed
KEPT = 10_000  # claims


class Claim(Part):
    """A training run for a version of some data, which is started, or about to be."""

    data: str
    data_version: Sha256
    claimed: Time
    claimed_by: str  # the run that found drift
    state: Literal["claimed", "started"]
    run: str  # empty until it is started


class RetrainingDocument(Document):
    """`retraining/<model>.json`: the training runs that drift has started, the latest last."""

    FORMAT = "torch2kubeflow/retraining"
    REMEDY = "delete it: the next drift starts a training run"

    claims: Items[Claim]


class Retraining(NamedTuple):
    """What may be trained again, and how."""

    store: Store
    model: str  # its name
    data: str  # that was predicted, as parameter data names it
    retrain_data: str  # to train on instead; empty takes what was predicted, if it has labels
    cooldown: float  # hours between two training runs
    parameters: Mapping[str, Any]  # of the training, by the names that people use
    run_id: str  # of the run that predicted
    start: Start
    remark: str = ""  # what is not known of the parameters


def retrain_if_drifted(report: DriftReportDocument, predictions: PredictionsDocument, how: Retraining) -> str:
    """Start a training run if the report says drift and there are labels; return what was done, as a sentence.

    Raises UserError if it cannot be started: then the claim is released, and the next prediction tries again.
    """
    if not report.drifted:
        return f"no training run: {report.sentence}"
    labelled, usable = predictions.labelled, predictions.rows - predictions.errors
    if not how.retrain_data and labelled < usable:
        return (
            f"no training run: {labelled:,} of {usable:,} pictures have a label, and retrain_data names no other data"
        )
    data = how.retrain_data or how.data
    version = sha256_json([data, open_source(data).version()]) if how.retrain_data else predictions.data_digest
    claim = Claim(
        data=told(data),
        data_version=version,
        claimed=datetime.now(UTC).isoformat(),
        claimed_by=how.run_id,
        state="claimed",
        run="",
    )
    claims = _Claims(how.store, how.model)
    if refused := claims.add(claim, timedelta(hours=how.cooldown)):
        return f"no training run: {refused}"
    parameters = {**how.parameters, "data": data, "store": how.store.uri(), "model_name": how.model}
    try:
        started = how.start(Wanted(f"retrain-{how.model}-{version[:12]}", parameters))
    except BaseException:
        claims.remove(claim)
        raise
    claims.confirm(claim, started.run)
    done = f"training run {started.run} on {told(data)} {'follows this run' if started.follows else 'was started'}"
    return done + (how.remark and f"; {how.remark}")


def settings_of(version: VersionDocument) -> dict[str, Any]:
    """Return the parameters by which a version was made, from its data to its registration, that are no defaults.

    Where the classes of its data stand is left out: other data may have them elsewhere. Of a version that was
    registered before they were kept, those after the training are not known.
    """
    made, defaults = version.provenance, Parameters.of().values()
    found = {**made.data.parameters, **made.registration, **made.parameters, "seed": made.seed}
    names = defaults.keys() - ReadingRecipe.model_fields.keys()
    return {name: value for name, value in found.items() if name in names and value != defaults[name]}


def remark_of(version: VersionDocument) -> str:
    """Return in words what is not known of the parameters of a version; empty if all are."""
    if version.provenance.registration:
        return ""
    return (
        f"version {version.version} does not keep its min_accuracy and what else it was judged by: the defaults count"
    )


class _Claims:
    """The claims of a model in the store."""

    def __init__(self, store: Store, model: str) -> None:
        self._store, self._name = store, f"retraining/{model}.json"

    def add(self, claim: Claim, cooldown: timedelta) -> str:
        """Add a claim, unless another one forbids it; return why, and an empty text if it was added."""
        refused = ""

        def change(claims: list[Claim]) -> list[Claim]:
            nonlocal refused
            valid = [one for one in claims if not _is_abandoned(one, claim)]
            refused = next(filter(None, (_conflict(one, claim, cooldown) for one in reversed(valid))), "")
            return claims if refused else [*valid, claim][-KEPT:]

        self._update(change)
        return refused

    def remove(self, claim: Claim) -> None:
        """Remove a claim whose run could not be started."""
        self._update(lambda claims: [one for one in claims if one != claim])

    def confirm(self, claim: Claim, run: str) -> None:
        """Note the run of a claim."""
        started = claim.model_copy(update={"state": "started", "run": run})
        self._update(lambda claims: [started if one == claim else one for one in claims])

    def _update(self, change: Callable[[list[Claim]], list[Claim]]) -> None:
        for _ in range(ATTEMPTS):
            claims, etag = self._read()
            if (changed := change(claims)) == claims:
                return
            content = RetrainingDocument(claims=changed).to_json()
            try:
                self._store.put_bytes(content, self._name, if_absent=not etag, if_match=etag)
                return
            except Conflict:
                continue
        raise TransientError(f"{self._store.uri(self._name)} is changed by others again and again", "try again later")

    def _read(self) -> tuple[list[Claim], str]:
        try:
            content, etag = self._store.get_bytes(self._name, RetrainingDocument.MAX_BYTES)
        except NoSuchObject:
            return [], ""
        with raise_as_corrupt():
            return RetrainingDocument.parse(content, self._store.uri(self._name)).claims, etag


def _is_abandoned(one: Claim, new: Claim) -> bool:
    return one.state == "claimed" and _age(one, new) > ABANDONED


def _conflict(one: Claim, new: Claim, cooldown: timedelta) -> str:
    """Return why a claim forbids a new one; empty if it does not."""
    known = f"run {one.run} was started" if one.run else f"{one.claimed_by or 'another process'} starts one"
    if one.data_version == new.data_version:
        return f"{known} for the same data, {one.claimed}"
    if _age(one, new) < cooldown:
        hours = cooldown.total_seconds() / 3600
        return f"{known}, {one.claimed}, and the next one may be started {hours:g} hours later"
    return ""


def _age(one: Claim, new: Claim) -> timedelta:
    return datetime.fromisoformat(new.claimed) - datetime.fromisoformat(one.claimed)
