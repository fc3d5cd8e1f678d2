"""The names of the container images in which steps run in a cluster."""

import json
import re
from functools import cache
from pathlib import Path

from components.shared.core.code_digest import code_version
from components.shared.core.errors import UserError
from components.shared.core.files import sha256_json

ROOT = Path(__file__).parents[2]
NAMES = ("data", "serve", "torch")
PINNED = re.compile(r"[a-z0-9.:/_-]+@sha256:[0-9a-f]{64}")
RECORD = ROOT / "build" / "images.json"  # written by `make push`


def image(name: str, record: Path = RECORD) -> str:
    """Return an image of the current version, such as `data`: by digest if `record` holds its push, else by tag.

    The tag is the version: KFP's cache knows an image by its name only, and must not outlive the image's content.
    """
    version = image_version()
    pushed = _read(record) if record.is_file() else {}
    return pushed[version][name] if version in pushed else f"torch2kubeflow/{name}:{version}"


def _read(record: Path) -> dict[str, dict[str, str]]:
    """Return the pushed images by their version. Raises UserError if the record is damaged."""
    try:
        found = json.loads(record.read_bytes())
        names = NAMES if found["version"] == image_version() else found["images"]  # earlier code had fewer
        images = {name: found["images"][name] for name in names}
        if all(PINNED.fullmatch(pushed) for pushed in images.values()):
            return {found["version"]: images}
    except (ValueError, TypeError, KeyError):
        pass
    raise UserError(f"{record} is damaged", "delete it, and run `make push` again if the images were pushed")


@cache
def image_version() -> str:
    """Return the version of the images: 12 digits of a hash over the code, the Dockerfile and the lock files."""
    recipe = sorted(path for path in (ROOT / "docker").glob("*") if path.suffix != ".in")
    return sha256_json([code_version(), *((path.name, path.read_text()) for path in recipe)])[:12]


def is_pinned(name: str) -> bool:
    """Return whether an image is named by its digest."""
    return "@sha256:" in name
