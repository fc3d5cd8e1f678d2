"""The JSON documents that describe artifacts: typed models, checked when they are read.

A module that owns a file declares its document here next to its writer and its reader:

    class PackageDocument(SealedDocument):
        FORMAT = "torch2kubeflow/package"
        REMEDY = "export the model again"
        classes: Names
        ...

`make docs` writes their JSON Schemas to docs/schemas/.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from components.shared.core.errors import UserError
from components.shared.core.files import (
    MAX_JSON_BYTES,
    check_limits,
    json_bytes,
    new_file,
    parse_json,
    read_json,
    sha256_without,
)

MAX_COUNT = 2**53  # up to here JSON readers with doubles agree on whole numbers
SMALLER = "use fewer classes, pictures, epochs or trials"  # of these a document grows
_CONTRADICTION = "contradiction"


class Part(BaseModel):
    """An object inside a document, with exactly its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Document(BaseModel):
    """The content of a JSON file, which names its format.

    Fields that a later version added are read and written again. A field that was not given is not written.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)
    FORMAT: ClassVar[str]
    REMEDY: ClassVar[str]  # if it is damaged
    MAX_BYTES: ClassVar[int] = MAX_JSON_BYTES

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read the document at `path`. Raises UserError if it is missing, of another format, or not valid."""
        return cls._checked(read_json(path, cls.FORMAT, cls.MAX_BYTES), str(path))

    @classmethod
    def parse(cls, content: bytes, name: str) -> Self:
        """Return the document `name` with this content. Raises UserError if it is of another format, or not valid."""
        return cls._checked(parse_json(content, cls.FORMAT, name, cls.MAX_BYTES), name)

    @classmethod
    def _checked(cls, content: Mapping[str, Any], name: str) -> Self:
        fields = {field: value for field, value in content.items() if field != "format"}
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise UserError(f"{name} has {_first_error(error, fields)}", cls.REMEDY) from None

    def fields(self) -> dict[str, Any]:
        """Return the content as JSON has it: the format and the fields that were given."""
        return {"format": self.FORMAT, **self.model_dump(mode="json", by_alias=True, exclude_unset=True)}

    def to_json(self) -> bytes:
        """Return the content of the document's file. Raises UserError if it would be too large to be read."""
        fields = self.fields()
        content = json_bytes(fields)
        try:
            check_limits(fields, content, self.MAX_BYTES)
        except ValueError as error:
            raise UserError(f"a document {self.FORMAT} cannot be written ({error})", SMALLER) from None
        return content

    def write(self, path: str | Path) -> None:
        """Write the document's file atomically. Raises UserError if it would be too large to be read."""
        content = self.to_json()
        with new_file(path) as file:
            file.write(content)


class SealedDocument(Document):
    """A document that holds the SHA-256 of its other fields, in the field `SEAL`, so that a change is noticed."""

    SEAL: ClassVar[str] = "checksum"

    @classmethod
    def _checked(cls, content: Mapping[str, Any], name: str) -> Self:
        if content.get(cls.SEAL) != sha256_without(content, cls.SEAL):
            raise UserError(f"{name} differs from its {cls.SEAL}", cls.REMEDY)
        return super()._checked(content, name)

    def sealed(self) -> Self:
        """Return the document with its SHA-256."""
        return self.model_copy(update={self.SEAL: sha256_without(self.fields(), self.SEAL)})


def require(field: str, holds: bool) -> None:
    """In a validator of a whole model, refuse a field that contradicts others unless the condition holds."""
    if not holds:
        raise PydanticCustomError(_CONTRADICTION, "contradicts other fields", {"field": field})


def _first_error(error: ValidationError, content: Mapping[str, Any]) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = _path(content, first["loc"], is_missing=first["type"] == "missing")
    if first["type"] == _CONTRADICTION:
        place.append(first["ctx"]["field"])
    known = "the unknown field" if first["type"] == "extra_forbidden" else "no valid field"
    return f"{known} {'.'.join(map(str, place))!r}"


def _path(content: Any, loc: tuple[int | str, ...], is_missing: bool) -> list[int | str]:
    """Return the path of a field, without the names of a union's types and the word `[key]` that pydantic adds."""
    path: list[int | str] = []
    for key in loc:
        leads_on = key in content if isinstance(content, dict) else isinstance(content, list) and isinstance(key, int)
        if leads_on:
            content = content[key]
            path.append(key)
    return [*path, loc[-1]] if is_missing else path


def _is_time(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("no time zone")
    return text


def _are_different(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("a name repeats")
    return names


Item = TypeVar("Item")
Items = Annotated[list[Item], Field(fail_fast=True)]  # a list whose check ends at the first error, however long it is
Count = Annotated[int, Field(ge=0, lt=MAX_COUNT)]
Size = Annotated[int, Field(ge=1, lt=MAX_COUNT)]
Number = float  # finite; a whole number is one too
Share = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Time = Annotated[
    str, AfterValidator(_is_time), Field(json_schema_extra={"format": "date-time"})
]  # ISO 8601, with a time zone
Names = Annotated[
    Items[str], Field(min_length=1, json_schema_extra={"uniqueItems": True}), AfterValidator(_are_different)
]
NamesIfAny = Annotated[Items[str], Field(json_schema_extra={"uniqueItems": True}), AfterValidator(_are_different)]
ImageShape = Annotated[list[Size], Field(min_length=3, max_length=3)]  # C, H, W
JsonObject = dict[str, Any]  # whose members another module knows
Keep = Literal["raw", "jpeg"]  # what a prepared dataset has of a picture: pixels of one size, or a JPEG to be cropped


class Fingerprint(Part):
    """The SHA-256 and the size of a file whose name is known."""

    sha256: Sha256
    bytes: Count


class ValueRange(Part):
    """The bounds by which numbers of more than 8 bits become 0 to 255; numbers beyond them are clipped."""

    low: Number
    high: Number

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        require("high", self.low < self.high)
        return self
