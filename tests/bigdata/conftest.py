"""What all tests of the graph bigdata have."""

from pathlib import Path

import pytest

from components.shared.data.preparation import unit
from tests.bigdata.parts import SIZE, UNIT


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch, s3_variables: None, cache: Path) -> None:
    """Units of a few pictures, and splits that are drawn for some units at a time."""
    for module in ("components.shared.data.preparation.unit", "components.shared.data.parts.listing"):
        monkeypatch.setattr(f"{module}.SPLIT_ROWS", 2 * UNIT)
    for module in ("components.preprocess", "components.shared.data.parts.unit_preparation"):
        monkeypatch.setattr(f"{module}.SPLIT_ROWS", 2 * UNIT)
    monkeypatch.setattr(unit, "UNIT_BYTES", UNIT * 3 * SIZE**2)
