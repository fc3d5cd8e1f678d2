"""The parameters of step preprocess."""

from typing import Annotated, Any

from pydantic import Field

from components.shared.core.document import MAX_COUNT
from components.shared.parameters.common import Seed, StoreUri
from components.shared.parameters.recipe import Fraction, Recipe, parameter


class Preparation(Recipe):
    """What determines a prepared dataset, besides raw data, code and seed."""

    image_size: Annotated[int, Field(ge=8, le=4096)] = parameter(
        32, "Height and width in pixels to which images are scaled (LeNet-5 reads 32)."
    )
    val_fraction: Fraction = parameter(
        0.1, "Share of the training images held out for validation, if the source has no val split."
    )
    test_fraction: Fraction = parameter(
        0.15, "Share of the images held out for the test, if the source has no test split."
    )
    max_bad_images: Annotated[int, Field(ge=0, le=MAX_COUNT)] = parameter(
        0, "Number of broken pictures to skip and list; one more fails the step."
    )


class PreprocessRecipe(Preparation, Seed, StoreUri):
    """All that step preprocess needs to know."""

    max_left_out: Annotated[float, Field(ge=0, le=1)] = parameter(
        0.1,
        "Share of the pictures that may be left out because nothing here can read their kind, such as .heic; "
        "1 allows any.",
    )
    handover_mib: Annotated[int, Field(ge=0, le=MAX_COUNT)] = parameter(
        1024, "Size of a prepared data set, in MiB, above which steps read it from the store shard by shard."
    )

    def determining(self) -> dict[str, Any]:
        """Return the parameters that determine the dataset, by name."""
        return {name: getattr(self, name) for name in (*Preparation.model_fields, *Seed.model_fields)}
