"""A recipe: the parameters that determine what a step does, typed, checked, and written as one short text.

`epochs=3;learning_rate=0.02;network=lenet5` is one: full values by name, sorted, written from their types, so that 5
and 5.0 give the same text. What JSON would have to escape is percent-encoded (RFC 3986), since Argo keeps the inputs of
a step six times, as JSON in JSON.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_args, get_origin
from urllib.parse import quote, unquote

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from components.shared.core.document import MAX_COUNT
from components.shared.core.errors import UserError, did_you_mean
from components.shared.core.printable import has_login

PLAIN = "/:,.-_~+@ "  # that neither JSON nor a recipe has to escape
WRONG_TYPE = "wrong_type"
# Logins in addresses, which Kubeflow would keep for ever among the parameters of a run.
KEYS = "AWS_ACCESS_KEY_ID and {prefix}AWS_SECRET_ACCESS_KEY, for a cluster into the Secret that {secret} names"
WEB = "give an address that needs no login, such as a presigned one; for runs on this machine, ~/.netrc may hold it"
TYPES: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a JSON list",
    dict: "a JSON object",
}


@dataclass(frozen=True)
class Accepts:
    """What a parameter accepts, in words, if its type and its range do not tell."""

    text: str


@dataclass(frozen=True)
class AsText:
    """Marks a whole number that is a text in KFP: Kubernetes requires one, or `zero` is another word for 0."""

    zero: str = "0"


def parameter(default: Any, description: str) -> Any:
    """Declare a parameter in a recipe, with its default and a line about it."""
    return Field(default, description=description)


def fitting(accepts: Callable[[str], bool]) -> AfterValidator:
    """Return the check of a text that must fit a rule."""

    def check(value: str) -> str:
        if not accepts(value):
            raise ValueError(value)
        return value

    return AfterValidator(check)


class Refused(ValueError):
    """A value that is not accepted, with the reason."""


def explained(refuse: Callable[[Any], str]) -> AfterValidator:
    """Return the check of a value by a function that returns why it is refused, or an empty text."""

    def check(value: Any) -> Any:
        if why := refuse(value):
            raise Refused(why)
        return value

    return AfterValidator(check)


def matching(pattern: str) -> AfterValidator:
    """Return the check of a text that must match a regular expression as a whole."""
    return fitting(lambda value: re.fullmatch(pattern, value) is not None)


class Recipe(BaseModel):
    """Parameters of one kind. Missing ones take their defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Return the recipe with these values. Raises UserError for the first that is unknown or not accepted."""
        for name in values:
            if name not in cls.model_fields:
                raise unknown(name, list(cls.model_fields))
        try:
            return cls(**values)
        except ValidationError as error:
            raise _refusal(cls, error, values) from None

    @classmethod
    def taken_from(cls, values: Mapping[str, Any]) -> Self:
        """Return the recipe with those of the values that belong to it. Raises UserError as `of` does."""
        return cls.of(**{name: value for name, value in values.items() if name in cls.model_fields})

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the recipe in a text, which names every parameter. Raises UserError if it does not."""
        return cls.from_words([unquote(word) for word in text.split(";")])

    @classmethod
    def from_words(cls, words: Sequence[str]) -> Self:
        """Return the recipe in words `name=value`, one for each parameter. Raises UserError if they are others."""
        given = dict(word.partition("=")[::2] for word in words)
        if given.keys() != cls.model_fields.keys() or len(words) != len(given):
            missing, unknown = cls.model_fields.keys() - given.keys(), given.keys() - cls.model_fields.keys()
            message = f"parameters missing: {sorted(missing)}, unknown: {sorted(unknown)}"
            raise UserError(message, f"give each of {', '.join(cls.model_fields)} once")
        return cls.of(**cls._parsed(given))

    def changed(self, words: Sequence[str]) -> Self:
        """Return the recipe with other values for the parameters in words `name=value` of its text."""
        given = dict(unquote(word).partition("=")[::2] for word in words)
        return self.of(**{**self.values(), **self._parsed(given)})

    def changes(self) -> str:
        """Return the words of the text that are not those of the defaults, for `changed` of the defaults."""
        defaults = type(self)().values()
        return ";".join(self.words(*(name for name, value in self.values().items() if value != defaults[name])))

    def text(self) -> str:
        """Return the recipe as the text that `read` reads."""
        return ";".join(self.words(*type(self).model_fields))

    def words(self, *names: str) -> list[str]:
        """Return the words `name=value` of the text for some of the parameters, sorted by name."""
        values = self.values()
        return [f"{name}={quote(_word(values[name]), safe=PLAIN)}" for name in sorted(names)]

    @classmethod
    def _parsed(cls, texts: Mapping[str, str]) -> dict[str, Any]:
        return {name: parse(cls.model_fields[name], name, text) for name, text in texts.items()}

    def values(self) -> dict[str, Any]:
        """Return the parameters as the pipeline has them: those marked AsText are texts."""
        return {
            name: _to_text(field, getattr(self, name)) if marker(field, AsText) else getattr(self, name)
            for name, field in type(self).model_fields.items()
        }

    @field_validator("*", mode="before")
    @classmethod
    def _typed(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name
        field = cls.model_fields[info.field_name]
        if isinstance(value, str):
            refuse_login(info.field_name, value)
        try:
            return _from_text(field, value) if marker(field, AsText) else _as_type(value, kind(field))
        except ValueError:
            raise PydanticCustomError(WRONG_TYPE, "wrong type") from None


def kind(field: FieldInfo) -> type:
    """Return the type of a parameter: bool, int, float, str, list or dict."""
    found: Any = get_origin(field.annotation) or field.annotation
    return str if found is Literal else found


def marker(field: FieldInfo, of: type) -> Any:
    """Return the mark of this type on a parameter, or None."""
    return next((mark for mark in field.metadata if isinstance(mark, of)), None)


def accepted(field: FieldInfo) -> str:
    """Return in words what a parameter accepts."""
    if words := marker(field, Accepts):
        return str(words.text)
    if get_origin(field.annotation) is Literal:
        return f"one of {', '.join(get_args(field.annotation))}"
    low, high = (next((getattr(m, name) for m in field.metadata if hasattr(m, name)), None) for name in ("ge", "le"))
    if low is None:
        return TYPES[kind(field)]
    return f"{low:,} or more" if high in (None, MAX_COUNT) else f"a number from {low:,} to {high:,}"


def parse(field: FieldInfo, name: str, text: str) -> Any:
    """Return the value that a person typed for a parameter. Raises UserError if it has the wrong type."""
    try:
        return _parse(field, text)
    except (KeyError, ValueError, RecursionError):
        raise UserError(f"{name}={text} has the wrong type", f"give {TYPES[kind(field)]}") from None


def _to_text(field: FieldInfo, value: Any) -> str:
    """Return a whole number marked AsText as the pipeline has it."""
    return str(value or marker(field, AsText).zero)


def _parse(field: FieldInfo, text: str) -> Any:
    match kind(field):
        case _ if marker(field, AsText):
            return text
        case type() as found if found is bool:
            return {"true": True, "false": False}[text.lower()]
        case type() as found if found in (list, dict):
            return _as_type(json.loads(text), found)
        case found:
            return found(text)


def _from_text(field: FieldInfo, value: Any) -> int:
    zero = marker(field, AsText).zero
    if value == zero:
        return 0
    number = _digits(value) if isinstance(value, str) else int(_as_type(value, int))
    if number == 0 and zero != "0":
        raise ValueError(value)
    return number


def _digits(text: str) -> int:
    if not text.isascii() or not text.isdigit() or str(int(text)) != text:
        raise ValueError(text)
    return int(text)


def _as_type(value: Any, kind: type) -> Any:
    """Return a value in its type: KFP turns numbers in objects into floats. Raises ValueError if it is another."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and is_number and (isinstance(value, float) or abs(value) <= sys.float_info.max):
        return float(value)
    if kind is int and is_number and abs(value) <= MAX_COUNT and value == int(value):
        return int(value)
    if kind in (int, float) or not isinstance(value, kind):
        raise ValueError(value)
    return str(value).encode().decode() if kind is str else value  # a lone surrogate is no text


def _word(value: Any) -> str:
    if isinstance(value, str | float):
        return str(value)
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def _refusal(recipe: type[Recipe], error: ValidationError, values: Mapping[str, Any]) -> UserError:
    """Return the first error as one line."""
    first = error.errors()[0]
    if isinstance(cause := first.get("ctx", {}).get("error"), UserError):
        return cause  # of a rule about several parameters
    name = str(first["loc"][0])
    field, value = recipe.model_fields[name], values[name]
    if first["type"] == WRONG_TYPE and not marker(field, AsText):
        return UserError(f"{name}={json.dumps(value)} has the wrong type", f"give {TYPES[kind(field)]}")
    why = f": {cause}" if isinstance(cause, Refused) else ""
    return UserError(f"{name}={_word(value)} is not accepted{why}", f"give {accepted(field)}")


def refuse_login(name: str, value: str) -> None:
    """Raise UserError, without the value, if that of the parameter `name` is an address with a user or a key."""
    if not has_login(value):
        return
    scheme = value.strip().partition("://")[0].lower()
    message = f"{name}={scheme}://... holds a login, which everybody could read among the parameters of the run"
    raise UserError(message, _remedy(name, scheme))


def _remedy(name: str, scheme: str) -> str:
    if scheme == "s3":
        prefix, secret = ("SOURCE_", "source_secret") if name == "data" else ("", "s3_secret")
        return f"give s3://bucket/..., and put the keys into {prefix}{KEYS.format(prefix=prefix, secret=secret)}"
    return WEB if scheme in ("http", "https") else "leave it out"


def unknown(name: str, names: list[str]) -> UserError:
    """Return the error about a name that no parameter has."""
    return UserError(f"{name!r} is not a parameter{did_you_mean(name, names)}", f"give one of: {', '.join(names)}")


Fraction = Annotated[float, Field(gt=0, lt=1), Accepts("a number above 0 and below 1")]
BelowOne = Annotated[float, Field(ge=0, lt=1), Accepts("a number from 0 to below 1")]
