"""ImageNet (ILSVRC2012) as its authors give it out: a tar of a tar for each class, and validation pictures beside them.

The classes of the validation pictures are in the devkit, or in Kaggle's LOC_val_solution.csv. Every class is named by
its WordNet ID, such as n01440764: the readable names are not unique.
"""

import csv
import io
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.data.archives.broken import source_named
from components.shared.data.archives.member import Member
from components.shared.data.archives.nested import copied, stem, unnested
from components.shared.data.layout.file_kinds import PICTURE
from components.shared.data.layout.folder_layout import NO_SPLITS
from components.shared.data.layout.left_out import Tally
from components.shared.data.raw import MAX_PICTURE_BYTES
from components.shared.data.samples.classes import Classes
from components.shared.data.samples.description import READ, Found, Keeping, Sample, closed
from components.shared.data.sources.archive import members

PICTURES = re.compile(r"ILSVRC2012_img_(train|val|test)(?:_v\d+)?\.tar")
DEVKIT = re.compile(r"ILSVRC2012_devkit\w*\.tar\.gz")
META, TRUTH, SOLUTION = "meta.mat", "ILSVRC2012_validation_ground_truth.txt", "LOC_val_solution.csv"
NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})")  # of a validation picture, from 1 on
MAX_BYTES = 2**26  # of a file with classes: that of Kaggle has 2 MiB
BESIDE = f"put the devkit, ILSVRC2012_devkit_t12.tar.gz, or Kaggle's {SOLUTION} beside it"

Members = Callable[[], Iterator[Member]]


def is_imagenet(name: str) -> bool:
    """Return whether an archive is one of ImageNet's, by its name."""
    return bool(PICTURES.fullmatch(name.rpartition("/")[2]))


def imagenet(list_all: Members, source: str, needs_labels: bool, folder: Path, keeping: Keeping = READ) -> Found:
    """Return ImageNet's pictures. Raises UserError, naming `source`, if the classes of its validation pictures lack.

    One archive at a time is copied to `folder`, unless `keeping` opens it in its place.
    """
    return _ImageNet(list_all, source, needs_labels, folder, keeping).found()


class _ImageNet:
    """Reads the archives of ImageNet one after another."""

    def __init__(self, list_all: Members, source: str, needs_labels: bool, folder: Path, keeping: Keeping) -> None:
        self._list_all, self._source, self._folder = list_all, source, folder
        self._needs_labels, self._left_out = needs_labels, Tally()
        self._keep, self._in_place = keeping

    def found(self) -> Found:
        truth = _Truth(self._source, self._files_with_classes())
        return Found(self._samples(truth), Classes(self._source), self._left_out)

    def _files_with_classes(self) -> dict[str, bytes]:
        """Return the files that say the classes of the validation pictures, by name."""
        files: dict[str, bytes] = {}
        for member in self._list_all():
            inner = self._opened(member) if DEVKIT.fullmatch(_base(member)) else iter([member])
            with closed(inner):
                for file in inner:
                    if _base(file) in (META, TRUTH, SOLUTION) and not file.is_folder and file.size <= MAX_BYTES:
                        with file.open() as content:
                            files[_base(file)] = content.read()
        return files

    def _samples(self, truth: "_Truth") -> Iterator[Sample]:
        for member in self._list_all():
            if member.is_folder or DEVKIT.fullmatch(_base(member)) or _base(member) in (META, TRUTH, SOLUTION):
                continue
            part = PICTURES.fullmatch(_base(member))
            if not part:
                kind = member.kind()
                self._left_out.add(kind.reason or "other", kind.kind, member.name)
                continue
            log.info(f"{self._source}: {member.name}")
            if part[1] == "val" and self._needs_labels and not truth:
                self._refuse(f"has {member.name} without its classes", BESIDE)
            with closed(found := self._in_its_place(member) if self._in_place else self._opened(member)):
                yield from self._of_part(part[1], found, truth)

    def _of_part(self, part: str, found: Iterator[Member], truth: "_Truth") -> Iterator[Sample]:
        for member in found:
            if member.is_folder:
                continue
            if (kind := member.kind()) != PICTURE:
                self._left_out.add(kind.reason or "other", kind.kind, member.name)
            elif part == "test" and self._needs_labels:
                self._left_out.add("unlabelled", f"in {member.name.split('/')[0]}", member.name)
            else:
                yield self._sample(part, member, truth)

    def _sample(self, part: str, member: Member, truth: "_Truth") -> Sample:
        if member.size > MAX_PICTURE_BYTES:
            self._refuse(f"holds {member.name} of {member.size:,} bytes, more than {MAX_PICTURE_BYTES:,}", "shrink it")
        content = self._keep(member)
        if part == "train":
            folders = member.name.split("/")[1:-1]  # the first stands for the whole tar
            return Sample(member.name, "train", folders[0] if folders else None, content)
        if part == "val":
            return Sample(member.name, "val", truth.class_of(member.name), content)
        return Sample(member.name, NO_SPLITS, None, content)

    def _opened(self, archive: Member) -> Iterator[Member]:
        """Yield the members of an archive and of those in it, in folders that are named after them."""
        with tempfile.TemporaryDirectory(dir=self._folder) as scratch:
            copy = Path(scratch) / _base(archive)
            archive.save(copy)
            with source_named(copy, f"{self._source}: {archive.name}"):
                read = partial(copied, members, f"{self._source}: {archive.name}", Path(scratch))
                inner = unnested(members(copy), read)
                for member in inner:
                    yield replace(member, name=f"{stem(_base(archive))}/{member.name}")

    def _in_its_place(self, archive: Member) -> Iterator[Member]:
        assert self._in_place
        for member in unnested(self._in_place(archive), self._in_place):
            yield replace(member, name=f"{stem(_base(archive))}/{member.name}")

    def _refuse(self, problem: str, remedy: str) -> NoReturn:
        raise UserError(f"{self._source} {problem}", remedy)


class _Truth:
    """The classes of the validation pictures."""

    def __init__(self, source: str, files: dict[str, bytes]) -> None:
        """Read the devkit's files, else Kaggle's. Raises UserError, naming `source`, if they are damaged."""
        self._source = source
        self._by_number: Sequence[str] = []
        self._by_name: dict[str, str] = {}
        if META in files and TRUTH in files:
            self._by_number = self._of_devkit(files[META], files[TRUTH])
        elif SOLUTION in files:
            text = io.StringIO(files[SOLUTION].decode(errors="replace"))
            self._by_name = {row[0]: row[1].split(" ")[0] for row in csv.reader(text) if len(row) > 1}

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._by_number or self._by_name)

    def class_of(self, name: str) -> str | None:
        """Return the class of a picture; None if there are no classes. Raises UserError if it is not among them."""
        key = name.rpartition("/")[2].partition(".")[0]
        number = NUMBER.fullmatch(key)
        if not self:
            return None
        if key in self._by_name:
            return self._by_name[key]
        if number and 0 < int(number[1]) <= len(self._by_number):
            return self._by_number[int(number[1]) - 1]
        where = SOLUTION if self._by_name else f"{TRUTH}, which has {len(self._by_number):,} lines"
        raise UserError(f"{self._source}: {name} is not in {where}", "give the file of the same version")

    def _of_devkit(self, meta: bytes, truth: bytes) -> list[str]:
        ids = _wordnet_ids(meta)
        if not ids:
            raise UserError(f"{self._source}: {META} of the devkit cannot be read", "replace the devkit")
        lines = truth.decode(errors="replace").split()
        for number, line in enumerate(lines, 1):
            if not line.isdecimal() or int(line) not in ids:
                problem = f"line {number} of {TRUTH} has {line[:40]!r}, which {META} does not have"
                raise UserError(f"{self._source}: {problem}", "give both files of one devkit")
        return [ids[int(line)] for line in lines]


def _wordnet_ids(meta: bytes) -> dict[int, str]:
    """Return the WordNet ID of each class by its number in the devkit; nothing if the file cannot be read."""
    import scipy.io  # 0.3 s
    from scipy.io.matlab import MatReadError

    try:
        synsets = scipy.io.loadmat(io.BytesIO(meta), squeeze_me=True, variable_names="synsets")["synsets"]
        rows = zip(synsets["ILSVRC2012_ID"], synsets["WNID"], synsets["num_children"], strict=True)
        return {int(number): str(wordnet_id) for number, wordnet_id, children in rows if int(children) == 0}
    except (MatReadError, NotImplementedError, ValueError, TypeError, LookupError, OSError, EOFError):
        return {}


def _base(member: Member) -> str:
    return member.name.rstrip("/").rpartition("/")[2]
