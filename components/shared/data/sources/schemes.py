"""Where a data set comes from: what the parameter `data` says, and which version of it is there now."""

import os
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from components.shared.core.errors import UserError
from components.shared.core.files import sha256_json
from components.shared.data.sources.archive import SUFFIXES, fingerprint, is_archive
from components.shared.data.sources.catalogue import CATALOGUE
from components.shared.data.sources.http import url_version
from components.shared.data.sources.s3 import object_version, open_source, prefix_version
from components.shared.parameters import check


class Source(NamedTuple):
    """A data set's kind of place, and its name, URL or path."""

    kind: Literal["digits", "catalogue", "url", "s3", "path"]
    place: str


def find_source(data: str) -> Source:
    """Read the parameter `data`; UserError where it is no known name, address or existing path of a possible kind."""
    check(data=data)
    try:
        parts = urlsplit(data)
    except ValueError as error:
        raise UserError(f"data={data} is no address ({error}); check it") from None
    if data == "digits":
        return Source("digits", data)
    if data in CATALOGUE:
        return Source("catalogue", data)
    if parts.scheme in ("https", "http"):
        _check_archive(unquote(parts.path).rsplit("/", 1)[-1], data)
        return Source("url", data)
    if parts.scheme == "s3":
        open_source(data)  # which checks the address
        return Source("s3", data)
    return Source("path", str(_check_path(_path_of(data) if parts.scheme == "file" else Path(data))))


def version_of(source: Source) -> str:
    """The version that is there now: it differs where the content may differ, and costs no reading of the content.

    A digest of the catalogue's digests, a URL's digest or ETag, or a digest over names, sizes and times or ETags.
    """
    match source.kind:
        case "digits":
            return f"scikit-learn {version('scikit-learn')}"
        case "catalogue":
            return f"sha256:{sha256_json([file.sha256 for file in CATALOGUE[source.place].files])}"
        case "url":
            return url_version(source.place)
        case "s3" if is_archive(Path(source.place)):
            return object_version(source.place)
        case "s3":
            return prefix_version(source.place)
        case "path":
            return f"listing:{fingerprint(Path(source.place))}"


def _check_archive(name: str, data: str) -> None:
    if not is_archive(Path(name)):
        raise UserError(f"data={data} ends in {name!r}, which is no archive; give one of {', '.join(SUFFIXES)}")


def _path_of(uri: str) -> Path:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        raise UserError(f"data={uri} has a host, ? or #; give file:///path, with %3F for ? and %23 for #")
    return Path(unquote(parts.path))


def _check_path(path: Path) -> Path:
    if not os.path.exists(path):  # False, too, for what no file can be called
        raise UserError(f"data={path} does not exist; give a folder, or an archive ({', '.join(SUFFIXES)})")
    if not path.is_dir() and not is_archive(path):
        raise UserError(f"data={path} is neither a folder nor an archive ({', '.join(SUFFIXES)})")
    return path
