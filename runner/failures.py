"""Why a step failed, read from the lines that it printed."""

from collections.abc import Iterable
from dataclasses import dataclass

from components.shared.core.errors import TransientError, UserError, error_from_json
from components.shared.core.log import read_event

LAST_LINES = 40  # that are shown of a failed step


@dataclass(frozen=True)
class Failure:
    """A failed step, the last lines that it printed, and the error that it reported; a bug reports none."""

    step: str | None
    lines: tuple[str, ...] = ()
    reported: UserError | None = None

    @property
    def is_permanent(self) -> bool:
        """Whether the step would fail again: a mistake of the user that is not transient."""
        return self.reported is not None and not isinstance(self.reported, TransientError)

    @property
    def error(self) -> str | None:
        """The error in one line; None if nothing is known of it."""
        return str(self.reported) if self.reported else self.lines[-1] if self.lines else None

    @property
    def exit_code(self) -> int:
        """2 if the user can fix it, else 1."""
        return 2 if self.reported else 1


def read_failure(step: str | None, lines: Iterable[str]) -> Failure:
    """Return the failure of a step that printed these lines."""
    shown: list[str] = []
    reported = None
    for line in lines:
        event = read_event(line)
        if event is None:
            shown.append(line)
        elif event["event"] == "error":
            reported = error_from_json(event)
    return Failure(step, tuple(shown[-LAST_LINES:]), reported)
