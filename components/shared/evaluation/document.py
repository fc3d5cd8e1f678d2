"""The document `evaluation.json` of an evaluated model, as later steps read it."""

from collections.abc import Callable
from pathlib import Path

from components.shared.core.files import Document, read_json
from components.shared.core.schema import check_fields, is_map, is_number, is_sha256

FORMAT = "torch2kubeflow/evaluation"
MAX_BYTES = 2**28  # a confusion matrix of 5,000 classes
METRICS = (  # those that are a single number
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "weakest_recall",
    "macro_f1",
    "log_loss",
    "expected_calibration_error",
)


def read_evaluation(folder: str | Path) -> Document:
    """Read `evaluation.json`. Raises UserError if it is missing or a field that later steps use is invalid."""
    path = Path(folder) / "evaluation.json"
    document = read_json(path, FORMAT, MAX_BYTES)
    check_fields(document, _FIELDS, str(path), "evaluate the model again")
    return document


_FIELDS: dict[str, Callable[[Document], bool]] = {
    "dataset_digest": lambda d: is_sha256(d["dataset_digest"]),
    "model_digest": lambda d: is_sha256(d["model_digest"]),
    **{name: lambda d, name=name: is_number(d[name]) for name in METRICS},  # type: ignore[misc]
    "seconds": lambda d: is_map(d["seconds"], is_number),
}
