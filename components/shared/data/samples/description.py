"""Samples as they come from a source -> raw files, and what they are."""

from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.data.archives.member import Member
from components.shared.data.layout.left_out import Tally
from components.shared.data.raw import MAX_PICTURE_BYTES
from components.shared.data.samples.classes import Classes, Label
from components.shared.data.samples.stored import UNLABELLED, SampleWriter
from components.shared.data.sources.schemes import RawDescription

Content = bytes | Member  # what is in a picture, or where it is


class Keeping(NamedTuple):
    """What is kept of a picture, and how an archive is opened without a copy, if it need not be copied."""

    keep: Callable[[Member], Content]
    in_place: Callable[[Member], Iterator[Member]] | None


def content_of(member: Member) -> bytes:
    """Return the bytes of a member."""
    with member.open() as file:
        return file.read()


READ = Keeping(content_of, None)


class Sample(NamedTuple):
    """A picture file: its name for people, its split (train, val, test, or all), and its label if it has one."""

    name: str
    split: str
    label: Label | None
    content: Content


class Found(NamedTuple):
    """The samples of a source, its classes, and a count of what is left out of them while they are read."""

    samples: Iterator[Sample]
    classes: Classes
    left_out: Tally


class Writer(Protocol):
    """What takes samples in the order of a source, and has those of a split together when it has all."""

    counts: Counter[str]  # by split

    def add(self, split: str, label: int, name: str, content: Content) -> None:
        """Take a sample."""
        ...

    def finish(self, numbers: NDArray[np.int32]) -> list[str]:
        """Say at the end which number each label has, and return the names of the files."""
        ...


def describe_samples(found: Found, source: str, needs_labels: bool, folder: Path) -> RawDescription:
    """Write samples to raw files in a folder, and describe them; those without a label only unless it `needs_labels`.

    Raises UserError, naming `source`, if there are none, some are in a split and others in none, or all are of one
    class.
    """
    with SampleWriter(folder) as writer:
        return write_samples(writer, found, source, needs_labels)


def write_samples(writer: Writer, found: Found, source: str, needs_labels: bool) -> RawDescription:
    """Give samples to a writer, and describe them, as `describe_samples` does."""
    name = Path(urlsplit(source).path).name or source
    progress = log.Progress(f"pack {name}", 0, "pictures")
    with closed(found.samples):
        for sample in found.samples:
            content = sample.content
            if (count := content.size if isinstance(content, Member) else len(content)) > MAX_PICTURE_BYTES:
                size = f"{count:,} bytes, more than {MAX_PICTURE_BYTES:,}"
                raise UserError(f"{source} holds {sample.name} of {size}", "shrink it")
            if sample.label is None and needs_labels:
                found.left_out.add("unlabelled", f"in {sample.name.rpartition('/')[0] or 'the source'}", sample.name)
                continue
            label = UNLABELLED if sample.label is None else found.classes.number(sample.label, sample.name)
            writer.add(sample.split, label, sample.name, content)
            progress.advance(1)
        classes, numbers = found.classes.finish()
        left_out = found.left_out.result(writer.counts.total())
        besides = f" ({'; '.join(left_out.sentences())})" if left_out.files else ""
        if not writer.counts:
            labelled = " that have a label" if needs_labels else ""
            raise UserError(f"{source} holds no pictures{labelled}{besides}", "check what it is, and its labels")
        if needs_labels:
            _check(source, classes, [*writer.counts], besides)
        files = writer.finish(numbers)
    return {
        "name": name,
        "kind": "samples",
        "classes": classes,
        "counts": dict(writer.counts),
        "files": files,
        "left_out": left_out,
    }


@contextmanager
def closed(found: Iterator[object]) -> Iterator[None]:
    """Close what yields members or samples at the end of the block, so that no copy of a file stays after an error."""
    try:
        yield
    finally:
        if isinstance(found, Generator):
            found.close()


def _check(source: str, classes: list[str], splits: list[str], besides: str) -> None:
    if "all" in splits and len(splits) > 1:
        named = ", ".join(split for split in splits if split != "all")
        message = f"{source} has pictures in no split beside those of {named}"
        raise UserError(message, "name the split of all or of none")
    if not {"all", "train"} & {*splits}:
        raise UserError(f"{source} has {' and '.join(splits)} without train", "give the training pictures, too")
    if len(classes) < 2:
        raise UserError(f"{source} holds one class only ({classes[0]!r}){besides}", "give two or more classes")
