"""The files of a folder, an archive or a bucket as raw data: pictures packed into tar shards, or copied IDX files.

They become few large files, because a cluster copies artifacts file by file.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.data.archives.broken import source_named
from components.shared.data.archives.kinds import SUFFIXES, archive_kind, is_unread_archive, refuse_unread_name
from components.shared.data.archives.limits import limited
from components.shared.data.archives.member import Member, opened_picture
from components.shared.data.archives.nested import copied, is_nested_archive, stem, unnested
from components.shared.data.archives.shards import PictureShards
from components.shared.data.layout.file_kinds import PICTURE, FileKind, junk_in
from components.shared.data.layout.folder_layout import (
    NO_SPLITS,
    Counts,
    find_labelled_layout,
    find_layout,
    find_layout_if_any,
)
from components.shared.data.layout.label_search import Given
from components.shared.data.layout.label_table import LABELS, write_labels
from components.shared.data.layout.left_out import Tally
from components.shared.data.layout.reading import Reading
from components.shared.data.layout.survey import Survey
from components.shared.data.raw import MAX_PICTURE_BYTES
from components.shared.data.samples.classes import Classes, listed_classes
from components.shared.data.samples.description import Found, closed, describe_samples
from components.shared.data.samples.file_splits import file_splits
from components.shared.data.samples.imagenet import imagenet, is_imagenet
from components.shared.data.samples.tables import is_parquet, pack_parquet
from components.shared.data.samples.webdataset import Recognition, WebDataset
from components.shared.data.sources.archive import members
from components.shared.data.sources.idx import IDX_NAME, describe_idx
from components.shared.data.sources.schemes import RawDescription

Members = Callable[[], Iterator[Member]]
Pictures = Callable[[Callable[[str], bool]], Iterator[Member]]


def archive_path(name: str, folder: Path) -> Path:
    """Return the path in `folder` for a copy of an archive of that name: a fixed name, with the suffix if any."""
    return folder / f"download{''.join(suffix for suffix in SUFFIXES if name.lower().endswith(suffix))}"


def describe_archive(archive: Path, source: str, reading: Reading) -> RawDescription:
    """Describe an archive that is alone in its folder: pictures stay packed, IDX files replace the archive.

    Raises UserError, naming `source`, if it cannot be read safely or holds no classification set.
    """
    with source_named(archive, source):
        archive_kind(archive, source)
        return _describe_archive(archive, source, reading)


def _describe_archive(archive: Path, source: str, reading: Reading) -> RawDescription:
    folder, given, found = archive.parent, Given(reading), partial(members, archive)
    with closed(seen := found()):
        survey = survey_of(seen, source, given, Recognition(reading, [""]))
    if survey.is_webdataset:
        description = _pack_webdataset(found(), {"": NO_SPLITS}, survey, source, reading, folder)
    elif survey.has_only_archives:
        description = _pack_archives(found, survey, source, given, folder, archive)
    elif survey.has_only_idx:
        return _copy_idx(found(), source, folder)
    else:
        description, _ = describe_pictures(survey, source, given, folder)
        return description | {"files": [archive.name, *description["files"]]}
    archive.unlink(missing_ok=True)
    return description


def pack(list_all: Members, read_pictures: Pictures, source: str, reading: Reading, folder: Path) -> RawDescription:
    """Pack pictures into tar shards in `folder`, or copy IDX files there, and describe them.

    `list_all` yields all members of the source, `read_pictures` at least the pictures whose names are wanted, in the
    same order. Raises UserError, naming `source`, if it holds no classification set.
    """
    given = Given(reading)
    survey = survey_of(list_all(), source, given)
    if survey.has_only_archives:
        return _pack_archives(list_all, survey, source, given, folder)
    if survey.has_only_parquet:
        return pack_parquet([*filter(is_parquet, list_all())], survey.result(), source, reading, folder)
    return _pack_survey(survey, list_all, read_pictures, source, given, folder)


def _pack_archives(
    list_all: Members, survey: Survey, source: str, given: Given, folder: Path, archive: Path | None = None
) -> RawDescription:
    """Pack what the archives in a source hold, which may be an archive itself."""
    log.info(f"{source} holds no pictures but archives, which are read one by one")

    def found(_: Callable[[str], bool] = bool) -> Iterator[Member]:
        inner = unnested(list_all(), partial(copied, members, source, folder))
        return limited(archive, inner) if archive else inner

    if any(is_imagenet(name) for name in survey.archives):
        pictures = imagenet(list_all, source, given.reading.needs_labels, folder)
        return describe_samples(pictures, source, given.reading.needs_labels, folder)
    tops = [stem(name) for name in survey.archives]
    with closed(seen := found()):
        inner = survey_of(seen, source, given, Recognition(given.reading, {*tops}))
    if inner.is_webdataset:
        splits = file_splits(source, tops)
        return _pack_webdataset(found(), splits, survey, source, given.reading, folder)
    return _pack_survey(inner, found, found, source, given, folder)


def _pack_webdataset(
    found: Iterator[Member], splits: Mapping[str, str], survey: Survey, source: str, reading: Reading, folder: Path
) -> RawDescription:
    """Pack the samples of tars, of which each stands for a folder that has its split."""
    left_out = Tally()
    classes = Classes(source, *listed_classes(source, survey.class_list))
    with closed(found):
        samples = WebDataset(source, splits, reading, left_out).samples(found)
        return describe_samples(Found(samples, classes, left_out), source, reading.needs_labels, folder)


def _pack_survey(
    survey: Survey, list_all: Members, read_pictures: Pictures, source: str, given: Given, folder: Path
) -> RawDescription:
    if survey.has_only_idx:
        return _copy_idx(list_all(), source, folder)
    description, is_wanted = describe_pictures(survey, source, given, folder)
    progress = log.Progress(f"pack {description['name']}", survey.pictures, "pictures")
    wanted = (member for member in read_pictures(is_wanted) if is_wanted(member.name))
    return description | {"files": [*_pack(wanted, folder, progress), *description["files"]]}


def survey_of(found: Iterator[Member], source: str, given: Given, recognition: Recognition | None = None) -> Survey:
    """Return what a source holds; of tars in which samples are recognized, no more than that.

    Raises UserError if a picture is too large, or no .json beside a picture has the field that the user names.
    """
    survey = Survey()
    for member in map(partial(given.seen, source), found):
        name = member.name.rstrip("/")
        if recognition and recognition.see(member):
            survey.is_webdataset = True
            break
        if member.is_folder:
            if not junk_in(name):
                survey.add_folder(name)
        elif IDX_NAME.fullmatch(name.rpartition("/")[2]) and not junk_in(name):
            survey.has_idx = True
        elif is_nested_archive(member):
            survey.archives.append(name)
            survey.leave_out(FileKind("other", Path(name).suffix.lower()), name)
        elif (kind := member.kind()) != PICTURE:
            survey.leave_out(kind, name)
            survey.unread_archive = survey.unread_archive or name * is_unread_archive(name)
            survey.see_class_list(member)
        elif member.size > MAX_PICTURE_BYTES:
            raise UserError(
                f"{source} holds {name} of {member.size:,} bytes, more than {MAX_PICTURE_BYTES:,}", "shrink it"
            )
        else:
            survey.add_picture(name)
            given.see_picture(name)
    if recognition and not survey.is_webdataset:
        recognition.check_columns(source)
    return survey


def describe_pictures(
    survey: Survey, source: str, given: Given, folder: Path
) -> tuple[RawDescription, Callable[[str], bool]]:
    """Return the description of the pictures, and which of them are taken; write the labels that a table has."""
    if not survey.pictures:
        refuse_unread_name(f"{survey.unread_archive} in {source}", survey.unread_archive)
    labels = given.labels(source, survey)
    if labels is None:
        find = find_layout if given.reading.needs_labels else find_layout_if_any
        layout, counts = find(source, survey, given.reading.data_layout)
    else:
        layout, counts = find_labelled_layout(source, survey, labels)
        write_labels(folder / LABELS, labels)
    for remark in layout.remarks():
        log.info(remark)
    description: RawDescription = {
        "name": _name(source),
        "kind": "pictures",
        "classes": sorted({name for found in counts.values() for name in found}),
        "counts": _totals(counts, survey.pictures if layout.is_optional else 0),
        "files": [] if labels is None else [LABELS],
        "layout": layout.facts(),
        "left_out": survey.result(),
    }
    return description, lambda name: not layout.is_unlabelled(name) if labels is None else name in labels


def _totals(counts: Counts, pictures: int) -> dict[str, int]:
    """Return the pictures of each split; those without a label, of `pictures` in all, are in none."""
    totals = {split: sum(found.values()) for split, found in counts.items()}
    if (rest := pictures - sum(totals.values())) > 0:
        totals[NO_SPLITS] = totals.get(NO_SPLITS, 0) + rest
    return totals


def _name(source: str) -> str:
    return Path(urlsplit(source).path).name or source


def _pack(found: Iterator[Member], folder: Path, progress: log.Progress) -> Sequence[str]:
    """Write pictures to few tar files."""
    with PictureShards(folder, "pictures") as shards:
        for member in found:
            with opened_picture(member) as content:
                if content:
                    shards.add(member.name, member.size, content)
                    progress.advance(1)
    return shards.names


def _copy_idx(found: Iterator[Member], source: str, folder: Path) -> RawDescription:
    """Copy the IDX files to the folder, and leave nothing else there."""
    name = _name(source)
    for member in found:
        base = member.name.rpartition("/")[2]
        if IDX_NAME.fullmatch(base) and not junk_in(member.name):
            path = folder / base.replace(".idx", "-idx")
            if path.exists():
                raise UserError(f"{name} holds {path.name} twice", "give the folder or archive of one data set")
            with member.open() as content, open(path, "wb") as copy:
                shutil.copyfileobj(content, copy)
    description = describe_idx(folder, name)
    for extra in set(os.listdir(folder)) - set(description["files"]):  # the archive, and .gz twins of files
        os.remove(folder / extra)
    return description
