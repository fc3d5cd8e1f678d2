"""What the parts of a table of predictions hold together: their counts, and the page of the least certain pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.compute as pc

from components.shared.core.document import Fingerprint
from components.shared.core.files import new_file, sha256_file
from components.shared.data.dataset import Images
from components.shared.evaluation.exported_model import PackageDocument
from components.shared.evaluation.report.predictions import render_predictions
from components.shared.evaluation.report.thumbnails import data_uri
from components.shared.prediction.document import PredictionsDocument
from components.shared.prediction.drift import DriftReportDocument
from components.shared.prediction.table import COLUMNS, read_part
from components.shared.prediction.uncertain import Uncertain


def summarise(
    parts: Sequence[Path],
    package: PackageDocument,
    *,
    model: str,
    data_digest: str,
    resumed_at: int,
    seconds: Mapping[str, float],
) -> PredictionsDocument:
    """Return the document of a table in these parts."""
    rows = errors = labelled = correct = 0
    predicted = dict.fromkeys(package.classes, 0)
    for path in parts:
        table = read_part(path, ["class", "label"])
        found = table["class"]
        is_right = pc.equal(found, table["label"])  # null if either is
        rows += len(table)
        errors += found.null_count
        labelled += len(table) - is_right.null_count
        correct += pc.sum(is_right).as_py() or 0
        for one in found.drop_null().value_counts().to_pylist():
            predicted[one["values"]] += one["counts"]
    return PredictionsDocument(
        model=model,
        package_digest=package.digest,
        data_digest=data_digest,
        rows=rows,
        errors=errors,
        labelled=labelled,
        correct=correct,
        predicted=predicted,
        columns=list(COLUMNS),
        parts={path.name: Fingerprint(sha256=sha256_file(path), bytes=path.stat().st_size) for path in parts},
        resumed_at=resumed_at,
        seconds=dict(seconds),
    )


def write_page(
    path: Path,
    document: PredictionsDocument,
    drift: DriftReportDocument,
    package: PackageDocument,
    least: Sequence[Uncertain],
    images: Mapping[int, Images],
) -> None:
    """Write the page of the least certain pictures; `images` (uint8, C x H x W) has them by the numbers of rows."""
    html = render_predictions(document, drift, package, [(row, data_uri(images[row.number])) for row in least])
    with new_file(path) as file:
        file.write(html.encode())
