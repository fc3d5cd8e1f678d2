"""The splits of data that comes in numbered files, by their names: imagenet-train-000000.tar, val/0001.parquet."""

import re
from collections.abc import Collection

from components.shared.core.errors import UserError
from components.shared.data.layout.folder_layout import NO_SPLITS
from components.shared.data.layout.split_names import NO_LABELS, split_of, splits_of

# As in shard-000012, train-00000-of-00004 and train-00000-of-00001-b42a775f407cee45.
NUMBERS = re.compile(r"[\W_]*\d+([\W_]*of[\W_]*\d+([\W_]*[0-9a-f]{16})?)?$")


def file_splits(source: str, stems: Collection[str]) -> dict[str, str]:
    """Return the split of each file, by its path without suffix: train, val, test, unlabelled, or all for no split.

    Raises UserError, naming `source`, if some are named like splits and others are not.
    """
    parts = {stem: _parts(stem) for stem in stems}
    root = _shared(list(parts.values()))
    tops = {stem: found[root] if len(found) > root else "" for stem, found in parts.items()}
    splits = splits_of(set(tops.values()))
    if not splits:
        _refuse_some(source, tops, [part for found in parts.values() for part in found[root + 1 :]])
    return {stem: splits.get(top, NO_SPLITS) for stem, top in tops.items()}


def _parts(stem: str) -> list[str]:
    """Return the folders and the name of a file, without its number."""
    *folders, name = stem.split("/")
    return [*folders, NUMBERS.sub("", name)]


def _shared(parts: list[list[str]]) -> int:
    """Return the number of leading parts that all files share and that are no split."""
    root = 0
    while all(len(found) > root + 1 for found in parts):
        firsts = {found[root] for found in parts}
        if len(firsts) > 1 or split_of(next(iter(firsts))):
            break
        root += 1
    return root


def _refuse_some(source: str, tops: dict[str, str], below: list[str]) -> None:
    named = {top: split_of(top) for top in tops.values()}
    other = next((stem for stem, top in tops.items() if not named[top]), "")
    split = next((top for top in named if named[top] not in ("", NO_LABELS)), "")
    if split:
        message = f"{source} holds {other} beside files of the split {split}"
        raise UserError(message, "name the split of all files, or of none")
    if inner := next((part for part in below if split_of(part)), ""):
        message = f"{source} has the split {inner} below {', '.join(sorted({*tops.values()})[:5])}"
        raise UserError(message, "give one of these as data=")
