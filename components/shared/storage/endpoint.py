"""The address of a store: s3://bucket/prefix, and the environment variables that name its server."""

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import certifi

from components.shared.core.errors import UserError

AWS = "https://s3.amazonaws.com"
MOUNTED_AUTHORITY = Path("/etc/torch2kubeflow/ca.crt")  # a key of the ConfigMap that the steps' pods mount


class Variables:
    """The environment variables of one store: those that begin with `prefix`."""

    def __init__(self, environment: Mapping[str, str], prefix: str) -> None:
        self._environment, self._prefix = environment, prefix

    def get(self, *names: str) -> str:
        """Return the value of the first variable that is set, else an empty string."""
        return self.find(*names)[1]

    def find(self, *names: str) -> tuple[str, str]:
        """Return the name, with the prefix, and the value of the first variable that is set; else the first name.

        Raises UserError if the value cannot be sent in a header.
        """
        for name in names:
            value = self._environment.get(self._prefix + name, "").strip()  # Secrets often end in a newline
            if value and not value.isprintable():
                raise UserError(f"{self._prefix}{name} holds control characters", "set it to a single line of text")
            if value:
                return self._prefix + name, value
        return self._prefix + names[0], ""


def find_endpoint(variables: Variables) -> SplitResult:
    """Return the server's address, by default that of AWS. Raises UserError if it is not just a server's address."""
    name, value = variables.find("AWS_ENDPOINT_URL_S3", "S3_ENDPOINT", "AWS_ENDPOINT_URL")
    if "@" in value:
        raise UserError(f"{name} holds a user or password", "give the address alone, and keys in their own variables")
    try:
        parts = urlsplit(value or AWS)
    except ValueError as error:
        message = f"{name}={value} is not a valid address ({error})"
        raise UserError(message, "give http://host:port or https://host:port") from None
    if parts.scheme not in ("http", "https") or not parts.netloc:
        server = value.rpartition("://")[2] or "host:port"
        raise UserError(f"{name}={value} is not an HTTP address", f"give http://{server} or https://{server}")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        server = f"{parts.scheme}://{parts.netloc}"
        message = f"{name}={value} has a path or a query"
        raise UserError(message, f"give {server} alone, and the bucket as s3://bucket/prefix")
    return parts


def find_ca_bundle(variables: Variables) -> str:
    """Return the file of trusted certificate authorities: named, or mounted, or those that all trust.

    Raises UserError if the one that is named does not exist.
    """
    name, value = variables.find("AWS_CA_BUNDLE", "SSL_CERT_FILE")
    if value and not Path(value).is_file():
        raise UserError(f"{name}={value} is not a file", "give the file of the trusted certificate authorities")
    return value or (str(MOUNTED_AUTHORITY) if MOUNTED_AUTHORITY.is_file() else certifi.where())


def parse_uri(uri: str) -> tuple[str, str]:
    """Return the bucket and the prefix, which is empty or ends in a slash. Raises UserError if `uri` is invalid."""
    bucket, _, folder = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://"):
        raise UserError(f"{uri} is not an S3 URI", "give s3://bucket/prefix")
    folder = folder.rstrip("/")
    if folder:
        check_name(folder)
    return bucket, f"{folder}/" if folder else ""


def check_name(name: str) -> None:
    """Raise UserError if `name` is not a relative path, or has an empty part, `.`, `..` or control characters."""
    unsafe = re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", name)
    if unsafe or any(part in ("", ".", "..") for part in name.split("/")):
        message = f"{name!r} is not a valid object name"
        raise UserError(message, "give a path without empty parts, ., .. and control characters")
