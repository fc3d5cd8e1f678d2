"""Step download: a data set's name, URI or path -> its raw files, verified."""

import time

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.core.files import new_folder
from components.shared.core.printable import told
from components.shared.core.step import step
from components.shared.data.prepared_data import fetch_prepared, is_prepared, prepared_version
from components.shared.data.raw import write_raw
from components.shared.data.sources.schemes import Kind, open_source
from components.shared.parameters.preparation import ReadingRecipe

READS = ("components.shared.data.sources.*",)  # modules that open_source imports by name


@step
def download(*, data: str, version: str, recipe: str, needs_labels: bool, raw: str) -> None:
    """Fetch the raw files of the data set `data` into the folder `raw`, verified and described by `raw.json`.

    `version` and `recipe` are results of the first step; unless it `needs_labels`, pictures without one are taken, too,
    and a prepared dataset as it is. Raises UserError if the name, scheme or folder is unknown, no mirror can be used, a
    digest differs, an archive is not safe, the data is no classification set, its version has changed, or the recipe is
    for pictures and there are none.
    """
    started = time.monotonic()
    parameters = ReadingRecipe.read(recipe)
    with new_folder(raw) as folder:
        if not needs_labels and is_prepared(data):
            _check_version(data, version, prepared_version(data))
            log.info(f"{told(data)} is prepared: {sum(fetch_prepared(data, folder).counts.values()):,} images")
            return
        source = open_source(data)
        found = source.fetch(folder, parameters.reading(needs_labels))
        _check_version(data, version, source.version())
        _check_kind(data, found["kind"], parameters)
        log.info(f"{found['name']}: {sum(found['counts'].values()):,} images of {len(found['classes'])} classes")
        if left_out := found.get("left_out"):
            for sentence in left_out.sentences():
                log.info(sentence)
        write_raw(folder, source=told(data), version=version, seconds=round(time.monotonic() - started, 3), **found)


def _check_version(data: str, version: str, fetched: str) -> None:
    if fetched != version:
        raise UserError(f"data={data} was {version} when the run began and is {fetched} now", "run it again")


def _check_kind(data: str, kind: Kind, parameters: ReadingRecipe) -> None:
    """Raise UserError if a parameter about pictures was set for data of another kind."""
    if kind == "pictures":
        if parameters.label_columns and not parameters.labels:
            message = f"label_columns={parameters.label_columns} has no effect without labels"
            raise UserError(message, "set labels=FILE.csv")
        return
    used = {"label_columns": ""} if kind == "samples" else {}
    if changes := parameters.model_copy(update=used).changes():
        what = "says the classes by itself" if kind == "samples" else "has no picture files"
        raise UserError(f"{changes.split(';')[0]} has no effect: data={data} {what}", "leave it out")
