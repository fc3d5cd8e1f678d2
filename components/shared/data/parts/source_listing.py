"""The pictures of a source as a list: where each is, of which class and split; none of them is read."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.data.archives.kinds import TAR, archive_kind
from components.shared.data.archives.limits import limited
from components.shared.data.archives.member import Member
from components.shared.data.archives.nested import stem, unnested
from components.shared.data.archives.ranged import RangedFile, StreamedFile
from components.shared.data.archives.tar_reader import is_compressed
from components.shared.data.layout.file_kinds import PICTURE
from components.shared.data.layout.folder_layout import NO_SPLITS, Layout
from components.shared.data.layout.label_search import Given
from components.shared.data.layout.label_table import LABELS, read_labels
from components.shared.data.layout.left_out import Tally
from components.shared.data.layout.reading import Reading
from components.shared.data.layout.survey import Survey
from components.shared.data.parts.reading import located
from components.shared.data.samples.classes import Classes, listed_classes
from components.shared.data.samples.description import Found, Keeping, closed
from components.shared.data.samples.file_splits import file_splits
from components.shared.data.samples.imagenet import imagenet, is_imagenet
from components.shared.data.samples.stored import UNLABELLED
from components.shared.data.samples.tables import is_parquet, list_parquet, list_samples
from components.shared.data.samples.webdataset import Recognition, WebDataset
from components.shared.data.sources.archive import members
from components.shared.data.sources.packing import describe_pictures, survey_of
from components.shared.data.sources.schemes import UNLISTED, Listed, Unlisted, listed_member

if TYPE_CHECKING:
    from components.shared.data.parts.sample_list import NotedPictures

SET_STORE = "set store=s3://bucket/prefix, or pack it as zip or as plain tar"
UNPACK = "pack it as zip or as plain tar, or unpack it below a prefix of an S3 store"
Members = Callable[[], Iterator[Member]]
Pictures = tuple[Mapping[str, Any], Iterator[Listed]]  # name, classes and what is left out, and the pictures


def list_archive(file: RangedFile | StreamedFile, source: str, reading: Reading, store: str) -> Pictures:
    """Return name, classes and what is left out of an archive, and its pictures, of which only the headers are read.

    One of which no part can be read alone is read once, into the store. Raises UserError, naming `source`, if it cannot
    be read safely, there is no store but must be, or it holds no classification set of pictures.
    """
    recognition = Recognition(reading, [""])
    found = partial(_members, store, file, reading.labels)
    return _Lister(found, source, reading, store, file).listing(recognition)


def list_pictures(list_all: Members, source: str, reading: Reading, store: str) -> Pictures:
    """Return name, classes and what is left out of a source, and its pictures.

    `list_all` yields all members of the source. Raises UserError, naming `source`, if it holds no classification set,
    or one of another kind than pictures.
    """
    return _Lister(list_all, source, reading, store).listing()


def _members(store: str, file: RangedFile | StreamedFile, labels: str) -> Iterator[Member]:
    """Yield the members of an archive, in the archive itself or in the store; `labels` names the table, if any."""
    kind = archive_kind(file, str(file))
    if isinstance(file, RangedFile) and not (kind == TAR and is_compressed(file)):
        yield from located(members(file), file)
        return
    if kind != TAR:
        raise Unlisted(f"{file} is a zip at a server that sends no parts of a file", UNPACK)
    if not store:
        raise Unlisted(f"{file} cannot be read in parts, so that it has to be repacked in a store", SET_STORE)
    # 0.1 s, most of it the S3 client
    from components.shared.data.parts.staged import staged

    for tar in staged(file, store, labels):
        yield from located(members(tar), tar)


class _Lister:
    """Lists one source, which may be an archive."""

    def __init__(
        self,
        list_all: Members,
        source: str,
        reading: Reading,
        store: str,
        archive: RangedFile | StreamedFile | None = None,
    ) -> None:
        self._list_all, self._source, self._reading, self._archive = list_all, source, reading, archive
        self._store = store
        self._given = Given(reading)
        self._keeping = Keeping(_itself, self._in_place)

    def listing(self, recognition: Recognition | None = None) -> Pictures:
        pictures = self._noted() if self._archive else None
        with closed(seen := pictures.noting(self._list_all()) if pictures else self._list_all()):
            survey = survey_of(seen, self._source, self._given, recognition)
        if survey.is_webdataset:
            return self._webdataset(self._list_all(), {"": NO_SPLITS}, survey)
        if survey.has_only_archives:
            return self._nested(survey)
        if survey.has_only_parquet and not self._archive:
            files = [*filter(is_parquet, self._list_all())]
            return list_parquet(files, survey.result(), self._source, self._reading)
        return self._pictures(survey, pictures.read if pictures else self._seen_again)

    def _noted(self) -> "NotedPictures":
        """Return an empty note of pictures, with which an archive is read once."""
        from components.shared.data.parts.sample_list import NotedPictures  # 1 s, most of it pyarrow

        return NotedPictures()

    def _seen_again(self) -> Iterator[Listed]:
        for member in self._list_all():
            if not member.is_folder and member.kind() == PICTURE:
                yield listed_member(member, member.name, UNLABELLED, NO_SPLITS)

    def _nested(self, survey: Survey) -> Pictures:
        """List what the archives in the source hold."""
        log.info(f"{self._source} holds no pictures but archives, which are read one by one")
        if any(is_imagenet(name) for name in survey.archives):
            with TemporaryDirectory() as folder:  # for the devkit
                found = imagenet(self._list_all, self._source, True, Path(folder), self._keeping)
                return list_samples(found, self._source)
        tops = [stem(name) for name in survey.archives]
        pictures = self._noted()
        with closed(seen := pictures.noting(self._unnested())):
            inner = survey_of(seen, self._source, self._given, Recognition(self._reading, {*tops}))
        if inner.is_webdataset:
            return self._webdataset(self._unnested(), file_splits(self._source, tops), survey)
        return self._pictures(inner, pictures.read)

    def _unnested(self) -> Iterator[Member]:
        inner = unnested(self._list_all(), self._in_place)
        return limited(self._archive, inner) if self._archive else inner

    def _in_place(self, archive: Member) -> Iterator[Member]:
        if not archive.ranged:
            raise Unlisted(
                f"{self._source}: {archive.name} is in a zip, of which no part of it can be read alone", UNPACK
            )
        file = archive.ranged()
        inner = file.part(f"{self._source}: {archive.name}", 0, file.size)
        return _members(self._store, inner, self._reading.labels)

    def _webdataset(self, found: Iterator[Member], splits: Mapping[str, str], survey: Survey) -> Pictures:
        left_out = Tally()
        classes = Classes(self._source, *listed_classes(self._source, survey.class_list))
        with closed(found):
            samples = WebDataset(self._source, splits, self._reading, left_out, self._keeping).samples(found)
            return list_samples(Found(samples, classes, left_out), self._source)

    def _pictures(self, survey: Survey, found: Callable[[], Iterator[Listed]]) -> Pictures:
        """List the pictures that were found, of which the names say the classes, or a table."""
        if survey.has_only_idx:
            raise Unlisted(f"{self._source} holds no pictures but IDX files", UNLISTED)
        with TemporaryDirectory() as folder:
            description, is_wanted = describe_pictures(survey, self._source, self._given, Path(folder))
            table = read_labels(Path(folder) / LABELS) if LABELS in description["files"] else {}
        layout = Layout(**description["layout"])
        numbers = {name: label for label, name in enumerate(description["classes"])}

        def placed(name: str) -> tuple[str, int]:
            try:
                split, named = layout.place(name, table)
                return split, numbers[named]
            except LookupError:  # it was not there when the layout was found
                message = f"data={self._source} has changed while it was listed"
                raise UserError(message, "run it again") from None

        def pictures() -> Iterator[Listed]:
            for picture in found():
                if is_wanted(picture.name):
                    split, label = placed(picture.name)
                    yield picture._replace(label=label, split=split)

        return {key: description[key] for key in ("name", "kind", "classes", "left_out")}, pictures()


def _itself(member: Member) -> Member:
    return member
