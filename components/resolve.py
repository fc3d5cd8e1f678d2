"""Step resolve: a run's parameters -> the version of its data, and the recipe of each step. It is never cached.

It runs first and takes a second: what the user can fix is refused here, before anything is downloaded. All later
caching relies on what it returns: a step is done again if its recipe has changed.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from components.shared.core import log, pod
from components.shared.core.code_digest import code_digest
from components.shared.core.errors import UserError
from components.shared.core.printable import told
from components.shared.core.step import step
from components.shared.data.prepared_index import PreparedData
from components.shared.data.sources.schemes import SizedSource, check_apart, open_listed_source, open_source
from components.shared.parameters.common import PartRecipe
from components.shared.parameters.evaluation import EvaluateRecipe, ExportRecipe
from components.shared.parameters.form import inputs_of, merge_options
from components.shared.parameters.preparation import DownloadRecipe, PreprocessRecipe
from components.shared.parameters.registration import RegisterRecipe
from components.shared.parameters.sweep import SweepRecipe
from components.shared.parameters.table import BIGDATA, DISTRIBUTED, SWEEP
from components.shared.parameters.training import TrainingRecipe
from components.shared.storage.client import open_store
from components.shared.training.search.planned import plan

PREPROCESS = "components.preprocess"  # whose code determines the prepared data
READS = ("components.shared.data.sources.*", "components.preprocess")  # the first by open_source


class Resolved(NamedTuple):
    """What the later steps get: recipes as texts, and what each pod of a loop has to do."""

    version: str
    prepared_by: str
    reading: str
    preparation: str
    training: str
    evaluation: str
    export: str
    registration: str
    Output: list[str]  # the name that KFP's local runner wants for what a loop reads; empty in other graphs


@step
def resolve(*, graph: str, options: Mapping[str, Any], **inputs: Any) -> Resolved:
    """Check all parameters of a run of `graph`; return the present version of its data, and the recipes.

    Equal versions hold equal data. Raises UserError if a parameter is unknown or out of its range, the data is unknown
    or out of reach, or there is no access to the store.
    """
    given = {name: value for name, value in inputs.items() if name in inputs_of(graph)}
    values = merge_options(graph, given, options).values()
    handover_mib = values["handover_mib"]
    if graph in (DISTRIBUTED, BIGDATA):  # other pods read the data from the store, whatever its size
        values["handover_mib"] = 0
    training = TrainingRecipe.taken_from(values)
    planned = plan(SweepRecipe.taken_from(values), training, values["image_size"]) if graph == SWEEP else []
    if planned:
        log.info(f"{len(values['settings'])} trials, dealt to {len(planned)} pods")
    if values["deploy"] and not pod.is_pod():
        raise UserError(
            "deploy=true serves by the KServe of the cluster that a run is in, and this run is in none",
            "omit it, and deploy by python pipeline.py deploy",
        )
    if values["store"]:
        open_store(values["store"], os.environ).check_access()
    source = (open_listed_source if graph == BIGDATA else open_source)(values["data"])
    check_apart(source, told(values["data"]), values["store"])
    version, size = source.state() if isinstance(source, SizedSource) else (source.version(), 0)
    log.info(f"{values['data']} is at {version}")
    is_large = graph != BIGDATA and size > handover_mib * 2**20
    if is_large and not values["store"]:
        log.info(
            f"warning: {told(values['data'])} has {size / 2**20:,.0f} MiB, more than handover_mib={handover_mib}, and "
            "without store= the steps download and preprocess each need a disk for all of it"
        )
    preparation = PreprocessRecipe.taken_from(values)
    return Resolved(
        version=version,
        prepared_by=_prepared_by(preparation, told(values["data"]), version),
        reading=DownloadRecipe.taken_from({**values, "listed": is_large and values["store"] != ""}).text(),
        preparation=preparation.text(),
        training=training.text(),
        evaluation=EvaluateRecipe.taken_from(values).text(),
        export=ExportRecipe.taken_from(values).text(),
        registration=RegisterRecipe.taken_from(values).text(),
        Output=_parts(values["parts"]) if graph == BIGDATA else [pod.text() for pod in planned],
    )


def _parts(count: int) -> list[str]:
    """Return what each of the pods has to do that prepare the data."""
    return [PartRecipe.of(part=part, parts=count).text() for part in range(count)]


def _prepared_by(recipe: PreprocessRecipe, source: str, version: str) -> str:
    """Return the run that put the prepared data into the store: this one, if it is not there, or not any more.

    As an input of step preprocess, this makes it run if what it handed on in an earlier run has been removed.
    """
    if not recipe.store:
        return ""
    prepared = PreparedData(recipe.store, source, version, recipe.values(), code_digest(PREPROCESS))
    return prepared.renew() or os.environ.get("RUN_ID", "")
