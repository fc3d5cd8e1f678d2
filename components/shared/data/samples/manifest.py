"""Manifests: tables that say where pictures are, of which class and, perhaps, of which split."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, NoReturn

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.data.archives.kinds import ArchiveFile
from components.shared.data.layout.folder_layout import NO_SPLITS
from components.shared.data.layout.left_out import MISSING, Tally
from components.shared.data.layout.reading import Reading
from components.shared.data.layout.split_names import EITHER, NO_LABELS, split_of
from components.shared.data.samples.classes import Classes, Label
from components.shared.data.samples.description import Content, Found, Sample
from components.shared.data.samples.manifest_rows import Chosen, chosen_columns, opened_manifest
from components.shared.data.samples.places import Misplaced, Place, Places
from components.shared.data.samples.webdataset import columns_of

READERS = 16  # pictures read at the same time
NAMED = 5  # missing pictures that the log names


class _Row(NamedTuple):
    """What a row says, and the picture, which is being read."""

    number: int
    place: Place
    split: str
    label: Label | None
    content: "Future[Content | None]"


class ManifestReader:
    """Reads the pictures that a manifest names, many at the same time, in the order of its rows."""

    def __init__(self, source: str, places: Places, reading: Reading, is_list: bool = False) -> None:
        """Take the places that may be named; for a list pictures are looked for, and not read."""
        self._is_list = is_list
        self._source, self._places, self._reading = source, places, reading
        self._left_out = Tally()
        self._missing = 0

    def found(self, path: ArchiveFile, is_parquet: bool) -> Found:
        """Return the pictures of the manifest at `path`, which is the source or a copy.

        Raises UserError, naming the source, while it is read, if it is not clear. A picture that is not there is left
        out, counted, and named in the log.
        """
        return Found(self._samples(path, is_parquet), Classes(self._source), self._left_out)

    def _samples(self, path: ArchiveFile, is_parquet: bool) -> Iterator[Sample]:
        waiting: deque[_Row] = deque()
        with opened_manifest(path, self._source, is_parquet) as manifest, ThreadPoolExecutor(READERS) as readers:
            given = columns_of(self._reading)
            columns = chosen_columns(manifest, self._source, given, self._reading.needs_labels)
            for number, cells in manifest.rows:
                waiting.append(self._row(number, cells, columns, readers))
                if len(waiting) > 2 * READERS:
                    yield from self._sample(waiting.popleft())
            for row in waiting:
                yield from self._sample(row)

    def _row(self, number: int, cells: Sequence[Any], columns: Chosen, readers: ThreadPoolExecutor) -> _Row:
        text = str(cells[columns.picture] or "").strip()
        if not text:
            self._refuse(number, "names no picture", "name one, or remove the row")
        try:
            place = self._places.locate(text)
        except Misplaced as error:
            self._refuse(number, f"names {text!r}, which {error.problem}", error.remedy)
        split = self._split(number, str(cells[columns.split] or "")) if columns.split is not None else NO_SPLITS
        label = None if columns.label is None or split == NO_LABELS else _label(cells[columns.label])
        content = readers.submit(place.find if self._is_list else place.read)
        return _Row(number, place, NO_SPLITS if split == NO_LABELS else split, label, content)

    def _split(self, number: int, text: str) -> str:
        found = split_of(text)
        if text.strip() and found in ("", EITHER):
            self._refuse(number, f"has the split {text!r}", "name it train, val or test")
        return found or NO_SPLITS

    def _sample(self, row: _Row) -> Iterator[Sample]:
        content = row.content.result()
        if content is not None:
            yield Sample(row.place.name, row.split, row.label, content)
            return
        self._left_out.add("unreadable", MISSING, row.place.name)
        self._missing += 1
        if self._missing <= NAMED:
            log.info(f"{self._source}: row {row.number} names {row.place.name}, which is not there")

    def _refuse(self, number: int, problem: str, remedy: str) -> NoReturn:
        raise UserError(f"{self._source}: row {number} {problem}", remedy)


def _label(value: Any) -> Label | None:
    """Return the class that a cell says, a text or, in Parquet, a number; None if it is empty."""
    return value if isinstance(value, int) else str(value or "").strip() or None
