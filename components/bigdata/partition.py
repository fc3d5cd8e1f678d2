"""Step partition: a data set's address -> the list of its pictures, of which none or only a sample is read."""

import time

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.core.files import new_folder
from components.shared.core.printable import told
from components.shared.core.step import step
from components.shared.data.layout.left_out import check_left_out, log_left_out
from components.shared.data.parts.listed_splits import check_splits
from components.shared.data.parts.listing import DOCUMENT, Listing, write_pictures
from components.shared.data.parts.measure import bounds
from components.shared.data.sources.schemes import open_listed_source
from components.shared.parameters.preparation import PreprocessRecipe, ReadingRecipe

READS = ("components.shared.data.sources.*",)  # modules that open_listed_source imports by name


@step
def partition(*, data: str, version: str, reading: str, recipe: str, listing: str) -> None:
    """List the pictures of the data set `data` in folder `listing`, with the `recipe` by which they are prepared.

    Raises UserError if the source is of a kind that cannot be read picture by picture, is no classification set,
    leaves out more than `max_left_out` of its pictures, has too few of a class for its splits, or has changed since the
    first step saw its `version`.
    """
    started = time.monotonic()
    source, parameters = open_listed_source(data), PreprocessRecipe.read(recipe)
    with new_folder(listing) as folder:
        as_read = ReadingRecipe.read(reading)
        description, pictures = source.listing(as_read.reading(needs_labels=True), parameters.store)
        as_read.check_used(data, description["kind"])
        log_left_out(description["left_out"])
        check_left_out(told(data), description["left_out"], parameters.max_left_out)
        document = write_pictures(folder, pictures, source=data, version=version, recipe=recipe, **description)
        if source.version() != version:
            raise UserError(f"data={told(data)} has changed while it was listed", "run it again")
        check_splits(Listing(folder, document), parameters)
        value_range = bounds(source, Listing(folder, document), parameters)
        seconds = {"partition": round(time.monotonic() - started, 3)}
        document.model_copy(update={"value_range": value_range, "seconds": seconds}).write(folder / DOCUMENT)
    log.info(f"{document.pictures:,} pictures of {len(document.classes):,} classes")
