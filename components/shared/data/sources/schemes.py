"""Where a data set may come from: the table of the names and schemes that the parameter `data` accepts.

A new one is a module here, whose `open_source(data)` returns a `Source`, and a line in SOURCES.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired, Protocol, TypedDict, runtime_checkable
from urllib.parse import urlsplit

from components.shared.core.document import JsonObject
from components.shared.core.errors import UserError
from components.shared.core.printable import lacks_query
from components.shared.data.archives.member import Member, Row, Span
from components.shared.data.layout.left_out import LeftOut
from components.shared.data.layout.reading import Reading
from components.shared.data.sources.catalogue import CATALOGUE

Kind = Literal["idx", "cifar", "pictures", "samples"]


class RawDescription(TypedDict):
    """The raw files that a source has stored in a folder, as `raw.json` describes them."""

    name: str  # of the data set, for people
    kind: Kind
    classes: Sequence[str]  # in the order of the labels
    counts: Mapping[str, int]  # of images by split
    files: Sequence[str]
    splits: NotRequired[Mapping[str, Mapping[str, str]]]  # of kind idx: the files of images and labels by split
    layout: NotRequired[JsonObject]  # of kind pictures: the fields of Layout
    left_out: NotRequired[LeftOut]  # of kinds pictures and samples: what is in the source besides
    source_sha256: NotRequired[str]  # of a downloaded archive


class Source(Protocol):
    """A data set in one place. Opening it checks its address, and reads nothing."""

    def version(self) -> str:
        """Return the version that is there now or, after `fetch`, that was fetched: equal versions hold equal data.

        After all of `listing` was read, it may be the version that was listed.
        """
        ...

    def fetch(self, folder: Path, reading: Reading) -> RawDescription:
        """Store the raw files in an empty folder, verified, and describe them; pictures are read as `reading` says."""
        ...


UNLISTED = "give pictures in folders, archives or tables, or use another graph, of which one pod holds all"


class Unlisted(UserError):
    """A source whose pictures cannot be read one by one."""


class State(NamedTuple):
    """What is in a place now: equal versions hold equal data."""

    version: str
    bytes: int


@runtime_checkable
class SizedSource(Source, Protocol):
    """A data set whose size is seen when its version is."""

    def state(self) -> State:
        """Return the version that is there now, and the size of all that is there."""
        ...


class Listed(NamedTuple):
    """A picture of a source that has not been read."""

    name: str  # for people
    key: str  # under which the source has it
    etag: str  # the state in which it was listed
    size: int  # in bytes
    label: int
    split: str  # train, val, test, or all if the source has no splits
    span: Span | None = None  # where it is in the archive that the key names
    row: Row | None = None  # where it is in the table that the key names


def listed_member(member: Member, name: str, label: int, split: str) -> Listed:
    """Return a member of a source as a picture in its list."""
    return Listed(name, member.key, member.etag, member.size, label, split, member.span, member.row)


@runtime_checkable
class ListedSource(Source, Protocol):
    """A data set whose pictures can be listed without reading them, and read one by one, from several machines."""

    def listing(self, reading: Reading, store: str = "") -> tuple[Mapping[str, Any], Iterator[Listed]]:
        """Return name, classes and what is left out, and the pictures in the source's order, read as `reading` says.

        What cannot be read in parts is read once, into the store at the address `store` if there is one.
        """
        ...

    def read(self, pictures: Sequence[Listed]) -> Iterator[bytes]:
        """Yield the content of pictures. Raises UserError if one has changed since it was listed."""
        ...


@runtime_checkable
class PrefixSource(Source, Protocol):
    """A data set whose version depends on all that is below a prefix of S3."""

    def holds(self, store: str) -> bool:
        """Return whether the store at s3://bucket/prefix is below that prefix, or is all of it."""
        ...


# Names of modules, so that the steps that only check `data` import no HTTP and S3 clients, which takes them a second,
# and are not repeated when those change. Steps that open sources declare this package in READS.
SOURCES = {
    **dict.fromkeys(CATALOGUE, "mirrors"),
    "digits": "digits",
    "https://": "http",
    "http://": "http",  # of the loopback interface only
    "s3://": "s3",
    "file://": "local",
}
DATA_SETS = tuple(name for name in SOURCES if "://" not in name)


def open_source(data: str) -> Source:
    """Open the data set that the parameter `data` names. Raises UserError if it is unknown or not valid."""
    if not is_accepted(data):
        raise UserError(f"data={data} is not accepted", f"give {accepted()}")
    try:
        urlsplit(data)
    except ValueError as error:
        raise UserError(f"data={data} is not a valid address ({error})", "correct it") from None
    if lacks_query(data) and "://" in data:
        raise UserError(f"data={data} was told without its query", "give the whole address")
    source: Source = import_module(f"{__package__}.{SOURCES[_kind(data)]}").open_source(data)
    return source


def open_listed_source(data: str) -> ListedSource:
    """Open a data set whose pictures can be read one by one. Raises UserError if it is none, unknown or not valid."""
    return listed_source(open_source(data), data)


def listed_source(source: Source, data: str) -> ListedSource:
    """Return the source of `data` as one whose pictures can be read one by one. Raises Unlisted if they cannot."""
    if not isinstance(source, ListedSource):
        raise Unlisted(f"data={data} cannot be read picture by picture", UNLISTED)
    return source


def check_apart(source: Source, data: str, store: str) -> None:
    """Raise UserError if a store, if there is one, is within the data."""
    if store and isinstance(source, PrefixSource) and source.holds(store):
        message = f"store={store} is within data={data}, so that what runs store would become part of the data"
        raise UserError(message, "give another store")


def is_accepted(data: str) -> bool:
    """Return whether `data` is a known name, a URI of a known scheme, or a path."""
    return _kind(data) in SOURCES


def accepted() -> str:
    """Return in words what `data` may be."""
    names = [name for name in SOURCES if "://" not in name]
    schemes = [name for name in SOURCES if "://" in name and name != "http://"]
    return f"{', '.join(names)}, a {', '.join(schemes[:-1])} or {schemes[-1]} URI, or a path"


def _kind(data: str) -> str:
    """Return the key in SOURCES, if there is one."""
    scheme, separator, _ = data.partition("://")
    if separator:
        return scheme + separator
    is_path = data not in SOURCES and ("/" in data or (data != "" and os.path.exists(data)))
    return "file://" if is_path else data
