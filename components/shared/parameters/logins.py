"""Logins in addresses, which Kubeflow would keep for ever among the parameters of a run: refused, with a remedy."""

from components.shared.core.errors import UserError
from components.shared.core.printable import has_login

KEYS = "AWS_ACCESS_KEY_ID and {prefix}AWS_SECRET_ACCESS_KEY, for a cluster into the Secret that {secret} names"
WEB = "give an address that needs no login, such as a presigned one; for runs on this machine, ~/.netrc may hold it"


def refuse_login(name: str, value: str) -> None:
    """Raise UserError, without the value, if that of the parameter `name` is an address with a user or a key."""
    if not has_login(value):
        return
    scheme = value.strip().partition("://")[0].lower()
    message = f"{name}={scheme}://... holds a login, which everybody could read among the parameters of the run"
    raise UserError(message, _remedy(name, scheme))


def _remedy(name: str, scheme: str) -> str:
    if scheme == "s3":
        prefix, secret = ("SOURCE_", "source_secret") if name == "data" else ("", "s3_secret")
        return f"give s3://bucket/..., and put the keys into {prefix}{KEYS.format(prefix=prefix, secret=secret)}"
    return WEB if scheme in ("http", "https") else "leave it out"
