"""The parameters of step preprocess."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from components.shared.core.document import MAX_COUNT, Keep, ValueRange
from components.shared.core.errors import UserError
from components.shared.data.layout.reading import Arrangement, Reading
from components.shared.parameters.common import Seed, StoreUri
from components.shared.parameters.recipe import Accepts, Fraction, Recipe, fitting, parameter


def _is_value_range(text: str) -> bool:
    low, high = bounds(text)
    return low < high and math.isfinite(high - low)


def bounds(text: str) -> tuple[float, float]:
    """Return the two numbers of `LOW,HIGH`. Raises ValueError if the text is another."""
    low, high = map(float, text.split(","))
    return low, high


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
    value_range: Annotated[
        str,
        fitting(lambda text: not text or _is_value_range(text)),
        Accepts("LOW,HIGH, two numbers of which the first is the lower one, such as 0,4095"),
    ] = parameter(
        "", "LOW,HIGH: the values that become black and white in pictures of more than 8 bits; empty measures."
    )
    keep: Keep = parameter(
        "raw",
        "What is kept of a picture: raw, its pixels, fitted into image_size; or jpeg, a JPEG of a short side of 8/7 of "
        "image_size, of which training reads random crops and all else the centre.",
    )

    @property
    def given_range(self) -> ValueRange | None:
        """Return the bounds that are given."""
        if not self.value_range:
            return None
        low, high = bounds(self.value_range)
        return ValueRange(low=low, high=high)


class ReadingRecipe(Recipe):
    """How step download reads a source of pictures."""

    data_layout: Arrangement = parameter(
        "auto",
        "What the top folders of pictures are: classes, splits, or groups (of sub-folders that are classes); with "
        "names, the pictures' names begin with their classes. auto finds out and refuses what has two readings.",
    )

    labels: str = parameter(
        "", "Name of a CSV in the source that has the classes of the pictures; empty takes them from the folders."
    )
    label_columns: Annotated[
        str,
        fitting(lambda text: not text or len(text.split(",")) == 2),
        Accepts("PICTURE,CLASS, the names of two columns"),
    ] = parameter(
        "",
        "PICTURE,CLASS: the columns of that CSV, of a manifest or of Parquet; of WebDataset what the pictures end in, "
        "and cls or a field of .json. Empty finds them.",
    )

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        if self.labels and self.data_layout != "auto":
            message = f"data_layout={self.data_layout} has no effect with labels={self.labels}"
            raise UserError(message, "leave out one of them")
        return self

    def reading(self, needs_labels: bool) -> Reading:
        """Return how to read a source, of which each picture `needs_labels`, or may have one."""
        return Reading(self.data_layout, self.labels, self.label_columns, needs_labels)

    def check_used(self, data: str, kind: str) -> None:
        """Raise UserError if a parameter is set that has no effect on the source `data`, which is of that `kind`."""
        if kind == "pictures":
            if self.label_columns and not self.labels:
                raise UserError(
                    f"label_columns={self.label_columns} has no effect without labels", "set labels=FILE.csv"
                )
            return
        what = "says the classes by itself" if kind == "samples" else "has no picture files"
        for name, field in ReadingRecipe.model_fields.items():
            value = getattr(self, name)
            if value != field.default and not (name == "label_columns" and kind == "samples"):
                raise UserError(f"{name}={value} has no effect: data={data} {what}", "leave it out")


class DownloadRecipe(ReadingRecipe):
    """All that step download needs to know; its text names `listed` only if that is true, as there once was none."""

    listed: bool = False  # whether step resolve found a source too large to be copied: its pictures are listed

    def text(self) -> str:
        """Return the recipe as the text that `read` reads."""
        return ";".join(self.words(*ReadingRecipe.model_fields, *(("listed",) if self.listed else ())))

    @classmethod
    def from_words(cls, words: Sequence[str]) -> Self:
        """Return the recipe in words `name=value`. Raises UserError if they are others."""
        return super().from_words([*words, *(() if "listed=true" in words else ("listed=false",))])


class PreprocessRecipe(Preparation, ReadingRecipe, Seed, StoreUri):
    """All that step preprocess needs to know."""

    max_left_out: Annotated[float, Field(ge=0, le=1)] = parameter(
        0.1,
        "Share of the pictures that may be left out because nothing here can read their kind, such as .heic; "
        "1 allows any.",
    )
    handover_mib: Annotated[int, Field(ge=0, le=MAX_COUNT)] = parameter(
        1024,
        "Size of a prepared data set, in MiB, above which steps read it from the store shard by shard; a source above "
        "it is read picture by picture, not copied.",
    )

    def determining(self) -> dict[str, Any]:
        """Return the parameters that determine the dataset, by name; of newer ones, those that were set.

        The digest of the raw data says how it was read, but a later run needs to know, to read it again.
        """
        always = {*Preparation.model_fields, *Seed.model_fields} - {"value_range", "keep"}
        newer = {"value_range", "keep", *ReadingRecipe.model_fields}
        defaults = type(self)()
        changed = {name for name in newer if getattr(self, name) != getattr(defaults, name)}
        return {name: getattr(self, name) for name in type(self).model_fields if name in always | changed}
