"""What the fields of a document may be: rules, and the check that tells which field breaks its own."""

import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from components.shared.core.errors import UserError
from components.shared.core.files import Document

MAX_COUNT = 2**53

Rule = Callable[[Any], bool]  # of a field's value


def check_fields(document: Document, rules: Mapping[str, Callable[[Document], bool]], place: str, remedy: str) -> None:
    """Hold a document to its rules in turn, so that each may rest on those above; UserError naming the first broken."""
    for field, fits in rules.items():
        if field not in document or not fits(document):
            raise UserError(f"{place} has no proper field {field!r}; {remedy}")


def is_text(value: object) -> bool:
    """A string."""
    return isinstance(value, str)


def is_count(value: object) -> bool:
    """A whole number from 0."""
    return type(value) is int and 0 <= value < MAX_COUNT


def is_size(value: object) -> bool:
    """A whole number from 1."""
    return is_count(value) and value != 0


def is_number(value: object) -> bool:
    """A finite number."""
    return type(value) in (int, float) and abs(value) < MAX_COUNT and math.isfinite(value)  # type: ignore[arg-type]


def is_share(value: object) -> bool:
    """A number from 0 to 1, written as a fraction."""
    return isinstance(value, float) and 0 <= value <= 1


def is_time(value: object) -> bool:
    """An ISO 8601 time with its zone."""
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def is_sha256(value: object) -> bool:
    """64 hexadecimal digits."""
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def is_list(value: object, item: Rule, length: int | None = None) -> bool:
    """A list of such items, of that length where one is given."""
    return isinstance(value, list) and length in (None, len(value)) and all(map(item, value))


def is_map(value: object, item: Rule) -> bool:
    """An object whose values are such items."""
    return isinstance(value, dict) and all(map(item, value.values()))


def has(**rules: Rule) -> Rule:
    """The rule of an object with these fields and no others."""
    return lambda value: (
        isinstance(value, dict)
        and value.keys() == rules.keys()
        and all(fits(value[field]) for field, fits in rules.items())
    )


def are_names(value: object) -> bool:
    """A list of different strings, one at least."""
    return isinstance(value, list) and all(map(is_text, value)) and len(value) == len(set(value)) > 0
