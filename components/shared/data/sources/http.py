"""A data set at a https:// address: an archive or a table, downloaded into the cache.

There is a record of what an address held.
"""

import hashlib
import io
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from email.message import Message
from functools import partial
from pathlib import Path
from typing import IO, Annotated, NamedTuple, cast
from urllib.parse import unquote, urlsplit

from pydantic import ConfigDict, Field, StringConstraints

from components.shared.core import log
from components.shared.core.document import Document, Sha256
from components.shared.core.errors import UserError
from components.shared.core.files import sha256_file
from components.shared.core.printable import bounded, told
from components.shared.data.archives.folder import file_member
from components.shared.data.archives.kinds import SUFFIXES, is_archive, refuse_unread_name
from components.shared.data.archives.names import plain
from components.shared.data.archives.ranged import RangedFile, StreamedFile
from components.shared.data.layout.file_kinds import kind_by_name
from components.shared.data.layout.reading import Reading
from components.shared.data.parts.reading import ANY_SIZE, read_listed
from components.shared.data.parts.source_listing import list_archive
from components.shared.data.samples.tables import TABLES, Pictures, is_table, list_table, pack_table
from components.shared.data.sources.http_parts import Parts, WholeStream, size_of, state_of
from components.shared.data.sources.http_transfer import download, request_headers
from components.shared.data.sources.packing import archive_path, describe_archive
from components.shared.data.sources.redirects import check_address
from components.shared.data.sources.schemes import UNLISTED, Listed, RawDescription, Unlisted
from components.shared.storage.download_cache import cache_folder, cache_path, cached, download_folder

MAX_NAME = 200  # letters of a name that a server gives
ETAG, LAST_MODIFIED = "ETag", "Last-Modified"

# The value of a header, which a later request repeats: Latin-1 without line ends.
HeaderValue = Annotated[str, StringConstraints(pattern=r"^[\x00-\x09\x0b\x0c\x0e-\xff]*$")]


class UrlDocument(Document):
    """The record of what an address held when it was last downloaded, with the headers that tell versions apart."""

    FORMAT = "torch2kubeflow/url"
    REMEDY = "download it again"
    model_config = ConfigDict(validate_by_name=True)

    url: str
    sha256: Sha256
    date: str
    etag: HeaderValue | None = Field(validation_alias=ETAG, serialization_alias=ETAG)
    last_modified: HeaderValue | None = Field(validation_alias=LAST_MODIFIED, serialization_alias=LAST_MODIFIED)
    name: str = ""  # that the server gave the file, if any

    def headers(self) -> dict[str, str]:
        """Return the headers that the server sent."""
        sent = {ETAG: self.etag, LAST_MODIFIED: self.last_modified}
        return {name: value for name, value in sent.items() if value}


class Fetched(NamedTuple):
    """A downloaded file in the cache: path, SHA-256, version as `url_version` returns it, and the server's name."""

    path: Path
    sha256: str
    version: str
    name: str


class UrlSource:
    """A Source: an archive or a table at an address, which may end in `#sha256=<digest>`."""

    def __init__(self, url: str) -> None:
        """Take the address. Raises UserError if it ends in the name of another file."""
        self._url, self._name = url, unquote(urlsplit(url).path).rsplit("/", 1)[-1]
        self._fetched: Fetched | None = None
        refuse_unread_name(f"data={url}", self._name)
        if not is_archive(Path(self._name)) and not is_table(self._name) and kind_by_name(self._name):
            accepted = ", ".join((*SUFFIXES, *TABLES))
            raise UserError(f"data={url} ends in {self._name!r}, which is no archive", f"give one of {accepted}")

    def version(self) -> str:
        """Return the version that the server has now or, after `fetch`, that was fetched."""
        return self._fetched.version if self._fetched else url_version(self._url)

    def fetch(self, folder: Path, reading: Reading) -> RawDescription:
        """Copy the archive to the folder by way of the cache, or pack the pictures of the table, and describe them."""
        self._fetched = fetch_url(self._url)
        name = self._name if is_archive(Path(self._name)) else self._fetched.name or self._name
        log.info(f"{name} sha256={self._fetched.sha256}")
        return self._describe(reading, folder) | {
            "source_sha256": self._fetched.sha256,
            "name": name or told(self._url),
        }

    def listing(self, reading: Reading, store: str = "") -> Pictures:
        """List the pictures of an archive or a table. Raises UserError if no part of the file can be read alone."""
        address, required = _parts(self._url)
        if required:
            raise Unlisted(f"data={self._url}: of a file that is read in parts no digest is known", "remove #sha256=")
        if urlsplit(address).query:
            raise Unlisted(f"data={self._url} has a query, which the list of pictures must not tell", UNLISTED)
        parts = Parts(address)
        first = parts.probe()
        state, size = state_of(first.headers), size_of(first)
        if not state or not size:
            raise Unlisted(f"data={self._url} is at a server that does not send the size and an ETag", UNLISTED)
        file: RangedFile | StreamedFile = RangedFile(address, address, state, size, partial(parts.fetch, state))
        if first.status_code != 206:
            file = StreamedFile(address, address, state, size, partial(_stream, address, state, size))
        if is_table(self._name):
            if isinstance(file, StreamedFile):
                raise Unlisted(f"data={self._url} is at a server that does not send parts of a file", UNLISTED)
            description, pictures = list_table(file, self._name, address, reading)
        else:
            description, pictures = list_archive(file, address, reading, store)
        served = served_name(first.headers.get("Content-Disposition", ""), first.url)
        name = self._name if is_archive(Path(self._name)) else served or self._name
        return {**description, "name": name or told(self._url)}, pictures

    def read(self, pictures: Sequence[Listed]) -> Iterator[bytes]:
        """Yield the content of pictures, many of them read ahead. Raises TransientError if the file has changed."""
        parts = Parts(_parts(self._url)[0])

        def opened(key: str, state: str) -> RangedFile:
            return RangedFile(key, key, state, ANY_SIZE, partial(parts.fetch, state))

        from components.shared.data.samples.places import Places  # of a manifest

        return read_listed(pictures, Places().whole, opened)

    def _describe(self, reading: Reading, folder: Path) -> RawDescription:
        assert self._fetched
        source = told(self._url)
        if is_table(self._name):
            return pack_table(file_member(self._name, self._fetched.path), source, reading, folder)
        copy = archive_path(self._name, folder)  # not by the server's name, which is not part of the version
        shutil.copyfile(self._fetched.path, copy)
        return describe_archive(copy, source, reading)


def _stream(address: str, state: str, size: int) -> IO[bytes]:
    return cast(IO[bytes], io.BufferedReader(WholeStream(address, state, size)))


def open_source(data: str) -> UrlSource:
    """Open an address. Raises UserError if it ends in the name of another file."""
    return UrlSource(data)


def url_version(url: str) -> str:
    """Return what identifies the file at a URL: the required digest, else its ETag, else its Last-Modified.

    If the server sends neither, the file is downloaded into the cache, for its digest. If the server is out of reach,
    the last recorded version is returned. Raises UserError if there is none.
    """
    address, required = _parts(url)
    if required:
        return f"sha256:{required}"
    record = _read_record(address)
    try:
        version = _version(request_headers(address))
    except UserError as error:
        if not record:
            raise
        log.info(f"{error}; using the file of {record.date}")
        return _recorded(record).version
    return version or fetch_url(url).version


def fetch_url(url: str) -> Fetched:
    """Download a URL into the cache.

    A fragment `#sha256=<digest>` requires that digest, and needs no network once the file is in the cache. Without
    it the digest is recorded, and the server is asked whether the file has changed; if the server is out of reach, the
    last recorded file is returned. Raises UserError if the file cannot be downloaded or has another digest.
    """
    address, required = _parts(url)
    known = cached(required) if required else None
    if known:
        found = _read_record(address)
        return Fetched(known, required, f"sha256:{required}", found.name if found else "")
    record = None if required else _read_record(address)
    try:
        fetched = _download(address, required, record)
        return fetched._replace(version=f"sha256:{required}") if required else fetched
    except UserError as error:
        if not record or not cached(record.sha256):
            raise
        log.info(f"{error}; using the file of {record.date}")
        return _recorded(record)


def _recorded(record: UrlDocument) -> Fetched:
    version = _version(record.headers()) or f"sha256:{record.sha256}"
    return Fetched(cache_path(record.sha256), record.sha256, version, record.name)


def _version(headers: Mapping[str, str]) -> str:
    """Return the version in a response's headers, empty if there is none."""
    return next((f"{name}: {bounded(headers[name])}" for name in (ETAG, LAST_MODIFIED) if headers.get(name)), "")


def _download(address: str, required: str, record: UrlDocument | None) -> Fetched:
    with download_folder() as folder:
        path = folder / "file"
        response = download(address, path, record.headers() if record else None)
        if record and response.status_code == 304:
            return _recorded(record)
        digest = sha256_file(path)
        if required and digest != required:
            raise UserError(
                f"{address} has the digest sha256={digest}, not {required}",
                "check that the file is the expected one, and correct #sha256=",
            )
        found = UrlDocument(
            url=told(address),
            sha256=digest,
            date=time.strftime("%Y-%m-%d"),
            etag=response.headers.get(ETAG),
            last_modified=response.headers.get(LAST_MODIFIED),
            name=served_name(response.headers.get("Content-Disposition", ""), response.url),
        )
        os.replace(path, cache_path(digest))
        found.write(_record_path(address))
        return _recorded(found)


def served_name(disposition: str, url: str) -> str:
    """Return the name that a server gives a file: in its header Content-Disposition, else at the end of its address."""
    header = Message()
    header["Content-Disposition"] = disposition
    try:
        given = header.get_filename()
    except (LookupError, ValueError, TypeError):  # it has parts that do not fit, or an encoding that there is not
        given = None
    name = plain(given or unquote(urlsplit(url).path)).rpartition("/")[2]
    return "".join(letter for letter in name if letter.isprintable())[:MAX_NAME]


def _parts(url: str) -> tuple[str, str]:
    """Return the address, and the digest in the fragment or an empty string. Raises UserError if either is wrong."""
    address, _, fragment = url.partition("#")
    check_address(address)
    if not fragment:
        return address, ""
    digest = fragment.removeprefix("sha256=").lower()
    if not fragment.startswith("sha256=") or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise UserError(f"{url} has no digest after #", "give #sha256= and 64 hexadecimal digits")
    return address, digest


def _record_path(address: str) -> Path:
    return cache_folder() / "urls" / f"{hashlib.sha256(address.encode()).hexdigest()}.json"


def _read_record(address: str) -> UrlDocument | None:
    """Return what was recorded at the last download of an address; None if its file is gone.

    A damaged record, which is logged, is as good as none.
    """
    path = _record_path(address)
    if not path.is_file():
        return None
    try:
        record = UrlDocument.read(path)
    except UserError as error:
        log.info(f"ignored: {error}")
        return None
    return record if cached(record.sha256) else None
