"""WebDataset: tar files in which the files of a sample stand side by side, all with the same key.

The key is the path up to the first dot of the file's name: 0001.jpg and 0001.cls are one sample. The class is in .cls,
as a whole number or a name, or in a field of .json.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from components.shared.core.errors import UserError
from components.shared.data.archives.member import Member
from components.shared.data.layout.file_kinds import PICTURE, PICTURES, junk_in
from components.shared.data.layout.folder_layout import NO_SPLITS
from components.shared.data.layout.left_out import Tally
from components.shared.data.layout.reading import Reading
from components.shared.data.layout.split_names import NO_LABELS, split_of
from components.shared.data.layout.survey import CLASS_LIST
from components.shared.data.raw import MAX_PICTURE_BYTES
from components.shared.data.samples.classes import Label, parse_label
from components.shared.data.samples.description import READ, Content, Keeping, Sample, content_of

FIELDS = ("label", "class", "cls")  # of .json that may hold the class
SHOWN_FIELDS = 9
MAX_LABEL_BYTES = 2**20  # of a .cls or .json
MAX_KEYS = 1_000_000  # of a tar, which are in memory to find one that comes twice
WRITE = "write the number or the name of a class"
TOGETHER = "pack the files of a sample side by side, under a key of its own"


def split_key(name: str) -> tuple[str, str]:
    """Return the key of a file's sample, and what follows it, in lower case: `jpg` of a/0001.jpg."""
    folder, slash, base = name.rpartition("/")
    key, _, extension = base.partition(".")
    return folder + slash + key, extension.lower()


class Recognition:
    """Tells from the members of tars, as they pass by, whether these are of WebDataset."""

    def __init__(self, reading: Reading, tops: Collection[str]) -> None:
        """Take the folders in which a .json says the class: the top folder of each tar."""
        self._is_open = reading.data_layout == "auto" and not reading.labels
        self._columns, self._tops = columns_of(reading), tops
        self._key, self._has_picture, self._has_class = "", False, False
        self._fields: list[str] = []  # of the sample's .json
        self._others: list[str] = []  # those of the first one beside a picture

    def see(self, member: Member) -> bool:
        """Take the next member; return whether it and those before it are a picture and its class."""
        key, extension = split_key(member.name)
        if not self._is_open or member.is_folder or junk_in(member.name):
            return False
        if key != self._key:
            self._key, self._has_picture, self._has_class, self._fields = key, False, False, []
        if f".{extension}" in PICTURES:
            self._has_picture = True
        elif extension == "cls":
            self._has_class = True
        elif extension == "json" and key.rpartition("/")[0] in self._tops:
            self._has_class = self._has_class or self._holds_class(member)
        if self._has_picture and not self._others:
            self._others = self._fields
        return self._has_picture and self._has_class

    def check_columns(self, source: str) -> None:
        """Where no sample was recognized, raise UserError if pictures have a .json without the field that is named."""
        if self._columns and self._others:
            picture, named = self._columns
            more = ", ..." if len(self._others) > SHOWN_FIELDS else ""
            fields = ", ".join(self._others[:SHOWN_FIELDS]) + more
            missing = "no .cls is beside a picture, and " if named == "cls" else ""
            message = f"{source}: {missing}no .json has the field {named!r}"
            raise UserError(message, f"set label_columns={picture},FIELD to one of its fields: {fields}")

    def _holds_class(self, member: Member) -> bool:
        fields = _fields(content_of(member)) if member.size <= MAX_LABEL_BYTES else None
        if not fields:
            return False
        self._fields = [*fields]
        return any(name in fields for name in self._columns[1:] or FIELDS)


def columns_of(reading: Reading) -> list[str]:
    """Return what label_columns names: the extension of the pictures and a field; nothing without it."""
    return [column.strip() for column in reading.label_columns.split(",")] if reading.label_columns else []


@dataclass
class _Group:
    """The files of a sample, as far as they are read."""

    key: str
    shard: str = ""
    seen: set[str] = field(default_factory=set)  # extensions
    pictures: dict[str, tuple[str, Content]] = field(default_factory=dict)  # extension -> name, content
    texts: dict[str, tuple[str, bytes]] = field(default_factory=dict)


class WebDataset:
    """The samples in tars of WebDataset."""

    def __init__(
        self, source: str, splits: Mapping[str, str], reading: Reading, left_out: Tally, keeping: Keeping = READ
    ) -> None:
        """Take the split of each tar by the folder that its members are in (`` if there is only one tar)."""
        self._keep = keeping.keep
        self._source, self._splits, self._left_out = source, splits, left_out
        self._picture, self._field = columns_of(reading) or ["", ""]

    def samples(self, found: Iterator[Member]) -> Iterator[Sample]:
        """Yield the samples of the members in their order. Raises UserError if a key comes twice, or a label is none.

        What is in a sample besides the picture and its class is counted as left out.
        """
        for group in self._groups(found):
            if sample := self._sample(group):
                yield sample

    def _groups(self, found: Iterator[Member]) -> Iterator[_Group]:
        group, keys = _Group(""), set[str]()
        for member in found:
            if member.is_folder or self._is_other(member):
                continue
            key, extension = split_key(member.name)
            if key != group.key:
                if group.key:
                    yield group
                shard = self._shard_of(member.name) or ""
                keys = keys if shard == group.shard else set()
                self._note(keys, key)
                group = _Group(key, shard)
            self._add(group, extension, member)
        if group.key:
            yield group

    def _note(self, keys: set[str], key: str) -> None:
        if key in keys:
            self._refuse(f"the key {key} comes again after others", TOGETHER)
        keys.add(key)
        if len(keys) > MAX_KEYS:
            self._refuse(f"a tar holds more than {MAX_KEYS:,} samples (at {key})", "split it into several tars")

    def _is_other(self, member: Member) -> bool:
        """Return whether a file is none of the samples'; it is counted as left out."""
        is_beside = self._shard_of(member.name) is None
        if (is_beside or junk_in(member.name)) and member.name.rpartition("/")[2] != CLASS_LIST:
            kind = member.kind()
            self._left_out.add(kind.reason or "other", kind.kind, member.name)
        return is_beside or bool(junk_in(member.name))

    def _shard_of(self, name: str) -> str | None:
        """Return the folder that stands for the tar of a member; None if it is in no tar."""
        parts = name.split("/")[:-1]
        folders = ("/".join(parts[:count]) for count in range(len(parts), -1, -1))
        return next((folder for folder in folders if folder in self._splits), None)

    def _add(self, group: _Group, extension: str, member: Member) -> None:
        """Read a file of a sample if it is the picture, or may say the class."""
        if extension in group.seen:
            self._refuse(f"{member.name} comes twice", TOGETHER)
        group.seen.add(extension)
        if f".{extension}" in PICTURES:
            if member.size > MAX_PICTURE_BYTES:
                self._refuse(f"{member.name} has {member.size:,} bytes, more than {MAX_PICTURE_BYTES:,}", "shrink it")
            group.pictures[extension] = (member.name, self._keep(member))
        elif extension in ("cls", "json"):
            if member.size > MAX_LABEL_BYTES:
                self._refuse(f"{member.name} has {member.size:,} bytes, too many for a label", "leave it out")
            group.texts[extension] = (member.name, content_of(member))
        else:
            kind = member.kind()
            self._left_out.add(kind.reason or "other", f".{extension}" if kind == PICTURE else kind.kind, member.name)

    def _sample(self, group: _Group) -> Sample | None:
        source = self._source_of_label(group)
        for extension in group.texts.keys() - {source}:
            self._left_out.add("sidecar", f".{extension}", group.texts[extension][0])
        if not group.pictures:
            return None
        name, content = self._chosen(group.pictures)
        split = self._splits[group.shard]
        inner = group.key.removeprefix(group.shard).strip("/")
        if split == NO_SPLITS and "/" in inner:
            split = split_of(inner.split("/")[0])
        label = self._label(*group.texts[source], source) if source and split != NO_LABELS else None
        return Sample(name, split if split in ("train", "val", "test") else NO_SPLITS, label, content)

    def _source_of_label(self, group: _Group) -> str:
        """Return the extension of the file that says the class; nothing if there is none."""
        if not group.pictures:
            return ""
        usable = ("cls",) if self._field == "cls" else ("json",) if self._field else ("cls", "json")
        return next((extension for extension in usable if extension in group.texts), "")

    def _chosen(self, pictures: Mapping[str, tuple[str, Content]]) -> tuple[str, Content]:
        """Return the picture of a sample."""
        if self._picture in pictures:
            return pictures[self._picture]
        names = [name for name, _ in pictures.values()]
        if len(names) > 1:
            found = ", ".join(names)
            remedy = f"set label_columns={next(iter(pictures))},cls to take the first"
            self._refuse(f"one sample has the pictures {found}", remedy)
        return next(iter(pictures.values()))

    def _label(self, name: str, content: bytes, extension: str) -> Label | None:
        if extension == "cls":
            return self._parsed(name, content)
        fields = _fields(content)
        if fields is None:
            self._refuse(f"{name} cannot be read as a JSON object", "correct it")
        found = [key for key in ([self._field] if self._field else FIELDS) if fields.get(key) is not None]
        if len(found) > 1:
            remedy = f"set label_columns=jpg,{found[0]} to take the first (jpg: what the pictures end in)"
            self._refuse(f"{name} has the fields {' and '.join(found)}", remedy)
        return self._of_field(name, found[0], fields[found[0]]) if found else None

    def _parsed(self, name: str, content: bytes) -> Label | None:
        """Return the label in a .cls; None if it is empty."""
        try:
            text = content.decode().strip()
        except UnicodeDecodeError:
            self._refuse(f"{name} is not in UTF-8", WRITE)
        label = parse_label(text)
        if label is None:
            self._refuse(f"{name} has the label {text!r}", WRITE)
        return label if text else None

    def _of_field(self, name: str, key: str, value: object) -> Label | None:
        if isinstance(value, bool) or not isinstance(value, int | str):
            self._refuse(f"{name} has the {key} {value!r}", WRITE)
        return value if isinstance(value, int) else value.strip() or None

    def _refuse(self, problem: str, remedy: str) -> NoReturn:
        raise UserError(f"{self._source}: {problem}", remedy)


def _fields(content: bytes) -> dict[str, object] | None:
    """Return the members of a JSON object; None if the content is none."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
