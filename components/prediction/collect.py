"""Step collect: the shares of all pods -> the whole table of predictions, with a page and metrics.

It is never cached: with a store, what others have removed there is stored again.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.core.files import new_folder, write_json
from components.shared.core.step import step
from components.shared.data.prepared_data import is_prepared
from components.shared.parameters.preparation import ReadingRecipe
from components.shared.prediction.document import CSV, MANIFEST, PAGE, PredictionsDocument, sentence
from components.shared.prediction.drift import REPORT, DriftReportDocument, judge_drift
from components.shared.prediction.find_reference import reference_of
from components.shared.prediction.overview import summarise, write_page
from components.shared.prediction.pods.chosen import CollectRecipe
from components.shared.prediction.pods.shares import ReadShare, read_shares
from components.shared.prediction.pods.stored import StoredPredictions, key_of
from components.shared.prediction.retraining import Retraining, remark_of, retrain_if_drifted, settings_of
from components.shared.prediction.table import write_csv
from components.shared.prediction.training_run import start_run
from components.shared.prediction.uncertain import least_certain
from components.shared.registry.registry import RegisteredModel
from components.shared.storage.client import open_store

TOLD = ("model", "rows", "errors", "labelled", "correct", "drift", "training")  # to the runner


@step
def collect(
    *, shares: Sequence[str | Path], recipe: str, predictions: str | Path, uncertain: str | Path, metrics: str | Path
) -> dict[str, float]:
    """Join the `shares` to folder `predictions`, write the page `uncertain`, and return the metrics.

    The metrics are written to file `metrics`, too. With a store, the table is committed there. Raises UserError if the
    shares are not those of one table, or the store cannot be used.
    """
    parameters, found = CollectRecipe.read(recipe), read_shares(shares)
    with new_folder(predictions) as folder, tempfile.TemporaryDirectory() as scratch:
        known = reference_of(parameters.chosen, parameters.store, found[0].package, Path(scratch))
        parts = [Path(shutil.copyfile(part, folder / part.name)) for share in found for part in share.parts]
        write_csv(parts, folder / CSV)
        document = _summary(found, parts)
        least = least_certain(parts, found[0].document.part_rows)
        images = {number: image for share in found for number, image in share.pictures()}
        drift = judge_drift(parts, known.reference, document.model, parameters.drift_threshold, known.no_reference)
        drift.write(folder / REPORT)
        document = document.model_copy(update={"drift": drift.sentence})
        write_page(folder / PAGE, document, drift, found[0].package, least, images)
        if parameters.store:
            _commit(parameters, found, parts, folder, document)
        shutil.move(folder / PAGE, uncertain)
        document = document.model_copy(update={"training": _train_again(parameters, drift, document)})
        document.write(folder / MANIFEST)
    log.info(sentence(document.rows, document.errors, document.model))
    log.event("predicted", **{name: getattr(document, name) for name in TOLD})
    for line in filter(None, (document.drift, document.training)):
        log.info(line)
    figures = _metrics(found, document, drift)
    write_json(metrics, figures)
    return figures


def _summary(found: Sequence[ReadShare], parts: Sequence[Path]) -> PredictionsDocument:
    documents = [share.document for share in found]
    return summarise(
        parts,
        found[0].package,
        model=documents[0].model,
        data_digest=documents[0].data_digest,
        resumed_at=sum(document.resumed for document in documents),
        seconds={name: sum(document.seconds[name] for document in documents) for name in ("all", "program")},
    )


def _commit(
    parameters: CollectRecipe,
    found: Sequence[ReadShare],
    parts: Sequence[Path],
    folder: Path,
    document: PredictionsDocument,
) -> None:
    """Make the predictions in the store whole."""
    key = key_of(parameters.chosen, document.data_digest, found[0].document.part_rows)
    stored = StoredPredictions(parameters.store, parameters.chosen, key)
    stored.restore(parts)
    is_new = stored.commit(folder, document, (PAGE, REPORT))
    log.info(f"the predictions are {'in' if is_new else 'already in'} {stored.uri}")


def _train_again(parameters: CollectRecipe, drift: DriftReportDocument, document: PredictionsDocument) -> str:
    """Start a training run after drift; return what was done, or why nothing was, in words."""
    if not drift.drifted:
        return ""
    if not parameters.retrain:
        return "no training run: retrain=false"
    if "://" in parameters.model:
        return "no training run: only a version of the store is trained again, and a package predicted"
    if is_prepared(parameters.data) and not parameters.retrain_data:
        return "no training run: a prepared dataset was predicted, and retrain_data names no pictures"
    store = open_store(parameters.store, os.environ)
    name, _, number = parameters.model.partition("/")
    same = {} if parameters.retrain_data else ReadingRecipe.taken_from(parameters.values()).values()
    version = RegisteredModel(store, name).read_version(int(number))
    how = Retraining(
        store=store,
        model=name,
        data=parameters.data,
        retrain_data=parameters.retrain_data,
        cooldown=parameters.retrain_cooldown,
        parameters={**settings_of(version), **same},
        run_id=os.environ.get("RUN_ID", ""),
        start=start_run,
        remark=remark_of(version),
    )
    try:
        return retrain_if_drifted(drift, document, how)
    except UserError as error:  # the predictions are there, and the next ones try again
        return f"no training run could be started: {error}"


def _metrics(found: Sequence[ReadShare], document: PredictionsDocument, drift: DriftReportDocument) -> dict[str, float]:
    """Return the metrics for Kubeflow: there is an accuracy of labels, and the rate of a pod if any was predicted."""
    metrics: dict[str, float] = {"rows": document.rows, "errors": document.errors}
    if document.labelled:
        metrics["accuracy"] = document.correct / document.labelled
    if predicted := sum(share.document.predicted for share in found):
        metrics["images_per_second"] = predicted / max(document.seconds["all"], 1e-9)
    return metrics | drift.scalars()
