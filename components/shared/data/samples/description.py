"""Samples as they come from a source -> raw files, and what they are."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.data.layout.left_out import Tally
from components.shared.data.raw import MAX_PICTURE_BYTES
from components.shared.data.samples.classes import Classes, Label
from components.shared.data.samples.stored import UNLABELLED, SampleWriter, StoredSample
from components.shared.data.sources.schemes import RawDescription


class Sample(NamedTuple):
    """A picture file: its name for people, its split (train, val, test, or all), and its label if it has one."""

    name: str
    split: str
    label: Label | None
    content: bytes


class Found(NamedTuple):
    """The samples of a source, its classes, and a count of what is left out of them while they are read."""

    samples: Iterator[Sample]
    classes: Classes
    left_out: Tally


def describe_samples(found: Found, source: str, needs_labels: bool, folder: Path) -> RawDescription:
    """Write samples to raw files in a folder, and describe them; those without a label only unless it `needs_labels`.

    Raises UserError, naming `source`, if there are none, some are in a split and others in none, or all are of one
    class.
    """
    name = Path(urlsplit(source).path).name or source
    progress = log.Progress(f"pack {name}", 0, "pictures")
    with closed(found.samples), SampleWriter(folder) as writer:
        for sample in found.samples:
            if len(sample.content) > MAX_PICTURE_BYTES:
                size = f"{len(sample.content):,} bytes, more than {MAX_PICTURE_BYTES:,}"
                raise UserError(f"{source} holds {sample.name} of {size}", "shrink it")
            if sample.label is None and needs_labels:
                found.left_out.add("unlabelled", f"in {sample.name.rpartition('/')[0] or 'the source'}", sample.name)
                continue
            label = UNLABELLED if sample.label is None else found.classes.number(sample.label, sample.name)
            writer.add(StoredSample(sample.split, label, sample.name, sample.content))
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
