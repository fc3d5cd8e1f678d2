"""The errors that are reported in one line: user errors, transient failures and corrupt data.

Between processes and pods they travel as the JSON of `to_json`, with their type, message and remedy.
"""

import difflib
import errno
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from components.shared.core.printable import printable, told

NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


class UserError(ValueError):
    """An error that the user can fix: the value, why it is refused, and the remedy, in one line.

    The runner prints the line without a traceback and exits with code 2.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        """Turn both into single lines; the text of the error is the message, a semicolon and the remedy.

        Addresses in the message, which may be a user's, lose their queries.
        """
        self.message, self.remedy = (printable(" ".join(text.split())) for text in (told(message), remedy))
        super().__init__("; ".join(filter(None, [self.message, self.remedy])))

    def to_json(self) -> dict[str, str]:
        """Return the error as a JSON object; of a subclass only the type in TYPES that it extends remains."""
        kind = next(kind.__name__ for kind in type(self).__mro__ if kind.__name__ in TYPES)
        return {"error": kind, "message": self.message, "remedy": self.remedy}


class TransientError(UserError):
    """A failure outside the program that persisted through all retries; the same run may succeed later."""


class CorruptDataError(UserError):
    """Stored bytes that do not match their digest or their format."""


TYPES = {kind.__name__: kind for kind in (UserError, TransientError, CorruptDataError)}


def error_from_json(document: Mapping[str, Any]) -> UserError:
    """Return the error that `to_json` described, of a type that is not known as UserError.

    Raises KeyError if `document` does not describe an error.
    """
    texts = {name: document[name] for name in ("error", "message", "remedy")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise KeyError("an error has only texts")
    return TYPES.get(texts["error"], UserError)(texts["message"], texts["remedy"])


def as_user_error(error: BaseException) -> UserError | None:
    """Return `error` if the user can fix it, also a full disk or a limit of open files; None if it is a bug."""
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        place = error.filename2 or error.filename or "the disk"  # of a copy, the second is where it is written
        return UserError(f"{error.strerror}: {place}", "free some space there")
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        return UserError(": ".join(filter(None, [error.strerror, error.filename])), "raise the limit (ulimit -n)")
    return error if isinstance(error, UserError) else None


@contextmanager
def disk_named(folder: object) -> Iterator[None]:
    """Let an error of a full disk in the block, which writes to `folder`, name that if it names no file."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE and not error.filename:
            error.filename = str(folder)
        raise


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return the known names that resemble `name`, for the end of a message; empty if there are none."""
    guesses = difflib.get_close_matches(name, list(names))
    return f" (did you mean {' or '.join(guesses)}?)" if guesses else ""


@contextmanager
def raise_as_corrupt() -> Iterator[None]:
    """Re-raise UserError as CorruptDataError: stored data that fails validation is corrupt, not a user error."""
    try:
        yield
    except CorruptDataError:
        raise
    except UserError as error:
        raise CorruptDataError(error.message, error.remedy) from None
