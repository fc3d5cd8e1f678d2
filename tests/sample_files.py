"""Small files for tests to serve and to read, and digests of them."""

import hashlib
import io
import tarfile
from typing import Literal

import numpy as np
from PIL import Image


def sha256(body: bytes) -> str:
    """Return the SHA-256 as hexadecimal digits."""
    return hashlib.sha256(body).hexdigest()


def picture(seed: int) -> bytes:
    """Return a small PNG, a different one for every seed."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8), np.uint8)).save(file, "PNG")
    return file.getvalue()


TarMode = Literal["w", "w:gz", "w:bz2", "w:xz"]


def tar_bytes(files: dict[str, bytes], mode: TarMode = "w:gz") -> bytes:
    """Return a tar archive of the files (name -> bytes)."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode=mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return archive.getvalue()
