"""The exceptions for what a user can mend, and for what time may mend."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """A mistake in the user's input, told in one line: the value, why it is refused, and the remedy.

    The runner prints the line without a traceback and exits with code 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class Outage(UserError):
    """Something outside failed as often as it was tried: the same run may succeed later."""


class Damaged(UserError):
    """Kept bytes that are not what their digest says."""


@contextmanager
def told_as_damage() -> Iterator[None]:
    """A block that reads what was kept: what would be a user's mistake in a file of theirs is damage there."""
    try:
        yield
    except UserError as error:
        raise Damaged(str(error)) from None
