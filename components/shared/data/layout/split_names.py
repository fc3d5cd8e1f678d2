"""The usual names of the folders of splits, in any case and spelling: TRAIN, training_set, seg_train, hold-out, dev."""

import re
from collections.abc import Collection, Mapping

NO_LABELS = "unlabelled"  # the folder of pictures whose classes are to be guessed
EITHER = "val or test"
WORDS = {
    **dict.fromkeys(("train", "training", "trn", "learn", "learning"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validating", "validation", "dev", "devel", "development"), "val"),
    **dict.fromkeys(("test", "testing", "tests", "tst", "holdout", "heldout"), "test"),
    **dict.fromkeys(("eval", "evaluate", "evaluation"), EITHER),
    **dict.fromkeys(("pred", "predict", "prediction", "unlabelled", "unlabeled", "submission"), NO_LABELS),
}
BESIDE_CLASSES = ("train", "test", "val", EITHER, NO_LABELS)  # the order in which folders that are no classes are named
ALSO_CLASSES = {"valid", "dev", "devel", "development", "pred", "predict", "prediction", "evaluate", "evaluation"}
FILLERS = (
    "set",
    "data",
    "dataset",
    "split",
    "subset",
    "image",
    "images",
    "img",
    "imgs",
    "picture",
    "pictures",
    "photos",
)
FOLD = re.compile(r"(k?fold|cv|split)[\W_]*\d+", re.I)


def split_of(name: str) -> str:
    """Return the split whose usual name a folder has; nothing if it has none."""
    return _split_of(_words(name))


def splits_of(names: Collection[str]) -> dict[str, str]:
    """Return the split of each of the folders that lie side by side; nothing if they are not all named like splits.

    What all names have in common says nothing: seg_train and seg_test are train and test.
    """
    words = {name: _words(name) for name in names}
    common = set.intersection(*map(set, words.values())) if len(words) > 1 else set()
    for ignored in (set(), common):
        found = {name: _split_of([word for word in own if word not in ignored]) for name, own in words.items()}
        if found and all(found.values()):
            return _decided(found)
    return {}


def beside_classes(under: Mapping[str, Collection[str]]) -> list[str]:
    """Return which of some folders are splits, though not all have such names; `under` has their sub-folders.

    A name that may be a class as well, such as `valid`, tells only if the classes are below it again.
    """
    found = [
        name
        for name, inner in under.items()
        if split_of(name) and (not ALSO_CLASSES & {*_words(name)} or {*inner} & (under.keys() - {name}))
    ]
    return sorted(found, key=lambda name: BESIDE_CLASSES.index(split_of(name)))


def are_folds(names: Collection[str]) -> bool:
    """Return whether folders are the folds of a cross-validation."""
    return len(names) > 1 and all(FOLD.fullmatch(name) for name in names)


def leads_on(name: str, above: str) -> bool:
    """Return whether a folder only repeats the one above it, as in seg_train/seg_train, or says that it has images."""
    words, split = _words(name), split_of(name)
    says_images = bool(words) and all(word in FILLERS for word in words)
    return name.casefold() == above.casefold() or (split != "" and split == split_of(above)) or says_images


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", name.casefold())


def _split_of(words: list[str]) -> str:
    text = "".join(word for word in words if word not in FILLERS)
    shortened = (text.removesuffix(filler) for filler in FILLERS)
    return WORDS.get(text) or next((WORDS[word] for word in shortened if word in WORDS), "")


def _decided(found: Mapping[str, str]) -> dict[str, str]:
    """Return the splits, where `eval` is the test split if there is another one for validation."""
    either = "test" if "val" in found.values() else "val"
    return {name: either if split == EITHER else split for name, split in found.items()}
