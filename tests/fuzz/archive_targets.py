"""The readers of archives, and of names in them, each with small valid inputs."""

import io
import json
import tarfile
import zipfile
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path, PurePosixPath

import numpy as np

from components.download import download
from components.shared.data.layout.reading import Reading
from components.shared.data.raw import open_raw
from components.shared.data.sources.archive import members
from components.shared.data.sources.http import served_name
from components.shared.data.sources.idx import write_idx
from components.shared.data.sources.packing import describe_archive
from components.shared.data.sources.schemes import open_source
from components.shared.parameters.preparation import ReadingRecipe
from tests.fuzz.mutations import parsed, sealed_tar
from tests.fuzz.target import Target
from tests.sample_files import TarMode, picture, tar_bytes, zip_bytes

IMAGES = np.arange(4 * 8 * 8, dtype=np.uint8).reshape(4, 8, 8)
LABELS = np.array([0, 1, 1, 0], np.uint8)
FILES = {"train/a/1.png": picture(1), "train/b/2.png": picture(2), "test/a/3.png": picture(3), "test/b/4.png": b""}
PETS = {"cat/1.png": picture(1), "dog/1.png": picture(2)}


def archive(suffix: str, folder: Path) -> Target:
    """An archive of any kind; the checksums of a tar's headers are made valid."""
    path = folder / f"download{suffix}"

    def read(content: bytes) -> None:
        path.write_bytes(sealed_tar(content) if suffix == ".tar" else content)
        for member in members(path):
            assert_inside(member.name)
            if not member.is_folder:
                with member.open() as file:
                    while file.read(2**20):
                        pass

    if suffix == ".zip":
        return Target(_zips(), read)
    mode: dict[str, TarMode] = {
        ".tar": "w",
        ".tar.gz": "w:gz",
        ".tar.bz2": "w:bz2",
        ".tar.xz": "w:xz",
        ".tar.zst": "w:zst",
    }
    seeds = [tar_bytes(FILES, mode[suffix])]
    return Target(seeds if suffix != ".tar" else [*seeds, _tar_of_links(), _tar_of_links(tarfile.GNU_FORMAT)], read)


def _tar_of_links(form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar with links, and with names that are not UTF-8 if the format does not say so."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as tar:
        for name in ("狗/1.png", "cat/1.png"):
            info = tarfile.TarInfo(name.encode("gbk").decode("utf-8", "surrogateescape"))
            info.size = len(picture(1))
            tar.addfile(info, io.BytesIO(picture(1)))
        for name, kind, target in (("fox", tarfile.SYMTYPE, "./cat"), ("ape/1.png", tarfile.LNKTYPE, "cat/1.png")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    return packed.getvalue()


def _zips() -> list[bytes]:
    seeds = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", method) as whole:
            for name, content in FILES.items():
                whole.writestr(name, content)
        seeds.append(file.getvalue())
    link = io.BytesIO()
    with zipfile.ZipFile(link, "w") as whole:
        info = zipfile.ZipInfo("fox")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        whole.writestr(info, "train/a")
        whole.writestr("train/a/1.png", picture(1))
    return [*seeds, link.getvalue(), zip_bytes({"猫/1.png".encode("gbk"): picture(1), rb"cat\1.png": picture(2)})]


def nested_archives(folder: Path) -> Target:
    """An archive within an archive, as `download` reads it."""
    (folder / "raw").mkdir()

    def read(content: bytes) -> None:
        path = folder / "raw" / "download.zip"
        path.write_bytes(_pack(".zip", [("train.zip", content), ("test.tar.gz", tar_bytes(PETS))]))
        with redirect_stdout(io.StringIO()):
            described = describe_archive(path, "given.zip", Reading())
        assert set(described["counts"]) <= {"train", "test", "all", "val"}

    return Target([_pack(".zip", [*PETS.items()]), tar_bytes(PETS, "w")], read)


def name_from_server(folder: Path) -> Target:
    """The header with the name of a download."""

    def read(content: bytes) -> None:
        name = served_name(content.decode("latin-1"), "https://example.org/a")
        assert "/" not in name and name.isprintable() and len(name) <= 200

    return Target([b'attachment; filename="a.zip"', b"attachment; filename*=UTF-8''%E7%8C%AB.zip; filename*0=a"], read)


def names_in_archives(suffix: str, folder: Path) -> Target:
    """The names in an archive, of pictures and of IDX files, as `download` uses them in its folder."""
    path, recipe = folder / f"given{suffix}", ReadingRecipe().text()
    write_idx(folder / "images", IMAGES)
    write_idx(folder / "labels", LABELS)
    contents = {
        "png": picture(1),
        "images": (folder / "images").read_bytes(),
        "labels": (folder / "labels").read_bytes(),
    }

    def read(content: bytes) -> None:
        found = parsed(content)
        names = [name for name in found if isinstance(name, str)] if isinstance(found, list | dict) else []
        kinds = [next((kind for kind in contents if kind in name), "png") for name in names]
        with suppress(ValueError):  # the archive's writer refuses a name
            path.write_bytes(_pack(suffix, [(name, contents[kind]) for name, kind in zip(names, kinds, strict=True)]))
        with redirect_stdout(io.StringIO()):
            download(
                data=str(path),
                version=open_source(str(path)).version(),
                recipe=recipe,
                needs_labels=True,
                raw=str(folder / "raw"),
            )
        raw = open_raw(folder / "raw")
        assert sum(len(chunk.labels) for chunk in raw.chunks(3)) == sum(raw.counts.values())

    idx_names = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "x/t10k-images-idx3-ubyte"]
    seeds = [[*FILES], ["c0/1.png", "c1/2.png"], [*idx_names, "x/t10k-labels-idx1-ubyte", "readme.txt"]]
    return Target([json.dumps(seed).encode() for seed in seeds], read)


def _pack(suffix: str, files: Sequence[tuple[str, bytes]]) -> bytes:
    packed = io.BytesIO()
    if suffix == ".zip":
        with zipfile.ZipFile(packed, "w") as whole:
            for name, content in dict(files).items():
                whole.writestr(zipfile.ZipInfo(name[:9999]), content)
    else:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name, content in files:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def assert_inside(name: str) -> None:
    """Fail if a name leads outside the folder that it is relative to."""
    assert name and ".." not in PurePosixPath(name).parts and not PurePosixPath(name).is_absolute()
