"""Source URI -> raw files, verified: the catalogue, https, folders and archives."""

import os
import re
import shutil
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.core.files import Document, new_folder
from components.shared.core.step import step
from components.shared.data.raw import MAX_PICTURE_BYTES, write_raw
from components.shared.data.sources.archive import SUFFIXES, Member, is_archive, members
from components.shared.data.sources.catalogue import CATALOGUE, DIGITS
from components.shared.data.sources.folder_layout import NO_SPLITS, find_layout, is_picture
from components.shared.data.sources.http import fetch_url
from components.shared.data.sources.idx import open_idx, write_idx
from components.shared.data.sources.mirrors import fetch_entry
from components.shared.data.sources.s3 import open_object, open_source, s3_members
from components.shared.data.sources.schemes import find_source, version_of
from components.shared.storage.client import Store

IDX_NAME = re.compile(r"(train|val|t10k|test)-(images[.-]idx3|labels[.-]idx1)-ubyte(\.gz)?")
IDX_SPLITS = {"train": "train", "val": "val", "t10k": "test", "test": "test"}
IDX_BLOCK = 1 << 16
SHARD_BYTES = 256 * 2**20


@step
def download(*, data: str, version: str, raw: str) -> None:
    """Fetch the raw files of the data set `data` into the folder `raw`, verified and described by `raw.json`.

    `version` is what resolve found. UserError where the name, scheme or folder is unknown, no mirror can be used, a
    digest differs, an archive is not safe, the data is no classification set, or it is of another version by now.
    """
    started = time.monotonic()
    with new_folder(raw) as folder:
        source = find_source(data)
        found = _FETCH[source.kind](source.place, folder)
        present = found.pop("version", None) or version_of(source)
        if present != version:
            raise UserError(f"data={data} was {version} when the run began and is {present} now; run it again")
        log.info(f"{found['name']}: {sum(found['counts'].values()):,} images of {len(found['classes'])} classes")
        write_raw(folder, source=data, version=version, seconds=round(time.monotonic() - started, 3), **found)


def _digits(_: str, folder: Path) -> dict[str, Any]:
    """The 8 x 8 digits of scikit-learn (Alpaydin and Kaynak 1998), their 0..16 scaled to 0..255."""
    from sklearn.datasets import load_digits  # a second to import, and of use here only

    found = load_digits()
    write_idx(folder / "all-images-idx3-ubyte", np.round(found.images * (255 / 16)).astype(np.uint8))
    write_idx(folder / "all-labels-idx1-ubyte", found.target.astype(np.uint8))
    return _describe_idx(folder, "scikit-learn's digits", DIGITS)


def _from_catalogue(name: str, folder: Path) -> dict[str, Any]:
    entry = CATALOGUE[name]
    for file, path in fetch_entry(name, entry).items():
        shutil.copyfile(path, folder / file)
    if entry.kind == "idx":
        return _describe_idx(folder, entry.title, entry.classes)
    counts = {"train": 50_000, "test": 10_000}
    files = [file.name for file in entry.files]
    return {"name": entry.title, "kind": entry.kind, "classes": entry.classes, "counts": counts, "files": files}


def _from_url(url: str, folder: Path) -> dict[str, Any]:
    name = unquote(urlsplit(url).path).rsplit("/", 1)[-1]
    path, digest, version = fetch_url(url)
    log.info(f"{name} sha256={digest}")
    return _describe(_keep(path, name, folder), url, folder) | {"source_sha256": digest, "version": version}


def _from_path(place: str, folder: Path) -> dict[str, Any]:
    path = Path(place)
    return _describe(path if path.is_dir() else _keep(path, path.name, folder), place, folder)


def _from_s3(uri: str, folder: Path) -> dict[str, Any]:
    if not is_archive(Path(uri)):
        return _describe(open_source(uri), uri, folder)
    store, name = open_object(uri)
    copy = _place_of(name, folder)
    store.get_file(name, copy)
    return _describe(copy, uri, folder)


_FETCH: dict[str, Callable[[str, Path], dict[str, Any]]] = {
    "digits": _digits,
    "catalogue": _from_catalogue,
    "url": _from_url,
    "s3": _from_s3,
    "path": _from_path,
}


def _keep(archive: Path, name: str, folder: Path) -> Path:
    """Copy an archive called `name` into `folder`."""
    copy = _place_of(name, folder)
    shutil.copyfile(archive, copy)
    return copy


def _place_of(archive: str, folder: Path) -> Path:
    """Where an archive of that name goes in `folder`: a name of ours, with the suffix that tells its kind."""
    return folder / f"download{''.join(suffix for suffix in SUFFIXES if archive.lower().endswith(suffix))}"


def _members(place: Path | Store, read: bool = False) -> Iterator[Member]:
    return members(place) if isinstance(place, Path) else s3_members(place, read)


def _describe(place: Path | Store, source: str, folder: Path) -> dict[str, Any]:
    """Look at what a folder, an archive or S3 holds, keep it in `folder`, and describe it."""
    folders: Counter[str] = Counter()
    idx = False
    for member in _members(place):
        parent = member.name.rstrip("/").rpartition("/")[0]
        idx |= IDX_NAME.fullmatch(member.name.rpartition("/")[2]) is not None
        if member.is_folder:
            folders[member.name.rstrip("/")] += 0
        elif is_picture(member.name):
            if member.size > MAX_PICTURE_BYTES:
                raise UserError(f"{source} holds {member.name} of {member.size:,} bytes; {MAX_PICTURE_BYTES:,} at most")
            folders[parent] += 1
    name = Path(urlsplit(source).path).name or source
    if idx and not sum(folders.values()):
        return _take_idx(place, name, folder)
    layout, counts = find_layout(source, folders)
    total = sum(folders.values())
    if isinstance(place, Path) and place.is_file():
        files = [place.name]
    else:
        files = _pack(_members(place, read=True), name, folder, total)
    return {
        "name": name,
        "kind": "pictures",
        "classes": sorted({name for found in counts.values() for name in found}),
        "counts": {split: sum(found.values()) for split, found in counts.items()},
        "files": files,
        "layout": {"root": layout.root, "has_splits": layout.has_splits},
    }


def _pack(there: Iterator[Member], name: str, folder: Path, total: int) -> list[str]:
    """Pack pictures into few tar shards, the same bytes for the same pictures."""
    progress = log.Progress(f"pack {name}", total, "pictures")
    shards: list[str] = []
    found = (member for member in there if not member.is_folder and is_picture(member.name))
    member = next(found, None)
    while member:
        shards.append(f"pictures-{len(shards):05}.tar")
        written = 0
        with tarfile.open(folder / shards[-1], "w", format=tarfile.PAX_FORMAT) as shard:
            while member and written < SHARD_BYTES:
                written += _add(shard, member)
                progress.advance(1)
                member = next(found, None)
    return shards


def _add(shard: tarfile.TarFile, member: Member) -> int:
    info = tarfile.TarInfo(member.name)
    info.size = member.size
    with member.open() as content:
        shard.addfile(info, content)
    return member.size


def _take_idx(place: Path | Store, name: str, folder: Path) -> dict[str, Any]:
    """Copy the IDX files out of a folder or archive."""
    for member in _members(place):
        base = member.name.rpartition("/")[2]
        if IDX_NAME.fullmatch(base):
            path = folder / base.replace(".idx", "-idx")
            if path.exists():
                raise UserError(f"{name} holds {path.name} twice; give the folder or archive of one data set")
            with member.open() as content, open(path, "wb") as copy:
                shutil.copyfileobj(content, copy)
    found = _describe_idx(folder, name, None)
    for extra in set(os.listdir(folder)) - set(found["files"]):  # the archive, and .gz twins of files
        os.remove(folder / extra)
    return found


def _describe_idx(folder: Path, name: str, classes: tuple[str, ...] | None) -> dict[str, Any]:
    """Describe the IDX files in `folder`; without `classes`, they are the numbers up to the largest label."""
    splits: dict[str, Document] = {}
    counts, largest = {}, 0
    for images in sorted(folder.glob("*-images-idx3-ubyte*"), reverse=True):  # train before test
        prefix, _, rest = images.name.partition("-images-idx3")
        labels = folder / f"{prefix}-labels-idx1{rest}"
        if not labels.is_file():
            raise UserError(f"{name} has {images.name} without {labels.name}; add it")
        split = IDX_SPLITS.get(prefix, NO_SPLITS)
        marks = open_idx(labels, 1)
        counts[split] = open_idx(images, 3).shape[0]
        largest = max(largest, *(int(block.max()) for block in marks.rows(IDX_BLOCK)))
        splits[split] = {"images": images.name, "labels": labels.name}
    if not splits.keys() & {"train", NO_SPLITS}:
        raise UserError(f"{name} has no train-images-idx3-ubyte; add it and its labels")
    if classes is None and largest == 0:
        raise UserError(f"{name} holds one class only (label 0); a classifier needs two or more")
    return {
        "name": name,
        "kind": "idx",
        "classes": classes or tuple(str(label) for label in range(largest + 1)),
        "counts": counts,
        "files": [pair[role] for pair in splits.values() for role in ("images", "labels")],
        "splits": splits,
    }
