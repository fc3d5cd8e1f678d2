"""The package: the folder of an exported model and the document that describes it, writer and reader side by side.

`package.json`, written last, must not tell the time: the packages of equal models are equal, byte by byte.
"""

from pathlib import Path

from components.shared.errors import UserError
from components.shared.files import Document, read_json, sha256_json, write_json

FORMAT = "torch2kubeflow/package"


def write_package(folder: Path, description: Document) -> None:
    """Write `package.json`, to which the digest of the document and, through it, of the files is added."""
    document = {"format": FORMAT, **description}
    write_json(folder / "package.json", {**document, "digest": sha256_json(document)})


def read_package(folder: str | Path) -> Document:
    """Read `package.json`; UserError where it is missing or differs from its digest."""
    path = Path(folder) / "package.json"
    document = read_json(path, FORMAT)
    if document.get("digest") != sha256_json({name: document[name] for name in document if name != "digest"}):
        raise UserError(f"{path} differs from its digest; export the model again")
    return document
