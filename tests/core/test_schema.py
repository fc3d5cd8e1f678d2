"""The rules for the fields of a document."""

import pytest

from components.shared.core.errors import UserError
from components.shared.core.schema import (
    MAX_COUNT,
    Rule,
    are_names,
    check_fields,
    has,
    is_count,
    is_file,
    is_list,
    is_map,
    is_number,
    is_sha256,
    is_share,
    is_size,
    is_text,
    is_time,
    one_of,
)


@pytest.mark.parametrize(
    "rule, valid, invalid",
    [
        (is_text, ["", "a"], [None, 1, b"a"]),
        (is_count, [0, 1, MAX_COUNT - 1], [-1, MAX_COUNT, 1.0, True, "1", None]),
        (is_size, [1], [0, -1, True]),
        (is_number, [0, -1.5], [float("nan"), float("inf"), True, "1", MAX_COUNT]),
        (is_share, [0.0, 1.0], [0, 1, -0.1, 1.1, float("nan")]),
        (is_time, ["2026-01-01T00:00:00+00:00", "2026-01-01T00:00:00Z"], ["2026-01-01T00:00:00", "today", 0]),
        (is_sha256, ["0" * 64], ["0" * 63, "0" * 65, "G" * 64, "A" * 64, 0]),
        (are_names, [["a", "b"]], [[], ["a", "a"], ["a", 1], "ab"]),
        (one_of("a", "b"), ["a"], ["c", None]),
        (has(a=is_count), [{"a": 1}], [{}, {"a": "1"}, {"a": 1, "b": 2}, [], None]),
    ],
)
def test_a_rule_accepts_valid_values_only(rule: Rule, valid: list[object], invalid: list[object]) -> None:
    assert all(rule(value) for value in valid)
    assert not any(rule(value) for value in invalid)


def test_the_items_of_a_list_or_an_object_follow_a_rule() -> None:
    assert is_list([1, 2], is_count) and is_list([1, 2], is_count, 2) and is_list([], is_count)
    assert not is_list([1, 2], is_count, 3) and not is_list([1, "2"], is_count) and not is_list({}, is_count)
    assert is_map({"a": 1}, is_count) and not is_map({"a": "1"}, is_count) and not is_map([1], is_count)


@pytest.mark.parametrize("path", ["../a.npy", "/a.npy", "a.npy\n", "b.npy"])
def test_a_file_cannot_point_out_of_its_folder(path: str) -> None:
    file = {"path": "a.npy", "sha256": "0" * 64, "bytes": 1}
    assert is_file(file, r"a\.npy")
    assert not is_file({**file, "path": path}, r"a\.npy")


@pytest.mark.parametrize("change", [{"sha256": "0"}, {"bytes": -1}, {"path": 1}])
def test_a_file_has_a_digest_and_a_size(change: dict[str, object]) -> None:
    assert not is_file({"path": "a.npy", "sha256": "0" * 64, "bytes": 1, **change}, r"a\.npy")


def test_the_first_invalid_field_is_reported() -> None:
    rules = {"a": lambda d: is_count(d["a"]), "b": lambda d: d["b"] > d["a"], "c": lambda d: is_text(d["c"])}
    check_fields({"a": 1, "b": 2, "c": "", "more": None}, rules, "x.json", "create it again")
    for document, field in (({"b": 2}, "a"), ({"a": 1, "b": 0}, "b"), ({"a": 1, "b": 2}, "c")):
        with pytest.raises(UserError, match=f"^x.json has no valid field '{field}'; create it again$"):
            check_fields(document, rules, "x.json", "create it again")
