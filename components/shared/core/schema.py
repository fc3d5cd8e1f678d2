"""The schema of a JSON document: rules for its fields, and the check that names the first invalid field."""

import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from components.shared.core.errors import UserError
from components.shared.core.files import Document

MAX_COUNT = 2**53  # up to here JSON readers with doubles agree on whole numbers

Rule = Callable[[Any], bool]  # of a field's value


def check_fields(document: Document, rules: Mapping[str, Callable[[Document], bool]], name: str, remedy: str) -> None:
    """Check the fields of the document `name` in the order of `rules`, so that a rule may rely on those before it.

    Raises UserError if a field is missing or invalid.
    """
    for field, fits in rules.items():
        if field not in document or not fits(document):
            raise UserError(f"{name} has no valid field {field!r}", remedy)


def is_text(value: object) -> bool:
    """Return whether `value` is a string."""
    return isinstance(value, str)


def is_count(value: object) -> bool:
    """Return whether `value` is a whole number, 0 or more."""
    return type(value) is int and 0 <= value < MAX_COUNT


def is_size(value: object) -> bool:
    """Return whether `value` is a whole number, 1 or more."""
    return is_count(value) and value != 0


def is_number(value: object) -> bool:
    """Return whether `value` is a finite number."""
    return type(value) in (int, float) and abs(value) < MAX_COUNT and math.isfinite(value)  # type: ignore[arg-type]


def is_share(value: object) -> bool:
    """Return whether `value` is a float from 0 to 1."""
    return isinstance(value, float) and 0 <= value <= 1


def is_time(value: object) -> bool:
    """Return whether `value` is an ISO 8601 time with a time zone."""
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def is_sha256(value: object) -> bool:
    """Return whether `value` is a SHA-256: 64 hexadecimal digits."""
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def is_list(value: object, item: Rule, length: int | None = None) -> bool:
    """Return whether `value` is a list, of `length` if given, whose items satisfy a rule."""
    return isinstance(value, list) and length in (None, len(value)) and all(map(item, value))


def is_map(value: object, item: Rule) -> bool:
    """Return whether `value` is an object whose values satisfy a rule."""
    return isinstance(value, dict) and all(map(item, value.values()))


def is_file(value: object, pattern: str) -> bool:
    """Return whether `value` holds the path, the SHA-256 and the size in bytes of a file.

    The path must match `pattern`, so that a document cannot point out of its folder.
    """
    match value:
        case {"path": str(path), "sha256": sha256, "bytes": size}:
            return re.fullmatch(pattern, path) is not None and is_sha256(sha256) and is_count(size)
    return False


def has(**rules: Rule) -> Rule:
    """Return the rule for an object with exactly these fields."""
    return lambda value: (
        isinstance(value, dict)
        and value.keys() == rules.keys()
        and all(fits(value[field]) for field, fits in rules.items())
    )


def one_of(*values: object) -> Rule:
    """Return the rule for a value that is one of `values`."""
    return lambda value: value in values


def are_names(value: object) -> bool:
    """Return whether `value` is a list of one or more strings, all different."""
    return isinstance(value, list) and all(map(is_text, value)) and len(value) == len(set(value)) > 0


is_fingerprint = has(sha256=is_sha256, bytes=is_count)  # of a file whose name is known
