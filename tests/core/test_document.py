"""Documents: what each type of field accepts, how a mistake is reported, and what is written."""

import json
from pathlib import Path
from typing import Any, Literal, Self

import pytest
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from components.shared.core.document import (
    MAX_COUNT,
    Count,
    Document,
    Fingerprint,
    ImageShape,
    Items,
    JsonObject,
    Names,
    Number,
    Part,
    SealedDocument,
    Sha256,
    Share,
    Size,
    Time,
    require,
)
from components.shared.core.errors import UserError
from components.shared.core.files import MAX_DEPTH

DIGEST = "0123456789abcdef" * 4


class Range(Part):
    low: Count
    high: Count

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        require("high", self.low <= self.high)
        return self


class Example(Document):
    FORMAT = "torch2kubeflow/example"
    REMEDY = "create it again"

    name: str
    ranges: Items[Range] | None = None
    counts: dict[Literal["a", "b"], Count] | None = None
    either: Count | Names = 0
    tag: str | None = Field(default=None, validation_alias="Tag", serialization_alias="Tag")

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        require("ranges", len(self.ranges or []) < 3)
        return self


class Sealed(SealedDocument):
    FORMAT = "torch2kubeflow/sealed"
    REMEDY = "create it again"

    count: Count
    checksum: str = ""


def content(**fields: Any) -> bytes:
    return json.dumps({"format": Example.FORMAT, **fields}).encode()


@pytest.mark.parametrize(
    ("type_", "valid", "invalid"),
    [
        (str, ["", "a"], [None, 1, b"a"]),
        (Count, [0, 1, MAX_COUNT - 1], [-1, MAX_COUNT, 1.0, True, "1", None]),
        (Size, [1], [0, -1, True]),
        (Number, [0, -1.5], [float("nan"), float("inf"), 10**400, True, "1"]),
        (Share, [0.0, 0.5, 1.0], [-0.1, 1.1, True, float("nan")]),
        (Time, ["2026-01-01T00:00:00+00:00", "2026-01-01T00:00:00Z"], ["2026-01-01T00:00:00", "today", 0]),
        (Sha256, [DIGEST], [DIGEST[1:], DIGEST + "0", DIGEST + "\n", "G" * 64, "A" * 64, 0]),
        (Names, [["a", "b"]], [[], ["a", "a"], ["a", 1], "ab", ("a", "b")]),
        (Items[Count], [[], [0, 1]], [[1, -1], (1,), {}, 1]),
        (ImageShape, [[1, 32, 32]], [[32, 32], [1, 2, 3, 4], [0, 1, 1], [1, 1, 1.0]]),
        (JsonObject, [{}, {"a": [None]}], [[], None, {1: 2}]),
        (Fingerprint, [{"sha256": DIGEST, "bytes": 0}], [{}, {"sha256": DIGEST}, {"sha256": DIGEST, "bytes": -1}]),
        (Range, [{"low": 0, "high": 1}], [{"low": 0}, {"low": 0, "high": 1, "more": 2}, [], None]),
    ],
)
def test_a_field_accepts_values_of_its_type_only(type_: Any, valid: list[object], invalid: list[object]) -> None:
    class Holder(Part):
        value: type_

    for value in valid:
        Holder.model_validate({"value": value})
    for value in invalid:
        with pytest.raises(ValidationError):
            Holder.model_validate({"value": value})


@pytest.mark.parametrize("type_", [Items[Count], Items[Count] | None, Names])
def test_the_check_of_a_list_ends_at_its_first_error(type_: Any) -> None:
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(type_).validate_python([None] * 1000)
    assert raised.value.error_count() == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "no valid field 'name'"),
        ({"name": 1, "ranges": 2}, "no valid field 'name'"),
        ({"ranges": [{"low": 1, "high": 2}, {"low": -1, "high": 2}]}, "no valid field 'ranges.1.low'"),
        ({"ranges": [{"low": 1}]}, "no valid field 'ranges.0.high'"),
        ({"ranges": [{"low": 1, "high": 2, "more": 3}]}, "the unknown field 'ranges.0.more'"),
        ({"ranges": [{"low": 2, "high": 1}]}, "no valid field 'ranges.0.high'"),
        ({"ranges": [{"low": 1, "high": 2}] * 3}, "no valid field 'ranges'"),
        ({"counts": {"a": 1, "c": 2}}, "no valid field 'counts.c'"),
        ({"either": -1}, "no valid field 'either'"),
        ({"Tag": 1}, "no valid field 'Tag'"),
    ],
)
def test_an_invalid_field_is_reported_by_its_path(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    damaged = content(**({"name": "n"} if fields else {}) | fields)
    (tmp_path / "x.json").write_bytes(damaged)
    with pytest.raises(UserError, match=rf"^x\.json has {message}; create it again$"):
        Example.parse(damaged, "x.json")
    with pytest.raises(UserError, match=rf"x\.json has {message}; create it again$"):
        Example.read(tmp_path / "x.json")


def test_a_document_names_its_format(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^x\.json has the format 'torch2kubeflow/example', not 'torch2kubeflow/sealed'"
    ):
        Sealed.parse(content(name="n"), "x.json")
    with pytest.raises(UserError, match="is missing: the folder is incomplete or not a torch2kubeflow/example"):
        Example.read(tmp_path / "x.json")


def test_what_is_written_is_what_was_read(tmp_path: Path) -> None:
    fields = {"name": "n", "ranges": [{"low": 1, "high": 2}], "Tag": None, "from_a_later_version": {"a": [1.5, None]}}
    document = Example.parse(content(**fields), "x.json")
    document.write(tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_bytes()) == {"format": Example.FORMAT, **fields}
    assert Example.read(tmp_path / "x.json") == document


def test_a_field_that_was_not_given_is_not_written() -> None:
    assert Example(name="n").fields() == {"format": Example.FORMAT, "name": "n"}


def test_our_own_mistake_in_a_document_is_no_user_error() -> None:
    with pytest.raises(ValidationError):
        Example(name="n", ranges=[{"low": 2, "high": 1}])  # type: ignore[list-item]


def test_a_change_of_a_sealed_document_is_noticed() -> None:
    sealed = Sealed(count=1).sealed()
    found = json.loads(sealed.to_json())
    assert Sealed.parse(sealed.to_json(), "x.json") == sealed
    for change in ({"count": 2}, {"count": "1"}, {"checksum": ""}, {"checksum": None}, {"more": 1}):
        with pytest.raises(UserError, match=r"^x\.json differs from its checksum; create it again$"):
            Sealed.parse(json.dumps({**found, **change}).encode(), "x.json")


def test_a_sealed_document_is_checked_too() -> None:
    wrong = Sealed.model_construct(count=-1).sealed()
    with pytest.raises(UserError, match=r"^x\.json has no valid field 'count'; create it again$"):
        Sealed.parse(wrong.to_json(), "x.json")


@pytest.mark.parametrize(
    ("more", "limit", "reason"),
    [("x", 10, "more than 10 bytes"), (json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH), 2**20, "more than 200 levels")],
)
def test_what_could_not_be_read_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: object, limit: int, reason: str
) -> None:
    document = Example.parse(content(name="n"), "x.json").model_copy(update={"more": more})
    monkeypatch.setattr(Example, "MAX_BYTES", limit)
    with pytest.raises(
        UserError, match=rf"^a document torch2kubeflow/example cannot be written \({reason}.*; use fewer"
    ):
        document.write(tmp_path / "x.json")
    assert not list(tmp_path.iterdir())


def test_what_is_nested_too_deep_to_be_written_again_is_refused() -> None:
    def nested(levels: int) -> bytes:
        value: object = 0
        for number in range(levels - 1):  # the document is a level itself
            value = [value] if number % 2 else {"a": value, "b": "[{[{"}
        return content(name="a", added_later=value)

    kept = Example.parse(nested(MAX_DEPTH), "x.json")
    assert json.loads(kept.to_json()) == json.loads(nested(MAX_DEPTH))
    with pytest.raises(UserError) as raised:
        Example.parse(nested(MAX_DEPTH + 1), "x.json")
    assert (
        str(raised.value)
        == "x.json is not a JSON document (more than 200 levels of lists and objects); create it again"
    )
