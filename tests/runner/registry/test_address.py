"""How verbs name versions: pytest tests/runner/registry/test_address.py"""

import pytest

from runner.registry.address import Address, read_address


@pytest.mark.parametrize(
    ("text", "store", "name", "version"),
    [
        ("mnist", None, "mnist", None),
        ("mnist/champion", None, "mnist", None),
        ("mnist/12", None, "mnist", 12),
        ("mnist/0", None, "mnist", 0),
        ("mnist/versions/12/", None, "mnist", 12),
        ("s3://bucket/models/mnist", "s3://bucket", "mnist", None),
        ("s3://bucket/a/models/b/models/mnist/versions/12", "s3://bucket/a/models/b", "mnist", 12),
    ],
)
def test_a_text_names_a_version_or_a_champion(text: str, store: str | None, name: str, version: int | None) -> None:
    assert read_address(text) == Address(text, store, name, version)


@pytest.mark.parametrize(
    "text", ["", "a/b", "mnist/-1", "mnist/1/2", "runs/latest/package", "s3://bucket/mnist/1", "M"]
)
def test_other_texts_name_none(text: str) -> None:
    assert read_address(text) is None
