"""Folders that can be read in two ways: refused, with both readings."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import NoReturn

from components.shared.data.layout.search import Search
from components.shared.data.layout.split_names import beside_classes, leads_on, splits_of

SAME_SHARE = 0.5  # of a folder's sub-folders, from which on they are those of the other folders


def refuse_folds(search: Search, root: int, tops: list[str]) -> NoReturn:
    inner = {parts[0] for top in tops for parts in search.under(top, root) if parts}
    remedy = "name one of them test and put the others into train, or set data_layout=groups to pool all of them"
    if splits_of(inner):
        remedy = f"give one of them as data=, such as {tops[0]}"
    search.refuse(f"has the folds {', '.join(tops)} of a cross-validation: pick one by hand", remedy)


def refuse_second_reading(search: Search, root: int, tops: list[str]) -> None:
    """Raise UserError if the top folders may be splits or groups as well as classes."""
    under = {top: {parts[0] for parts in search.under(top, root) if parts} for top in tops}
    if alone := beside_classes(under):
        others = ", ".join(top for top in tops if top not in alone)
        search.refuse(
            f"has {others} alongside {alone[0]}",
            "leave only train, val and test there, or set data_layout=classes if all these folders are classes",
        )
    below = {name: split for names in under.values() for name, split in splits_of(names).items()}
    if "train" in below.values():
        _refuse_splits_below(search, root, tops, sorted(below))
    if len(_alike(under)) > 1:
        inner = sorted({name for names in under.values() for name in names})
        search.refuse(
            f"may be read in two ways: data_layout=classes takes the top folders for the classes ({_shown(tops)}), "
            f"data_layout=groups their sub-folders, many of which have the same names ({_shown(inner)})",
            "set one of the two, or name the top folders train, val and test if they are splits",
        )


def refuse_second_reading_of(search: Search, root: int, train: str, below: int) -> None:
    """Raise UserError if the folders in the training split may be groups as well as classes."""
    under: dict[str, set[str]] = {}
    for parts in search.under(train, root):
        under.setdefault("/".join(parts[below : below + 1]), set()).update(parts[below + 1 : below + 2])
    if len(_alike(under)) > 1:
        inner = sorted({name for names in under.values() for name in names})
        search.refuse(
            f"may be read in two ways: the classes are the folders in {train} ({_shown(sorted(under))}), or their "
            f"sub-folders, many of which have the same names ({_shown(inner)})",
            "set data_layout=splits for the first, or put the pictures of each class into one folder of each split",
        )


def _refuse_splits_below(search: Search, root: int, tops: list[str], inner: list[str]) -> NoReturn:
    if len(tops) == 1:  # which would have been passed over but for loose pictures in it
        search.refuse_loose("/".join([*search.filled[0][:root], *tops]))
    search.refuse(
        f"has the splits {_shown(inner)} below {_shown(tops)}",
        f"turn the folders round, as in {inner[0]}/{tops[0]}, or give one of them as data=, or set "
        "data_layout=classes to draw new splits",
    )


def _alike(under: Mapping[str, Collection[str]]) -> list[str]:
    """Return the folders of which many sub-folders have names that are in others, too, if there are two such names."""
    telling = {top: {name for name in names if not leads_on(name, top)} for top, names in under.items()}
    times = Counter(name for names in telling.values() for name in names)
    shared = {top: sum(times[name] > 1 for name in names) for top, names in telling.items()}
    return [top for top, names in telling.items() if shared[top] >= max(1, SAME_SHARE * len(names)) and len(times) > 1]


def _shown(names: list[str]) -> str:
    return ", ".join(names[:5]) + ", ..." * (len(names) > 5)
