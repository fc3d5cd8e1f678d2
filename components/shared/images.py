"""The names of the images in which steps run in a cluster."""

import json
from pathlib import Path

from components.shared.version import code_version

RECORD = Path(__file__).parents[2] / "build" / "images.json"  # written by `make push`


def image(name: str, record: Path = RECORD) -> str:
    """The image `data` or `torch` of the present code: by digest where `record` holds its push, else by tag.

    A tag is the code's version, so KFP's cache, which knows an image by its name alone, never outlives the code.
    """
    if record.is_file():
        pushed = json.loads(record.read_text())
        if pushed["code_version"] == code_version():
            return str(pushed["images"][name])
    return f"torch2kubeflow/{name}:{code_version()}"


def is_pinned(name: str) -> bool:
    """Whether an image is named by its digest."""
    return "@sha256:" in name
