"""A data set of few pictures, in units of few."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.shared.data.preparation import unit
from components.shared.storage.client import Store
from tests.bigdata.parts import SIZE, UNIT


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch, s3_variables: None, cache: Path) -> None:
    """Units of a few pictures, and splits that are drawn for some units at a time."""
    for module in ("preparation.unit", "preparation.whole_set", "parts.listing", "parts.unit_preparation"):
        monkeypatch.setattr(f"components.shared.data.{module}.SPLIT_ROWS", 2 * UNIT)
    monkeypatch.setattr(unit, "UNIT_BYTES", UNIT * 3 * SIZE**2)


@pytest.fixture
def source(tmp_path: Path, store: Store) -> str:
    """Forty pictures below a prefix of the store: gray ones, then colour ones, some of them copies, one broken."""
    random = np.random.default_rng(0)
    for number, name in enumerate(["cat", "dog"]):
        for picture in range(20):
            shape = (SIZE, SIZE, 3) if number else (SIZE, SIZE)
            path = tmp_path / "source" / name / f"{picture:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(path)
    copies = tmp_path / "source" / "dog"
    for picture in range(5):
        (copies / f"copy{picture}.png").write_bytes((copies / "00.png").read_bytes())
    (copies / "broken.png").write_bytes(b"\x89PNG")
    for path in sorted((tmp_path / "source").rglob("*.png")):
        store.put_file(path, f"source/{path.relative_to(tmp_path / 'source').as_posix()}")
    return store.uri("source")
