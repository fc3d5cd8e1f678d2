"""Step prepare: the list of a source's pictures -> one part of the units of its dataset, in the store."""

import time

from components.shared.core.files import new_folder
from components.shared.core.step import step
from components.shared.data.parts.listing import open_listing
from components.shared.data.parts.stored_units import PartDocument
from components.shared.data.parts.unit_preparation import prepare_units
from components.shared.parameters.common import PartRecipe
from components.shared.parameters.preparation import PreprocessRecipe


@step
def prepare(*, listing: str, planned: str, part: str) -> None:
    """Prepare the units of the part that is `planned`, of the pictures in folder `listing`.

    Folder `part` tells what was done. Raises UserError if the store cannot be used, more than `max_bad_images` pictures
    of a unit are bad, a picture has more than 8 bits and its range is not known, or one has changed since it was
    listed.
    """
    started = time.monotonic()
    pictures, mine = open_listing(listing), PartRecipe.read(planned)
    parameters = PreprocessRecipe.read(pictures.document.recipe)
    with new_folder(part) as folder:
        units, reused = prepare_units(pictures, parameters, mine.part, mine.parts)
        seconds = round(time.monotonic() - started, 3)
        PartDocument(units=units, reused=reused, seconds=seconds).write(folder / "part.json")
