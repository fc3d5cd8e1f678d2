"""The names of the container images in which steps run in a cluster."""

import json
from functools import cache
from pathlib import Path

from components.shared.core.code_digest import code_version
from components.shared.core.files import sha256_json

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "build" / "images.json"  # written by `make push`


def image(name: str, record: Path = RECORD) -> str:
    """Return the image `data` or `torch` of the current version: by digest if `record` holds its push, else by tag.

    The tag is the version: KFP's cache knows an image by its name only, and must not outlive the image's content.
    """
    version = image_version()
    if record.is_file():
        pushed = json.loads(record.read_text())
        if pushed["version"] == version:
            return str(pushed["images"][name])
    return f"torch2kubeflow/{name}:{version}"


@cache
def image_version() -> str:
    """Return the version of the images: 12 digits of a hash over the code, the Dockerfile and the lock files."""
    recipe = sorted(path for path in (ROOT / "docker").glob("*") if path.suffix != ".in")
    return sha256_json([code_version(), *((path.name, path.read_text()) for path in recipe)])[:12]


def is_pinned(name: str) -> bool:
    """Return whether an image is named by its digest."""
    return "@sha256:" in name
