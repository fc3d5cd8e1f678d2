"""The one exception for mistakes that a user can mend."""


class UserError(ValueError):
    """A mistake in the user's input, told in one line: the value, why it is refused, and the remedy.

    The runner prints the line without a traceback and exits with code 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
