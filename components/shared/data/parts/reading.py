"""Pictures of a source read from several places at the same time, in their order: neighbours by one request."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import IO, cast

from components.shared.core.errors import UserError
from components.shared.data.archives.broken import AGAIN
from components.shared.data.archives.member import Member, Span
from components.shared.data.archives.ranged import RangedFile, RangedStream
from components.shared.data.archives.zip_reader import zip_content
from components.shared.data.parts.staged import stored_file
from components.shared.data.raw import MAX_PICTURE_BYTES
from components.shared.data.sources.schemes import Listed
from components.shared.storage.client import Store, open_store

READERS = 16  # requests at the same time
AHEAD_BYTES = 64 * 2**20  # of pictures that are read ahead
RUN_BYTES = 4 * 2**20  # of one request, and of its pictures
GAP_BYTES = 2**16  # between neighbours, which are read and dropped
HEADER_BYTES = 512  # of a zip's member beside its name, which is there twice; more is one more request
ANY_SIZE = 2**62  # of a file of which only members are read


def read_listed(
    pictures: Sequence[Listed], whole: Callable[[Listed], bytes], opened: Callable[[str, str], RangedFile]
) -> Iterator[bytes]:
    """Yield the content of pictures: by `whole`, or of members of an archive from the file that `opened` opens."""
    opened = _Opened(opened)
    with ThreadPoolExecutor(READERS) as readers:
        waiting: deque[tuple[int, Future[list[bytes]]]] = deque()
        try:
            for run in _runs(pictures):
                if run[0].row:
                    while waiting:
                        yield from waiting.popleft()[1].result()
                    yield from _read_rows(run, opened)
                    continue
                size = sum(picture.size for picture in run)
                while waiting and (
                    len(waiting) > 2 * READERS or size + sum(ahead for ahead, _ in waiting) > AHEAD_BYTES
                ):
                    yield from waiting.popleft()[1].result()
                waiting.append((size, readers.submit(_read, run, whole, opened)))
            while waiting:
                yield from waiting.popleft()[1].result()
        finally:
            readers.shutdown(wait=False, cancel_futures=True)


def located(found: Iterator[Member], file: RangedFile) -> Iterator[Member]:
    """Yield the members of an archive as those of the file that has it."""
    for member in found:
        span = member.span
        is_plain = span and not span.zipped and not member.is_folder
        ranged = partial(file.part, f"{file}: {member.name}", span.offset, member.size) if span and is_plain else None
        yield replace(member, key=file.key, etag=file.etag, span=span and span.moved(file.start), ranged=ranged)


class _Opened:
    """Opens files by key and ETag, those that are in the store for their source by addresses."""

    def __init__(self, of_source: Callable[[str, str], RangedFile]) -> None:
        self._of_source = of_source
        self._stores: dict[str, Store] = {}
        self._lock = Lock()

    def __call__(self, key: str, etag: str) -> RangedFile:
        if not key.startswith("s3://"):
            return self._of_source(key, etag)
        folder, _, name = key.rpartition("/")
        with self._lock:
            store = self._stores.setdefault(folder, self._stores.get(folder) or open_store(folder, os.environ))
        return stored_file(store, name, etag, ANY_SIZE)


def _runs(pictures: Sequence[Listed]) -> Iterator[list[Listed]]:
    """Yield the pictures in runs of neighbours in one file; one that is no member of an archive is alone."""
    run: list[Listed] = []
    size = 0
    for picture in pictures:
        size += picture.size
        if run and not (_are_rows(run[-1], picture) or _are_neighbours(run[0], run[-1], picture, size)):
            yield run
            run, size = [], picture.size
        run.append(picture)
    if run:
        yield run


def _are_rows(last: Listed, picture: Listed) -> bool:
    """Return whether a picture is further on in the same table."""
    if not (last.row and picture.row) or (last.key, last.etag) != (picture.key, picture.etag):
        return False
    return last.row[:2] < picture.row[:2]


def _are_neighbours(first: Listed, last: Listed, picture: Listed, size: int) -> bool:
    """Return whether a picture is beside the last one of a run, which with it has a size, in the same archive."""
    if not (first.span and last.span and picture.span) or (first.key, first.etag) != (picture.key, picture.etag):
        return False
    if size > RUN_BYTES:
        return False
    gap = picture.span.offset - last.span.offset - last.span.length
    return 0 <= gap <= GAP_BYTES and _end(picture.span) - first.span.offset <= RUN_BYTES


def _end(span: Span) -> int:
    return span.offset + span.length + (HEADER_BYTES + 2 * len(span.zipped.name) if span.zipped else 0)


def _read_rows(run: Sequence[Listed], opened: Callable[[str, str], RangedFile]) -> Iterator[bytes]:
    """Yield pictures of a table as they come, a few of them in memory."""
    from components.shared.data.samples.parquet_files import read_rows  # 1 s, most of it pyarrow

    rows = [picture.row for picture in run if picture.row]
    file = opened(run[0].key, run[0].etag)
    for picture, content in zip(run, read_rows(file.part(str(file), 0, rows[0].file_bytes), rows), strict=True):
        if content is None or len(content) > MAX_PICTURE_BYTES:
            size = f"{len(content or b''):,} bytes, at most {MAX_PICTURE_BYTES:,}"
            raise UserError(f"{file} holds {picture.name} of {size}", "shrink it")
        yield content


def _read(
    run: Sequence[Listed], whole: Callable[[Listed], bytes], opened: Callable[[str, str], RangedFile]
) -> list[bytes]:
    if not run[0].span:
        return [whole(picture) for picture in run]
    file = opened(run[0].key, run[0].etag)
    stream = RangedStream(file)
    first, end = run[0].span.offset, max(_end(picture.span) for picture in run if picture.span)
    if end > first:
        stream.load(first, end - first)
    return [_member(file, stream, picture) for picture in run]


def _member(file: RangedFile, stream: RangedStream, picture: Listed) -> bytes:
    assert picture.span
    if picture.span.zipped:
        return zip_content(file, cast(IO[bytes], stream), picture.size, picture.span)
    stream.seek(picture.span.offset)
    content = stream.read(picture.size) or b""
    if len(content) < picture.size:
        raise UserError(f"{file} ends within {picture.name}", AGAIN)
    return content
