"""The errors of the store, and the message and remedy for each error code of S3."""

import errno

from components.shared.core.errors import TransientError, UserError


class NoSuchObject(UserError):
    """An object that does not exist."""


class ServerFault(TransientError):
    """A server that answered a request with 500 at each attempt."""


class Unreadable(TransientError):
    """An object that its server answers at each attempt with 500, or breaks off: perhaps its disk has lost it."""


class Conflict(Exception):
    """A conditional write whose condition did not hold: nothing was changed."""


_KEYS = "check {keys}"
_TOKEN = "set {prefix}AWS_SESSION_TOKEN and both keys to new values"
_REGION = ("the bucket is in another region", "set {prefix}AWS_REGION to it")
_CODES = {  # code -> message, remedy
    "NoSuchBucket": ("there is no such bucket", "create it, or correct its name"),
    "AccessDenied": ("access is denied", "allow these credentials to {rights}"),
    "InvalidAccessKeyId": ("the access key is not known", _KEYS),
    "SignatureDoesNotMatch": ("the secret key does not belong to the access key", _KEYS),
    "ExpiredToken": ("the credentials have expired", _TOKEN),
    "InvalidToken": ("the session token is not accepted", _TOKEN),
    "RequestTimeTooSkewed": ("this machine's clock is wrong", "set it, for example with NTP"),
    "AuthorizationHeaderMalformed": _REGION,
    "PermanentRedirect": _REGION,
    "XMinioStorageFull": ("the store is full", "free some space there"),
}
_READ = "list the bucket and read its objects"
_WRITE = "list the bucket, and read, write and delete its objects"


def api_error(code: str, message: str, uri: str, prefix: str, *, is_anonymous: bool, is_write: bool) -> UserError:
    """Return the error for the error code that S3 answered about `uri`; `prefix` is that of the variables' names."""
    if code == "NoSuchKey":
        return NoSuchObject(f"{uri} does not exist", "check its name")
    if code == "PreconditionFailed":
        return TransientError(f"{uri} was changed while it was read", "try again")
    keys = f"{prefix}AWS_ACCESS_KEY_ID and {prefix}AWS_SECRET_ACCESS_KEY"
    what, remedy = _CODES.get(
        code, (f"{code}: {message}", "look up this code in the documentation of S3, or see the server's log")
    )
    if code == "AccessDenied" and is_anonymous:
        what, remedy = "there are no credentials", "set {keys}"
    remedy = remedy.format(keys=keys, prefix=prefix, rights=_WRITE if is_write else _READ)
    return UserError(f"{uri}: {what}", f"{remedy} ({code})")


def unreadable(uri: str, error: ServerFault) -> Unreadable:
    """Return the error of an object instead of that of its server."""
    return Unreadable(f"{uri} cannot be read: {error.message}", "try again later, or see the server's log")


def disk_error(error: OSError, uri: str, path: str) -> UserError | None:
    """Return the error for an object that does not fit on the disk; None if `error` is another one."""
    remedies = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space there")
    remedies[errno.EFBIG] = "raise the limit on the size of a file (ulimit -f)"
    if error.errno not in remedies:
        return None
    return UserError(f"{uri} does not fit at {path} ({error.strerror})", remedies[error.errno])
