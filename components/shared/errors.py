"""The exceptions for what a user can mend, and for what time may mend."""


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
