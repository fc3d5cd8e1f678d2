"""Small files for tests to serve and to read, and digests of them."""

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
from backports import zstd
from PIL import Image


def sha256(body: bytes) -> str:
    """Return the SHA-256 as hexadecimal digits."""
    return hashlib.sha256(body).hexdigest()


def picture(seed: int) -> bytes:
    """Return a small PNG, a different one for every seed."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8), np.uint8)).save(file, "PNG")
    return file.getvalue()


TarMode = Literal["w", "w:gz", "w:bz2", "w:xz", "w:zst"]


def tar_bytes(files: dict[str, bytes], mode: TarMode = "w:gz") -> bytes:
    """Return a tar archive of the files (name -> bytes)."""
    if mode == "w:zst":
        return zstd.compress(tar_bytes(files, "w"))
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode=mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return archive.getvalue()


def zip_bytes(files: dict[bytes, bytes], extra: bytes = b"") -> bytes:
    """Return a zip archive whose names (in bytes, up to 65,535 letters) are written as they are, without the flag."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        for number, (name, content) in enumerate(files.items()):
            info = zipfile.ZipInfo(f"{number:\x01>{len(name)}}")  # of the same length, to be replaced
            info.extra = extra
            out.writestr(info, content)
    packed = archive.getvalue()
    for number, name in enumerate(files):
        packed = packed.replace(f"{number:\x01>{len(name)}}".encode(), name)
    return packed


def packed(folder: Path, files: dict[str, bytes], how: str) -> Path:
    """Write the files (name -> bytes) to a new folder `pets` or an archive pets.zip or pets.tar.gz, and return it."""
    path = folder / ("pets" if how == "folder" else f"pets.{how}")
    if how == "folder":
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    elif how == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        path.write_bytes(tar_bytes(files))
    return path
