"""Step partition: a data set's address -> the list of its pictures, of which none or only a sample is read."""

import numpy as np
from numpy.typing import NDArray

from components.shared.core import log
from components.shared.core.document import ValueRange
from components.shared.core.errors import UserError
from components.shared.core.files import new_folder
from components.shared.core.printable import told
from components.shared.core.step import step
from components.shared.data.layout.left_out import check_left_out
from components.shared.data.parts.listing import DOCUMENT, Listing, write_listing
from components.shared.data.parts.measure import measured_range
from components.shared.data.preparation.splits import TEST
from components.shared.data.sources.schemes import ListedSource, open_listed_source
from components.shared.parameters.preparation import PreprocessRecipe, ReadingRecipe

READS = ("components.shared.data.sources.*",)  # modules that open_listed_source imports by name


@step
def partition(*, data: str, version: str, reading: str, recipe: str, listing: str) -> None:
    """List the pictures of the data set `data` in folder `listing`, with the `recipe` by which they are prepared.

    Raises UserError if the source is of a kind that cannot be read picture by picture, is no classification set,
    leaves out more than `max_left_out` of its pictures, or has changed since the first step saw its `version`.
    """
    source, parameters = open_listed_source(data), PreprocessRecipe.read(recipe)
    with new_folder(listing) as folder:
        description, pictures = source.listing(ReadingRecipe.read(reading).reading(needs_labels=True))
        check_left_out(told(data), description["left_out"], parameters.max_left_out)
        document = write_listing(folder, pictures, source=data, version=version, recipe=recipe, **description)
        if value_range := parameters.given_range or _measure(source, Listing(folder, document), parameters):
            document.model_copy(update={"value_range": value_range}).write(folder / DOCUMENT)
        if source.version() != version:
            raise UserError(f"data={told(data)} has changed while it was listed", "run it again")
    log.info(f"{document.pictures:,} pictures of {len(document.classes):,} classes")


def _measure(source: ListedSource, listing: Listing, parameters: PreprocessRecipe) -> ValueRange | None:
    """Return the bounds of pictures of more than 8 bits, if there are any."""

    def outside_test() -> NDArray[np.bool_]:
        splits = listing.assigned(parameters.val_fraction, parameters.test_fraction, parameters.seed)
        is_outside: NDArray[np.bool_] = np.concatenate([*splits]) != TEST
        return is_outside

    return measured_range(source, listing, outside_test, parameters.image_size)
