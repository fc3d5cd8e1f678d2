"""The page of predicted pictures: how many of each class, how far they have drifted, and the least certain ones."""

from collections.abc import Sequence
from typing import Any

from components.shared.evaluation.exported_model import PackageDocument
from components.shared.evaluation.report.html import page

READS = ("templates/predictions.html",)


def render_predictions(document: Any, drift: Any, package: PackageDocument, pictures: Sequence[tuple[Any, str]]) -> str:
    """Return the page; `pictures` are rows of the table, each with its picture as an address."""
    return page("predictions.html").render(document=document, drift=drift, package=package, pictures=pictures)
