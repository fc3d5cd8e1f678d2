"""Retries with exponential backoff, and which failures of a server are worth one."""

import random
import socket
import time

from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError
from urllib3.exceptions import TimeoutError as SlowError

from components.shared.core import log
from components.shared.core.errors import TransientError

ATTEMPTS = 8  # over a minute: a server that moves to another node is away for that long
MAX_WAIT_SECONDS = 30.0
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses


class Retries:
    """The attempts at one task: after each failure in a row a longer pause, after the last one an error."""

    def __init__(self, subject: str, remedy: str, attempts: int = ATTEMPTS) -> None:
        """Start counting; `subject`, such as a server's address, begins the log lines and the error."""
        self._subject, self._remedy, self._attempts = subject, remedy, attempts
        self._failures = 0

    def reset(self) -> None:
        """Count from zero again, because an attempt made progress."""
        self._failures = 0

    def failed(
        self,
        reason: str,
        retry_after: float | None = None,
        details: str = "",
        remedy: str = "",
        kind: type[TransientError] = TransientError,
    ) -> None:
        """Log a failure, as `details` if given, and wait: with jitter twice as long each time, or as the server asks.

        If it was the last attempt, raises an error of this `kind`, and with this `remedy` if one is given.
        """
        self._failures += 1
        if self._failures >= self._attempts:
            raise kind(f"{self._subject} {reason} {self._failures} times", remedy or self._remedy) from None
        wait = min(0.25 * 2**self._failures, MAX_WAIT_SECONDS) * random.uniform(0.5, 1.5)
        wait = wait if retry_after is None else min(retry_after, 2 * MAX_WAIT_SECONDS)
        log.info(f"{details or f'{self._subject} {reason}'}; retrying in {wait:.1f} s")
        time.sleep(wait)


def reason_of(error: HTTPError) -> str:
    """Return what went wrong with a request, as the end of a sentence that begins with the server."""
    if isinstance(error, NewConnectionError | ConnectTimeoutError):
        return "could not be reached"
    return "did not answer in time" if isinstance(error, SlowError) else "broke the connection"


def is_unknown_host(error: object) -> bool:
    """Return whether a server's name does not exist; a name service that fails for a moment does not count."""
    reason = error.__cause__ if isinstance(error, NameResolutionError) else None
    return isinstance(reason, socket.gaierror) and reason.errno != socket.EAI_AGAIN
