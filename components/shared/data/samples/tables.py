"""Tables that are a data set by themselves: Parquet with the bytes of pictures, manifests with their places."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from components.shared.data.archives.folder import file_member
from components.shared.data.archives.member import Member
from components.shared.data.archives.ranged import RangedFile
from components.shared.data.layout.file_kinds import junk_in
from components.shared.data.layout.folder_layout import NO_SPLITS
from components.shared.data.layout.left_out import LeftOut, Tally
from components.shared.data.layout.reading import Reading
from components.shared.data.samples.description import Found, describe_samples, write_samples
from components.shared.data.samples.file_splits import file_splits
from components.shared.data.sources.schemes import Listed, RawDescription

Pictures = tuple[Mapping[str, Any], Iterator[Listed]]
PARQUET = ".parquet"
MANIFESTS = (".csv", ".tsv")
TABLES = (PARQUET, *MANIFESTS)


def is_table(name: str) -> bool:
    """Return whether a file's name is that of a table."""
    return name.lower().endswith(TABLES)


def is_parquet(member: Member) -> bool:
    """Return whether a member is a Parquet file, by its name."""
    return not member.is_folder and member.name.lower().endswith(PARQUET) and not junk_in(member.name)


def pack_parquet(files: list[Member], beside: LeftOut, source: str, reading: Reading, folder: Path) -> RawDescription:
    """Pack the pictures in the Parquet files of a source, each of which is of the split that its name says.

    `beside` is what the source holds besides. Raises UserError, naming `source`, if the files are of other columns, or
    hold no classification set.
    """
    from components.shared.data.samples.parquet import parquet_pictures  # 1 s, most of it pyarrow

    found = parquet_pictures(files, _splits(files, source), source, reading, _others(beside), folder)
    return describe_samples(found, source, reading.needs_labels, folder)


def list_parquet(files: list[Member], beside: LeftOut, source: str, reading: Reading) -> Pictures:
    """Return name, classes and what is left out of the Parquet files of a source, and where their pictures are.

    Raises UserError as `pack_parquet` does.
    """
    from components.shared.data.samples.parquet import list_rows  # 1 s, most of it pyarrow

    found = list_rows(files, _splits(files, source), source, reading, _others(beside))
    return list_samples(found, source)


def list_samples(found: Found, source: str) -> Pictures:
    """Return name, classes and what is left out of samples with labels, and their list, split by split."""
    from components.shared.data.parts.sample_list import SampleList  # 1 s, most of it pyarrow

    samples = SampleList()
    description = write_samples(samples, found, source, needs_labels=True)
    return {key: description[key] for key in ("name", "kind", "classes", "left_out")}, samples.pictures()


def list_table(
    file: RangedFile, name: str, source: str, reading: Reading, at: Path | None = None, prefix: str = ""
) -> Pictures:
    """Return name, classes and what is left out of a table, and the list of its pictures.

    `name` is the table's; all else is as of `pack_table`.
    """
    # 1 s, most of it pyarrow
    from components.shared.data.samples.manifest import ManifestReader
    from components.shared.data.samples.parquet import holds_pictures
    from components.shared.data.samples.places import Places

    is_parquet = name.lower().endswith(PARQUET)
    if is_parquet and holds_pictures(file, source, reading):
        table = Member(name, file.size, False, _no_file, key=file.key, etag=file.etag, ranged=lambda: file)
        return list_parquet([table], LeftOut(taken=0, files=[]), source, reading)
    found = ManifestReader(source, Places(at, prefix), reading, is_list=True).found(file, is_parquet)
    return list_samples(found, source)


def _no_file() -> IO[bytes]:
    raise AssertionError("a table is read in parts")


def pack_table(
    file: Member, source: str, reading: Reading, folder: Path, at: Path | None = None, prefix: str = ""
) -> RawDescription:
    """Pack the pictures in a Parquet file, or those that a manifest names.

    The manifest's relative paths begin at the folder `at` or a prefix in S3, if there is one. Raises UserError, naming
    `source`, if the table is not clear, or names no classification set.
    """
    # 1 s, most of it pyarrow
    from components.shared.data.samples.manifest import ManifestReader
    from components.shared.data.samples.parquet import holds_pictures, saved
    from components.shared.data.samples.places import Places

    is_parquet = file.name.lower().endswith(PARQUET)
    with saved(file, folder) as path:
        if is_parquet and holds_pictures(path, source, reading):
            here = file_member(file.name, path)
            return pack_parquet([here], LeftOut(taken=0, files=[]), source, reading, folder)
        found = ManifestReader(source, Places(at, prefix), reading).found(path, is_parquet)
        return describe_samples(found, source, reading.needs_labels, folder)


def _splits(files: list[Member], source: str) -> dict[str, str]:
    """Return the split of each file, by its name."""
    stems = {file.name: file.name[: -len(PARQUET)] for file in files}
    splits = file_splits(source, stems.values()) if len(files) > 1 else dict.fromkeys(stems.values(), NO_SPLITS)
    return {name: splits[stem] for name, stem in stems.items()}


def _others(beside: LeftOut) -> Tally:
    """Return a count that begins with the files beside the tables."""
    tally = Tally()
    for files in beside.files:
        if files.kind != PARQUET:
            tally.add(files.reason, files.kind, files.first, files.count)
    return tally
