"""The documents that verbs print with `--json`: one on stdout, while their lines for people go to stderr.

A module that does a verb declares its document, and gives it to `arguments` as `document` before it returns.
"""

from typing import ClassVar

from components.shared.core.document import Document
from components.shared.core.errors import UserError


class Answer(Document):
    """What a verb found or did."""

    REMEDY: ClassVar[str] = "run the verb again"
    MAX_BYTES: ClassVar[int] = 2**40  # that of logs has them all, and nothing here reads it


class ErrorDocument(Answer):
    """Why a verb failed, with its exit code."""

    FORMAT = "torch2kubeflow/error"

    message: str
    remedy: str
    exit_code: int

    @classmethod
    def of(cls, error: UserError, exit_code: int) -> "ErrorDocument":
        """Return the document of an error that the user can fix."""
        return cls(message=error.message, remedy=error.remedy, exit_code=exit_code)
