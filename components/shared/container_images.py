"""The names of the images in which steps run in a cluster."""

import json
from functools import cache
from pathlib import Path

from components.shared.core.code_digest import code_version
from components.shared.core.files import sha256_json

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "build" / "images.json"  # written by `make push`


def image(name: str, record: Path = RECORD) -> str:
    """The image `data` or `torch` of the present version: by digest where `record` holds its push, else by tag.

    A tag is that version, so KFP's cache, which knows an image by its name alone, never outlives what is in the image.
    """
    version = image_version()
    if record.is_file():
        pushed = json.loads(record.read_text())
        if pushed["version"] == version:
            return str(pushed["images"][name])
    return f"torch2kubeflow/{name}:{version}"


@cache
def image_version() -> str:
    """Twelve hexadecimal digits over what the images are made of: the code, the Dockerfile and the locks."""
    recipe = sorted(path for path in (ROOT / "docker").glob("*") if path.suffix != ".in")
    return sha256_json([code_version(), *((path.name, path.read_text()) for path in recipe)])[:12]


def is_pinned(name: str) -> bool:
    """Whether an image is named by its digest."""
    return "@sha256:" in name
