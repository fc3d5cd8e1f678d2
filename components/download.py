"""Step download: a data set's name, URI or path -> its raw files, verified; of a large one a list of its pictures."""

import time
from pathlib import Path

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.core.files import new_folder
from components.shared.core.printable import told
from components.shared.core.step import step
from components.shared.data.layout.left_out import log_left_out
from components.shared.data.prepared_data import fetch_prepared, is_prepared, prepared_version
from components.shared.data.raw import write_raw
from components.shared.data.sources.schemes import Source, Unlisted, listed_source, open_source
from components.shared.parameters.preparation import DownloadRecipe

READS = ("components.shared.data.sources.*",)  # modules that open_source imports by name


@step
def download(*, data: str, version: str, recipe: str, needs_labels: bool, raw: str) -> None:
    """Fetch the raw files of the data set `data` into the folder `raw`, verified and described by `raw.json`.

    If the recipe says so and the source can be read picture by picture, list its pictures there instead.
    `version` and `recipe` are results of the first step; unless it `needs_labels`, pictures without one are taken, too,
    and a prepared dataset as it is. Raises UserError if the name, scheme or folder is unknown, no mirror can be used, a
    digest differs, an archive is not safe, the data is no classification set, its version has changed, or the recipe is
    for pictures and there are none.
    """
    started = time.monotonic()
    parameters = DownloadRecipe.read(recipe)
    with new_folder(raw) as folder:
        if not needs_labels and is_prepared(data):
            _check_version(data, version, prepared_version(data))
            log.info(f"{told(data)} is prepared: {sum(fetch_prepared(data, folder).counts.values()):,} images")
            return
        source = open_source(data)
        if parameters.listed and _list(source, data, version, parameters, folder, started):
            return
        found = source.fetch(folder, parameters.reading(needs_labels))
        _check_version(data, version, source.version())
        parameters.check_used(data, found["kind"])
        log.info(f"{found['name']}: {sum(found['counts'].values()):,} images of {len(found['classes'])} classes")
        log_left_out(found.get("left_out"))
        write_raw(folder, source=told(data), version=version, seconds=round(time.monotonic() - started, 3), **found)


def _list(source: Source, data: str, version: str, parameters: DownloadRecipe, folder: Path, started: float) -> bool:
    """List the pictures of a source in a folder; return False if they cannot be read one by one."""
    try:
        description, pictures = listed_source(source, data).listing(parameters.reading(needs_labels=True))
    except Unlisted:
        log.info(f"{told(data)} cannot be read picture by picture: all of it is copied")
        return False
    from components.shared.data.parts.listing import DOCUMENT, write_pictures  # 1 s, most of it pyarrow

    document = write_pictures(folder, pictures, source=data, version=version, **description)
    _check_version(data, version, source.version())
    parameters.check_used(data, document.kind)
    log.info(
        f"{document.name}: a list of {document.pictures:,} images of {len(document.classes)} classes, which step "
        "preprocess reads one by one"
    )
    log_left_out(document.left_out)
    seconds = {"download": round(time.monotonic() - started, 3)}
    document.model_copy(update={"seconds": seconds}).write(folder / DOCUMENT)
    return True


def _check_version(data: str, version: str, fetched: str) -> None:
    if fetched != version:
        raise UserError(f"data={data} was {version} when the run began and is {fetched} now", "run it again")
