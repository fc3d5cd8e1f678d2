"""The layout of pictures in folders: which folders are splits, which are classes, and which only contain those."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from pydantic import Field

from components.shared.core import log
from components.shared.core.document import Count, JsonObject, Part
from components.shared.core.errors import UserError
from components.shared.data.layout.file_kinds import PICTURES
from components.shared.data.layout.reading import Arrangement
from components.shared.data.layout.search import Search
from components.shared.data.layout.second_reading import refuse_folds, refuse_second_reading, refuse_second_reading_of
from components.shared.data.layout.split_names import (
    NO_LABELS,
    are_folds,
    leads_on,
    split_of,
    splits_of,
)
from components.shared.data.layout.survey import Survey, class_in_name

NO_SPLITS = "all"
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

Counts = dict[str, dict[str, int]]  # split -> class -> pictures


class Layout(Part):
    """Below `root` leading folders are splits, if there are any, and classes."""

    root: Count
    has_splits: bool
    # The split of each folder, where the names are not all in SPLIT_NAMES.
    splits: dict[str, str] = Field(default_factory=dict)
    # How many folders of a split lead on to its classes.
    below: dict[str, Count] = Field(default_factory=dict)
    # Folders beside the splits, whose pictures are left out.
    unlabelled: list[str] = Field(default_factory=list)
    in_names: bool = False  # whether the classes are the beginnings of the pictures' names
    in_table: bool = False  # whether the classes are in the file of label_table.py, and no others are read
    is_optional: bool = False  # whether pictures without a class are taken too
    no_labels: bool = False  # whether no picture has a class

    def locate(self, name: str) -> tuple[str, str]:
        """Return the split and the class of a picture by its name; the split is `all` if there are no splits.

        Raises LookupError if it is in none.
        """
        if self._has_no_label(name):
            raise LookupError(name)
        folders = name.split("/")[self.root : -1]
        at = 1 + self.below.get(folders[0], 0) if self.has_splits else 0
        class_name = class_in_name(name) if self.in_names else folders[at]
        if not class_name:
            raise LookupError(name)
        return self.split_of(name), class_name

    def place(self, name: str, table: Mapping[str, str]) -> tuple[str, str]:
        """Return the split and the class of a picture, which may be in a table. Raises LookupError if it is in none."""
        return (self.split_of(name), table[name]) if self.in_table else self.locate(name)

    def split_of(self, name: str) -> str:
        """Return the split of a picture. Raises LookupError if it is in none."""
        if not self.has_splits:
            return NO_SPLITS
        top = name.split("/")[self.root]
        return self.splits[top] if self.splits else SPLIT_NAMES[top.lower()]

    def is_unlabelled(self, name: str) -> bool:
        """Return whether a picture is left out, because it has no label."""
        return not self.is_optional and self._has_no_label(name)

    def _has_no_label(self, name: str) -> bool:
        return self.no_labels or any(part in self.unlabelled for part in name.split("/")[self.root : self.root + 1])

    def facts(self) -> JsonObject:
        """Return the fields as raw.json has them: those of unusual layouts only where needed, so that digests hold."""
        return {name: value for name, value in self.model_dump().items() if value or name in ("root", "has_splits")}

    def remarks(self) -> list[str]:
        """Return what is not obvious about the layout, in words."""
        names = [f"{folder} is {split}" for folder, split in self.splits.items()]
        return [f"splits: {', '.join(names)}"] * bool(names) + [
            "the classes are what the names of the pictures begin with"
        ] * self.in_names


def find_layout(source: str, survey: Survey, arrangement: Arrangement) -> tuple[Layout, Counts]:
    """Return the layout, found from a survey of the source, and the counts: split -> class -> pictures.

    The pictures of folders without labels are moved to those that are left out. Raises UserError, naming `source`, if
    there are no pictures, some are in no class folder, the layout may be read in two ways, a class is empty, or there
    is only one class.
    """
    search = _search(source, survey)
    layout = _find(search, arrangement)
    counts = _count(layout, search)
    _check_classes(search, counts)
    for top in layout.unlabelled:
        _leave_out(survey, layout, top)
    return layout, counts


def find_layout_if_any(source: str, survey: Survey, arrangement: Arrangement) -> tuple[Layout, Counts]:
    """Return the layout and the counts as `find_layout` does, with all pictures, whether they have labels or not.

    The counts are those of the pictures that have one. Raises UserError if there are no pictures.
    """
    search = _search(source, survey)
    try:
        layout = _find(search, arrangement)
        counts = _count(layout, search)
    except UserError as error:
        log.info(f"taken without labels: {error.message}")
        layout, counts = Layout(root=0, has_splits=False, no_labels=True), {}
    return layout.model_copy(update={"is_optional": True}), counts


def find_labelled_layout(source: str, survey: Survey, labels: Mapping[str, str]) -> tuple[Layout, Counts]:
    """Return the layout and the counts of pictures whose labels are in a table; all others are left out.

    Raises UserError, naming `source`, if a class is empty in a split, or there is only one class.
    """
    search = Search(source, survey, [list(parts) for parts in {tuple(name.split("/")[:-1]) for name in labels}])
    root = _shared_folders(search.filled, keeps_splits=True) if search.filled else 0
    splits = splits_of(search.tops(root)) if all(len(parts) > root for parts in search.filled) else {}
    layout = Layout(root=root, has_splits=False, in_table=True)
    if "train" in splits.values():
        layout = _layout_of_splits(root, splits, {}, [], in_table=True)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for name, class_name in labels.items():
        counts[layout.split_of(name)][class_name] += 1
    found = {split: dict(sorted(classes.items())) for split, classes in sorted(counts.items())}
    _check_classes(search, found)
    return layout, found


def _search(source: str, survey: Survey) -> Search:
    """Return the search in a source. Raises UserError if it holds no picture that can be read."""
    left_out = survey.result()
    search = Search(source, survey, [folder.split("/") if folder else [] for folder, n in survey.folders.items() if n])
    search.besides = f" ({left_out.sentences()[0]})" if left_out.unreadable else ""
    if not search.filled:
        search.refuse(
            f"holds no pictures that can be read ({', '.join(PICTURES)}){search.besides}",
            "convert them to PNG or JPEG" if left_out.unreadable else "put them into class-name/picture.png",
        )
    return search


def _find(search: Search, arrangement: Arrangement) -> Layout:
    keeps_splits = arrangement not in ("classes", "groups")
    root = _shared_folders(search.filled, keeps_splits)
    tops = search.tops(root)
    match arrangement:
        case "classes":
            return _classes(search, root)
        case "groups":
            return _classes(search, root + 1)
        case "names":
            return _names(search, root, splits_of(tops))
    if splits := splits_of(tops):
        return _splits(search, root, splits, is_found=arrangement == "auto")
    if arrangement == "splits":
        search.refuse(f"has no splits, but {', '.join(tops) or 'no folders'}", "name them train, val and test")
    if are_folds(tops):
        refuse_folds(search, root, tops)
    if len(search.filled) == 1 and _classes_in_names(search, search.filled):
        return _names(search, root, {})
    if root < min(map(len, search.filled)):
        refuse_second_reading(search, root, tops)
    return _classes(search, root)


def _shared_folders(filled: list[list[str]], keeps_splits: bool) -> int:
    """Return the number of leading folders that only contain the splits or classes."""
    root = 0
    while True:
        firsts = {parts[root] if len(parts) > root + 1 else None for parts in filled}
        first = firsts.pop()
        if firsts or first is None or (keeps_splits and split_of(first)):
            return root
        root += 1


def _classes(search: Search, root: int) -> Layout:
    """Return the layout whose classes are the folders at this depth."""
    search.require_folders(root)
    return Layout(root=root, has_splits=False)


def _splits(search: Search, root: int, splits: Mapping[str, str], is_found: bool) -> Layout:
    """Return the layout whose top folders are splits."""
    _check_splits(search, root, splits)
    search.require_folders(root)
    below = {top: _below(top, search.under(top, root)) for top in splits}
    train = next(top for top, split in splits.items() if split == "train")
    if _is_flat(search, root, train, below[train]):
        return _names(search, root, splits)
    classes = {parts[below[train]] for parts in search.under(train, root) if len(parts) > below[train]}
    if is_found:
        refuse_second_reading_of(search, root, train, below[train])
    unlabelled = [top for top, split in splits.items() if split == NO_LABELS]
    tests = [top for top, split in splits.items() if split == "test"]
    unlabelled += [top for top in tests if _has_no_labels(search, root, top, below[top], classes)]
    for top in splits.keys() - set(unlabelled):
        for parts in search.under(top, root):
            if len(parts) <= below[top]:
                search.refuse_loose("/".join([*search.filled[0][:root], top, *parts]))
    return _layout_of_splits(root, splits, below, unlabelled)


def _layout_of_splits(
    root: int, splits: Mapping[str, str], below: Mapping[str, int], unlabelled: Iterable[str], **classes_in: bool
) -> Layout:
    labelled = {top: split for top, split in splits.items() if top not in unlabelled}
    is_usual = all(top.lower() in SPLIT_NAMES for top in labelled)
    return Layout(
        root=root,
        has_splits=True,
        splits={} if is_usual else labelled,
        below={top: depth for top, depth in below.items() if depth and top in labelled},
        unlabelled=sorted(unlabelled),
        **classes_in,
    )


def _check_splits(search: Search, root: int, splits: Mapping[str, str]) -> None:
    """Raise UserError if two folders are the same split, or none is for training."""
    tops: dict[str, list[str]] = defaultdict(list)
    for top, split in splits.items():
        tops[split].append(top)
    if "train" not in tops:
        search.refuse(
            f"has {', '.join(sorted(splits))} without train",
            "add train/class-name/picture.png, or set data_layout=classes if these folders are classes",
        )
    for split, same in tops.items():
        if len(same) > 1 and split != NO_LABELS:
            search.refuse(f"has {' and '.join(same)}, which are both the {split} split", "put them into one folder")


def _below(top: str, under: list[list[str]]) -> int:
    """Return the number of folders between a split and its classes, such as 1 in seg_train/seg_train/cat."""
    below = 0
    while all(len(parts) > below for parts in under):
        first, *others = {parts[below] for parts in under}
        if others or not leads_on(first, top):
            break
        below += 1
    return below


def _is_flat(search: Search, root: int, top: str, below: int) -> bool:
    return all(len(parts) <= below for parts in search.under(top, root))


def _has_no_labels(search: Search, root: int, top: str, below: int, classes: Iterable[str]) -> bool:
    """Return whether all pictures of a test split are in no class folder, or in one named `unknown`."""
    found = {parts[below] if len(parts) > below else "" for parts in search.under(top, root)}
    return all(not name or name.casefold() == "unknown" for name in found - set(classes)) and not found & set(classes)


def _names(search: Search, root: int, splits: Mapping[str, str]) -> Layout:
    """Return the layout whose classes are the beginnings of the pictures' names."""
    if not splits:
        if not _classes_in_names(search, search.filled):
            search.refuse_loose("/".join(search.filled[0]))
        return Layout(root=root, has_splits=False, in_names=True)
    _check_splits(search, root, splits)
    search.require_folders(root)
    folders = {top: [parts for parts in search.filled if len(parts) > root and parts[root] == top] for top in splits}
    train = next(top for top, split in splits.items() if split == "train")
    classes = _classes_in_names(search, folders[train])
    if not classes:
        search.refuse_loose("/".join(folders[train][0]))
    unlabelled = [top for top in splits if _classes_in_names(search, folders[top]) != classes]
    for top in unlabelled:
        if splits[top] not in ("test", NO_LABELS):
            search.refuse_loose("/".join(folders[top][0]))
    return _layout_of_splits(root, splits, {}, unlabelled, in_names=True)


def _classes_in_names(search: Search, folders: Iterable[list[str]]) -> set[str]:
    """Return the classes in the names of the pictures in these folders; nothing if they show none."""
    total: Counter[str] = Counter()
    for parts in folders:
        named = search.survey.named("/".join(parts))
        if not named:
            return set()
        total += named
    return set(total) if len(total) > 1 and min(total.values()) > 1 else set()


def _count(layout: Layout, search: Search) -> Counts:
    """Return the pictures of each class; folders without any are classes, too."""
    prefix = search.filled[0][: layout.root]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for folder, count in search.survey.folders.items():
        if folder.split("/")[: layout.root] != prefix and search.survey.folders[folder] == 0:
            continue
        if layout.is_unlabelled(folder + "/"):
            continue
        for name, number in search.survey.named(folder).items() if layout.in_names else [(folder + "/", count)]:
            try:
                split, class_name = layout.locate(f"{folder}/{name} 1.png" if layout.in_names else name)
            except LookupError:
                continue
            counts[split][class_name] += number
    return {split: dict(sorted(classes.items())) for split, classes in sorted(counts.items())}


def _check_classes(search: Search, counts: Mapping[str, Mapping[str, int]]) -> None:
    classes = sorted({name for found in counts.values() for name in found})
    for split, found in counts.items():
        empty = [name for name in classes if not found.get(name)]
        if empty:
            where = search.besides if split == NO_SPLITS else f" in {split}{search.besides}"
            search.refuse(f"has no picture of class {empty[0]!r}{where}", "add some, or remove the class")
    if not classes:
        search.refuse("holds no picture that the table names", "check the names in it")
    if len(classes) < 2:
        tables = search.survey.tables
        hint = f", or set labels={tables[0]} if that file says the classes" if tables else ""
        search.refuse(f"holds one class only ({classes[0]!r})", f"give a data set of two or more classes{hint}")


def _leave_out(survey: Survey, layout: Layout, top: str) -> None:
    """Count the pictures of a folder without labels as left out."""
    for folder, count in survey.folders.items():
        if count and layout.is_unlabelled(folder + "/") and folder.split("/")[layout.root] == top:
            survey.left_out.add("unlabelled", f"in {top}", f"{folder}/", count)
            survey.folders[folder] = 0
