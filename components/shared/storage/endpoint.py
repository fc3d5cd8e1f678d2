"""Where a store lies: s3://bucket/prefix, and the environment's variables that name its server."""

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import certifi

from components.shared.core.errors import UserError

AWS = "https://s3.amazonaws.com"


class Variables:
    """The environment's variables of one store: those with `prefix` before the name."""

    def __init__(self, environment: Mapping[str, str], prefix: str) -> None:
        self._environment, self._prefix = environment, prefix

    def get(self, *names: str) -> str:
        """The value of the first name that has one, else an empty string."""
        return self.find(*names)[1]

    def find(self, *names: str) -> tuple[str, str]:
        """The first name that has a value, and the value; UserError where it cannot be sent in a header."""
        for name in names:
            value = self._environment.get(self._prefix + name, "").strip()  # Secrets often end in a newline
            if value and not value.isprintable():
                raise UserError(f"{self._prefix}{name} holds control characters, which no server takes; set it anew")
            if value:
                return self._prefix + name, value
        return self._prefix + names[0], ""


def find_endpoint(variables: Variables) -> SplitResult:
    """The server's address, by default that of AWS; UserError where it is none, or more than that."""
    name, value = variables.find("AWS_ENDPOINT_URL_S3", "S3_ENDPOINT", "AWS_ENDPOINT_URL")
    if "@" in value:
        raise UserError(f"{name} holds a user or password; give the address alone, and keys in variables of their own")
    try:
        parts = urlsplit(value or AWS)
    except ValueError as error:
        raise UserError(f"{name}={value} is no address ({error}); give http://host:port or https://host:port") from None
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UserError(f"{name}={value} has no scheme; give http://{value} or https://{value}")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        plain = f"{parts.scheme}://{parts.netloc}"
        raise UserError(f"{name}={value} has a path; give {plain} alone, and the bucket as s3://bucket/prefix")
    return parts


def find_ca_bundle(variables: Variables) -> str:
    """The file of the authorities whose certificates are trusted; UserError where it is not there."""
    name, value = variables.find("AWS_CA_BUNDLE", "SSL_CERT_FILE")
    if value and not Path(value).is_file():
        raise UserError(f"{name}={value} is no file; name the file of the trusted authorities")
    return value or certifi.where()


def parse_uri(uri: str) -> tuple[str, str]:
    """The bucket of an address, and its prefix, which is empty or ends in a slash; UserError where it is none."""
    bucket, _, folder = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://"):
        raise UserError(f"{uri} is no place in S3; give s3://bucket/prefix")
    folder = folder.rstrip("/")
    if folder:
        check_name(folder)
    return bucket, f"{folder}/" if folder else ""


def check_name(name: str) -> None:
    """Refuse what is no relative path: UserError on an empty part, `.`, `..` and control characters."""
    unsafe = re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", name)
    if unsafe or any(part in ("", ".", "..") for part in name.split("/")):
        raise UserError(f"{name!r} is no name of an object; give a path without empty parts, . and ..")
