"""Step settle: the units of a dataset, prepared by many pods -> the dataset, whose shards stay in the store."""

import time
from collections.abc import Sequence
from pathlib import Path

from components.shared.core import log
from components.shared.core.files import new_folder
from components.shared.core.step import step
from components.shared.data.parts.listing import open_listing
from components.shared.data.parts.settlement import settle_units
from components.shared.data.parts.stored_units import PartDocument
from components.shared.data.preparation.unit import unit_size
from components.shared.parameters.preparation import PreprocessRecipe


@step
def settle(*, listing: str, parts: Sequence[str], dataset: str) -> None:
    """Join the units of the pictures in folder `listing` to a dataset in folder `dataset`.

    Folders `parts` tell what the pods did that prepared them. Raises UserError if a unit is missing, more than
    `max_bad_images` pictures are bad, or a split has no image of a class.
    """
    started = time.monotonic()
    pictures = open_listing(listing).document
    parameters = PreprocessRecipe.read(pictures.recipe)
    done = [PartDocument.read(Path(part) / "part.json") for part in parts]
    prepared, reused = sum(part.units for part in done), sum(part.reused for part in done)
    size = unit_size(parameters.image_size, pictures.pictures, parameters.keep)
    log.info(f"units of up to {size:,} pictures: {prepared:,}; already in the store: {reused:,}")

    def seconds() -> dict[str, float]:
        longest = max(part.seconds for part in done)
        return {**pictures.seconds, "prepare": longest, "settle": round(time.monotonic() - started, 3)}

    with new_folder(dataset) as folder:
        settle_units(pictures, parameters, folder, seconds)
