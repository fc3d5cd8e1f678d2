"""The package: the folder of an exported model and the document that describes it, writer and reader side by side.

`package.json`, written last, holds neither times nor measurements: equal models have equal packages, byte by byte.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.shared.core.errors import UserError
from components.shared.core.files import Document, read_json, sha256_json, sha256_without, write_json
from components.shared.core.schema import (
    are_names,
    check_fields,
    has,
    is_fingerprint,
    is_map,
    is_number,
    is_sha256,
    is_share,
    is_size,
    is_text,
)

FORMAT = "torch2kubeflow/package"
EXPORT_AGAIN = "export the model again"


def write_package(folder: Path, description: Document) -> None:
    """Write `package.json`, with its own digest added, which covers those of the files."""
    document = {"format": FORMAT, **description}
    write_json(folder / "package.json", {**document, "digest": sha256_json(document)})


def read_package(folder: str | Path) -> Document:
    """Read `package.json`. Raises UserError if it is missing, differs from its digest or has an invalid field."""
    path = Path(folder) / "package.json"
    document = read_json(path, FORMAT)
    if document.get("digest") != sha256_without(document, "digest"):
        raise UserError(f"{path} differs from its digest", EXPORT_AGAIN)
    check_fields(document, _FIELDS, str(path), EXPORT_AGAIN)
    return document


def _is_shape(value: Any) -> bool:
    match value:
        case ["batch", *sizes]:
            return len(sizes) > 0 and all(map(is_size, sizes))
    return False


IS_TENSOR = has(name=is_text, dtype=is_text, shape=_is_shape)

_FIELDS: dict[str, Callable[[Document], bool]] = {
    "classes": lambda d: are_names(d["classes"]),
    "input": lambda d: IS_TENSOR(d["input"]),
    "output": lambda d: IS_TENSOR(d["output"]),
    "dataset_digest": lambda d: is_sha256(d["dataset_digest"]),
    "model_digest": lambda d: is_sha256(d["model_digest"]),
    "weights_sha256": lambda d: is_sha256(d["weights_sha256"]),
    "test_accuracy": lambda d: is_share(d["test_accuracy"]),
    "predictions_sha256": lambda d: is_sha256(d["predictions_sha256"]),
    "metrics": lambda d: is_map(d["metrics"], is_number),
    "files": lambda d: has(**{"model.onnx": is_fingerprint, "model.pt2": is_fingerprint})(d["files"]),
}
