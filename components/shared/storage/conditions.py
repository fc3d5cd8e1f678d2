"""Whether an S3 server honors conditional writes: one that ignores the condition loses versions in silence."""

import threading
from collections.abc import Callable, Mapping

from components.shared.core.errors import UserError

PROBE = "conditions"  # the object on which they are tried; it stays in the store
ABSENT, MATCH = {"If-None-Match": "*"}, {"If-Match": f'"{"0" * 32}"'}  # the ETag of no object

_honored: set[str] = set()  # the stores that this process has tried
_lock = threading.Lock()


def ignored_condition(is_refused: Callable[[Mapping[str, str]], bool]) -> str:
    """Return the header that a server ignores, and an empty text if it honors both.

    `is_refused` writes one object under a condition, and returns whether the server refused that.
    """
    if not (is_refused(ABSENT) or is_refused(ABSENT)):  # after the first write the object exists
        return "If-None-Match"
    return "" if is_refused(MATCH) else "If-Match"


def check_once(uri: str, server: str, ignored: Callable[[], str]) -> None:
    """Raise UserError if the `server` of the store `uri` ignores a condition; ask it once in the life of a process."""
    with _lock:
        if f"{server} {uri}" in _honored:
            return
        if header := ignored():
            raise not_honored(uri, header)
        _honored.add(f"{server} {uri}")


def not_honored(uri: str, header: str) -> UserError:
    """Return the error of a store whose server ignores a condition."""
    return UserError(
        f"{uri}: the server ignores {header}, so runs would overwrite each other's versions",
        "use an S3 server that honors conditional writes (AWS, MinIO, SeaweedFS 4)",
    )
