"""Step resolve-prediction: a run's parameters -> the version of its data, the model, and what each pod has to do.

It is the first step of the graph `prediction`, and never cached: the champion is looked up here, once, and the run goes
on with the version that it was, whatever becomes the champion meanwhile.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from components.shared.core import log
from components.shared.core.printable import told
from components.shared.core.step import step
from components.shared.data.prepared_data import is_prepared, prepared_version
from components.shared.data.sources.schemes import check_apart, open_source
from components.shared.parameters.form import merge_options
from components.shared.parameters.prediction import PredictionRecipe
from components.shared.parameters.preparation import ReadingRecipe
from components.shared.parameters.table import PREDICTION
from components.shared.prediction.pods.chosen import CollectRecipe, ShareRecipe, choose_model
from components.shared.storage.client import open_store

READS = ("components.shared.data.sources.*",)  # modules that open_source imports by name


class Resolved(NamedTuple):
    """What the later steps get: recipes as texts, and what each pod has to do."""

    version: str
    reading: str
    collection: str
    Output: list[str]  # the name that KFP's local runner wants for what a loop reads


@step
def resolve_prediction(*, options: Mapping[str, Any], **inputs: Any) -> Resolved:
    """Check all parameters of a run; return the present version of its data, and the recipes with the chosen model.

    Raises UserError if a parameter is unknown or out of its range, the data or the model is unknown or out of reach, or
    there is no access to the store.
    """
    values = merge_options(PREDICTION, inputs, options).values()
    parameters = PredictionRecipe.taken_from(values)
    if parameters.store:
        open_store(parameters.store, os.environ).check_access()
    chosen = choose_model(parameters.store, parameters.model_name, parameters.model)
    log.info(f"model={parameters.model} is {chosen.name}, package {chosen.package_digest[:12]}")
    version = _version(values["data"], parameters.store)
    log.info(f"{told(values['data'])} is at {version}")
    model = {"model": chosen.name, "package_digest": chosen.package_digest, "store": parameters.store}
    return Resolved(
        version=version,
        reading=ReadingRecipe.taken_from(values).text(),
        collection=CollectRecipe.taken_from({**values, **model}).text(),
        Output=[
            ShareRecipe.of(**model, threads=parameters.threads, pod=pod, pods=parameters.parts).text()
            for pod in range(parameters.parts)
        ],
    )


def _version(data: str, store: str) -> str:
    if is_prepared(data):
        return prepared_version(data)
    source = open_source(data)
    check_apart(source, told(data), store)
    return source.version()
