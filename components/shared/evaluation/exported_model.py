"""The package: the folder of an exported model, and `package.json` in it, which describes it."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from components.shared.core.document import (
    MAX_COUNT,
    Document,
    Fingerprint,
    Names,
    Number,
    Part,
    SealedDocument,
    Sha256,
    Share,
    Size,
    ValueRange,
)
from components.shared.models.document import Temperature


def _is_shape(shape: list[Any]) -> list[Any]:
    sizes = shape[1:]
    if shape[:1] != ["batch"] or not sizes or not all(type(size) is int and 0 < size < MAX_COUNT for size in sizes):
        raise ValueError("not a batch of arrays")
    return shape


_SHAPE = {
    "type": "array",
    "prefixItems": [{"const": "batch"}],
    "items": {"type": "integer", "minimum": 1},
    "minItems": 2,
}


class Tensor(Part):
    """An input or output of the programs: a batch of any size."""

    name: str
    dtype: str
    shape: Annotated[list[Any], AfterValidator(_is_shape), WithJsonSchema(_SHAPE)]

    @property
    def sizes(self) -> list[int]:
        """Return the shape of one of the batch."""
        return self.shape[1:]


class Preparation(Part):
    """How pictures become the program's images: fitted into a square, or cropped; then gray or in three colours."""

    image_size: Size
    channels: Size
    crop: bool | None = None  # true if an image is the centre crop of a picture, as keep=jpeg has it


class Description(Part):
    """What users of the programs must know; it is stored inside them, too."""

    classes: Names
    input: Tensor
    output: Tensor
    dataset_digest: Sha256
    model_digest: Sha256
    weights_sha256: Sha256
    code_version: str  # of the training
    test_accuracy: Share
    value_range: ValueRange | None = None  # by which the images were made from numbers of more than 8 bits
    preparation: Preparation | None = None  # of pictures of other sizes and modes
    temperature: Temperature = 1.0  # by which the programs divide the logits


class PackageDocument(Description, SealedDocument):
    """`package.json`: without times and measurements, so equal models have equal packages, byte by byte."""

    FORMAT = "torch2kubeflow/package"
    REMEDY = "export the model again"
    SEAL = "digest"

    revision: Size = 1  # of the format: 2 has preparation and temperature
    predictions_sha256: Sha256
    metrics: dict[str, Number]
    files: Annotated[dict[Literal["model.onnx", "model.pt2"], Fingerprint], Field(min_length=2)]
    digest: str = ""


class RefusalDocument(Document):
    """`refused.json`, all that there is in the folder of a model that was not accepted."""

    FORMAT = "torch2kubeflow/refusal"
    REMEDY = "export the model again"

    reasons: list[str]
    model_digest: Sha256
