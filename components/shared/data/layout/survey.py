"""What a source of pictures holds, seen in one pass over its names: from it the layout is found."""

import re
from collections import Counter

from components.shared.data.archives.member import Member
from components.shared.data.layout.file_kinds import FileKind
from components.shared.data.layout.left_out import LeftOut, Tally

CLASSES_IN_NAMES = 1000  # more in one folder are no classes
CLASS_IN_NAME = re.compile(r"([^\W\d_]+(?:[ ._-][^\W\d_]+)*)[ ._-]?\(?\d+\)?")
# What cameras and programs begin the names of pictures with.
NO_CLASSES = {"img", "image", "dsc", "dscn", "dscf", "pxl", "pic", "picture", "photo", "frame", "file", "screenshot"}
TABLES = (".csv", ".tsv")
SHOWN_TABLES = 9
CLASS_LIST = "classnames.txt"
MAX_LIST_BYTES = 2**24


def class_in_name(name: str) -> str:
    """Return the class that a picture's name begins with, as in cat.1.jpg or cat_01.png; nothing if there is none."""
    stem, _, _ = name.rpartition("/")[2].rpartition(".")
    found = CLASS_IN_NAME.fullmatch(stem)
    return found[1] if found and len(found[1]) > 1 and found[1].casefold() not in NO_CLASSES else ""


class Survey:
    """Counts the pictures of each folder, also by the classes in their names, and the files that are left out."""

    def __init__(self) -> None:
        self.folders: Counter[str] = Counter()
        self.tables: list[str] = []  # that may hold labels
        self.left_out = Tally()
        self.has_idx = self.has_parquet = False  # files of another kind of data set
        self.is_webdataset = False  # whether there are samples in tars
        self.archives: list[str] = []  # in the source
        self.class_list: tuple[str, bytes] | None = None  # of WebDataset: a file with its class names, line by line
        self.unread_archive = ""  # the first of a kind that is not read
        self._named: dict[str, Counter[str]] = {}
        self._unnamed: set[str] = set()

    @property
    def pictures(self) -> int:
        """Return the number of pictures."""
        return self.folders.total()

    @property
    def has_only_idx(self) -> bool:
        """Return whether there are IDX files and no pictures."""
        return self.has_idx and not self.pictures

    @property
    def has_only_parquet(self) -> bool:
        """Return whether there are Parquet files, and neither pictures nor archives."""
        return self.has_parquet and not self.pictures and not self.archives

    @property
    def has_only_archives(self) -> bool:
        """Return whether there are archives and no pictures."""
        return bool(self.archives) and not self.pictures

    def add_folder(self, name: str) -> None:
        """Note a folder, which may be empty."""
        self.folders[name] += 0

    def add_picture(self, name: str) -> None:
        """Count a picture."""
        folder = name.rpartition("/")[0]
        self.folders[folder] += 1
        if folder in self._unnamed:
            return
        named = self._named.setdefault(folder, Counter())
        named[class_in_name(name)] += 1
        if "" in named or len(named) > CLASSES_IN_NAMES:
            self._unnamed.add(folder)
            del self._named[folder]

    def leave_out(self, kind: FileKind, name: str) -> None:
        """Count a file that is no picture to read."""
        assert kind.reason
        self.left_out.add(kind.reason, kind.kind, name)
        self.has_parquet = self.has_parquet or kind.kind == ".parquet"
        if kind.kind in TABLES and len(self.tables) < SHOWN_TABLES:
            self.tables.append(name)
        if kind.reason == "unreadable":
            self.add_folder(name.rpartition("/")[0])

    def leave_out_unlabelled(self, name: str) -> None:
        """Count a picture as left out because it has no label."""
        folder = name.rpartition("/")[0]
        self.folders[folder] -= 1
        self.left_out.add("unlabelled", f"in {folder or 'the top folder'}", name)

    def see_class_list(self, member: Member) -> None:
        """Keep the file that may list the classes."""
        if member.name.rpartition("/")[2] == CLASS_LIST and member.size <= MAX_LIST_BYTES and not self.class_list:
            with member.open() as file:
                self.class_list = (member.name, file.read())

    def named(self, folder: str) -> Counter[str]:
        """Return the number of a folder's pictures by the classes in their names; nothing if some have none."""
        return self._named.get(folder, Counter())

    def result(self) -> LeftOut:
        """Return what is left out so far, next to the number of pictures."""
        return self.left_out.result(self.pictures)
