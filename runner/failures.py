"""Why a verb or a step failed, and the exit code that says so."""

import errno
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from components.shared.core.errors import CorruptDataError, TransientError, UserError, as_user_error, error_from_json
from components.shared.core.log import read_event

DONE, FAILED, USER_ERROR, CANCELED, INTERRUPTED = 0, 1, 2, 3, 130  # exit codes
LAST_LINES = 40  # that are shown of a failed step
# What the user can fix in the file system besides a full disk; other errors of it are bugs.
REMEDIES = {
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "check permissions"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "give another path"),
}


@dataclass(frozen=True)
class Failure:
    """A failed step, the last lines that it printed, and the error that it reported; a bug reports none.

    A step that was `killed` could report nothing: this is why.
    """

    step: str | None
    lines: tuple[str, ...] = ()
    reported: UserError | None = None
    killed: str | None = None

    @property
    def is_known(self) -> bool:
        """Whether the error says by itself why the step failed."""
        return bool(self.reported or self.killed)

    @property
    def is_permanent(self) -> bool:
        """Return whether the step would fail again: a mistake that neither time nor a new copy of the data fixes."""
        return self.reported is not None and not isinstance(self.reported, TransientError | CorruptDataError)

    @property
    def error(self) -> str | None:
        """The error in one line; None if nothing is known of it."""
        return str(self.reported) if self.reported else self.killed or (self.lines[-1] if self.lines else None)

    @property
    def exit_code(self) -> int:
        """The exit code of the verb that ran the step."""
        return USER_ERROR if self.reported else FAILED


def read_failure(step: str | None, lines: Iterable[str]) -> Failure:
    """Return the failure of a step that printed these lines."""
    shown: list[str] = []
    reported = None
    for line in lines:
        event = read_event(line)
        if event is None:
            shown.append(line)
        elif event.get("event") == "error":
            with suppress(KeyError):  # a line that only looks like an event
                reported = error_from_json(event)
    return Failure(step, tuple(shown[-LAST_LINES:]), reported)


def find_user_error(error: Exception) -> UserError | None:
    """Return the error of a verb that the user can fix, also in the file system; None if it is a bug."""
    if isinstance(error, OSError) and error.errno in REMEDIES:
        message = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
        return UserError(message, REMEDIES[error.errno])
    return as_user_error(error)
