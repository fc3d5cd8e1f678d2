"""The layout of pictures in folders: which folders are splits, which are classes, and which only contain those."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from components.shared.core.document import Count, Part
from components.shared.core.errors import UserError
from components.shared.data.layout.file_kinds import PICTURES
from components.shared.data.layout.left_out import LeftOut

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
NO_SPLITS = "all"


class Layout(Part):
    """All pictures share `root` leading folders; below those are splits, if there are any, and classes."""

    root: Count
    has_splits: bool

    def locate(self, name: str) -> tuple[str, str]:
        """Return the split and the class of a picture by its name; the split is `all` if there are no splits."""
        parts = name.split("/")[self.root :]
        return (SPLIT_NAMES[parts[0].lower()], parts[1]) if self.has_splits else (NO_SPLITS, parts[0])


def find_layout(source: str, folders: Mapping[str, int], left_out: LeftOut) -> tuple[Layout, dict[str, dict[str, int]]]:
    """Return the layout, found from each folder's number of pictures, and the counts: split -> class -> pictures.

    Raises UserError, naming `source`, if there are no pictures, some are in no class folder, a class is empty, or there
    is only one class.
    """
    filled = [folder.split("/") if folder else [] for folder, count in folders.items() if count]
    besides = f" ({left_out.sentences()[0]})" if left_out.unreadable else ""
    if not filled:
        raise UserError(
            f"{source} holds no pictures that can be read ({', '.join(PICTURES)}){besides}",
            "convert them to PNG or JPEG" if left_out.unreadable else "put them into class-name/picture.png",
        )
    root = _shared_folders(filled)
    tops = {parts[root].lower() for parts in filled if len(parts) > root}
    if tops and "train" not in tops and tops <= SPLIT_NAMES.keys():
        raise UserError(f"{source} has {', '.join(sorted(tops))} without train", "add train/class-name/picture.png")
    layout = Layout(root=root, has_splits="train" in tops and tops <= SPLIT_NAMES.keys())
    depth = root + (2 if layout.has_splits else 1)
    for parts in filled:
        if len(parts) < depth:
            where = "/".join(parts) or "its top folder"
            raise UserError(f"{source} holds pictures in {where}, outside a class", "put them into class-name/")
    if "train" in tops and not layout.has_splits:
        others = ", ".join(sorted(tops - SPLIT_NAMES.keys()))
        raise UserError(f"{source} has {others} alongside train", "leave only train, val and test there")
    counts = _count(layout, folders, depth)
    _check_classes(source, counts, besides)
    return layout, counts


def _shared_folders(filled: list[list[str]]) -> int:
    """Return the number of leading folders that only contain the splits or classes."""
    root = 0
    while True:
        firsts = {parts[root] if len(parts) > root + 1 else None for parts in filled}
        first = firsts.pop()
        if firsts or first is None or first.lower() in SPLIT_NAMES:
            return root
        root += 1


def _count(layout: Layout, folders: Mapping[str, int], depth: int) -> dict[str, dict[str, int]]:
    filled = next(folder for folder, count in folders.items() if count)
    prefix = filled.split("/")[: layout.root]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for folder, count in folders.items():
        parts = folder.split("/")
        known = not layout.has_splits or (len(parts) > layout.root and parts[layout.root].lower() in SPLIT_NAMES)
        if len(parts) >= depth and parts[: layout.root] == prefix and known:
            split, name = layout.locate(folder + "/")
            counts[split][name] += count
    return {split: dict(sorted(classes.items())) for split, classes in sorted(counts.items())}


def _check_classes(source: str, counts: Mapping[str, Mapping[str, int]], besides: str) -> None:
    classes = _class_names(counts)
    for split, found in counts.items():
        empty = sorted(name for name in classes if not found.get(name))
        if empty:
            where = "" if split == NO_SPLITS else f" in {split}"
            raise UserError(
                f"{source} has no picture of class {empty[0]!r}{where}{besides}", "add some, or remove the class"
            )
    if len(classes) < 2:
        raise UserError(f"{source} holds one class only ({classes[0]!r})", "give a data set of two or more classes")


def _class_names(counts: Mapping[str, Iterable[str]]) -> list[str]:
    return sorted({name for found in counts.values() for name in found})
