"""A data set that comes as samples, fetched and read as the steps do it."""

from pathlib import Path
from typing import Any

from components.download import download
from components.shared.data.layout.left_out import LeftOut
from components.shared.data.raw import Raw, open_raw
from components.shared.parameters.preparation import ReadingRecipe
from tests.data.versions import version_of


def fetched(data: str | Path, raw: Path, *, needs_labels: bool = True, **reading: Any) -> Raw:
    """Run step download."""
    recipe = ReadingRecipe(**reading).text()
    version = version_of(str(data))
    download(data=str(data), version=version, recipe=recipe, needs_labels=needs_labels, raw=str(raw))
    return open_raw(raw)


def rows(raw: Raw, size: int = 3) -> list[tuple[str, str | None, str, bytes]]:
    """Return split, class, name and content of each picture."""
    found = []
    for chunk in raw.chunks(size):
        assert chunk.encoded is not None
        classes = [None if label < 0 else raw.classes[label] for label in chunk.labels.tolist()]
        found += [(chunk.split, *row) for row in zip(classes, chunk.names, chunk.encoded, strict=True)]
    return found


def left_out(raw: Raw) -> list[str]:
    """Return what is left out, in words."""
    assert isinstance(raw.document.left_out, LeftOut)
    return raw.document.left_out.sentences()
