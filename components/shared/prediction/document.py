"""`predictions.json`, which a table of predictions has last, and the names of the files beside it."""

from components.shared.core.document import Count, Document, Fingerprint, Names, Number, Sha256

MANIFEST, CSV, PAGE = "predictions.json", "predictions.csv", "uncertain.html"


class PredictionsDocument(Document):
    """`predictions.json`, written last: the parts of the table, and what they hold."""

    FORMAT = "torch2kubeflow/predictions"
    REMEDY = "predict again"

    model: str
    package_digest: Sha256
    data_digest: Sha256
    rows: Count
    errors: Count  # rows of pictures that cannot be used
    labelled: Count  # rows with a label and without an error
    correct: Count  # of those
    predicted: dict[str, Count]  # rows of each class
    columns: Names
    parts: dict[str, Fingerprint]
    resumed_at: Count  # rows that an interrupted run had predicted
    seconds: dict[str, Number]  # of this run: in all, and by the program
    drift: str = ""  # what was found, in words
    training: str = ""  # what followed of it


def sentence(rows: int, errors: int, model: str) -> str:
    """Return in words how many pictures a model has predicted."""
    unusable = f", {errors:,} of them unusable" * bool(errors)
    return f"{rows:,} {'picture' if rows == 1 else 'pictures'} predicted by {model}{unusable}"
