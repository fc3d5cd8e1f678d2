"""The example of docs/bigdata.md for Ray Data, with a stand-in for the calls of Ray that it makes."""

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.shared.data.dataset import open_dataset
from components.shared.storage.client import Store
from tests.bigdata.parts import listed, prepared, without_seconds
from tests.repository.documents import ROOT

EXAMPLE = re.findall(r"```python\n(.*?)```", (ROOT / "docs/bigdata.md").read_text(), re.DOTALL)


class Rows:
    """Rows of a data set of Ray."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self._rows = rows

    def map(self, work: Callable[[Any], Any], num_cpus: float) -> "Rows":
        assert num_cpus == 1
        return Rows(map(work, self._rows))

    def take_all(self) -> list[Any]:
        return list(self._rows)


@pytest.mark.slow
def test_the_example_prepares_what_the_graph_prepares(
    source: str, store: Store, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.remove("source/dog/broken.png")
    (example,) = EXAMPLE
    data = SimpleNamespace(from_items=lambda rows, override_num_blocks: Rows(rows[:override_num_blocks]))
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(data=data))
    monkeypatch.setattr(sys, "argv", ["example.py", source, uri, str(tmp_path)])
    assert len([line for line in example.splitlines() if line]) <= 20
    exec(example, {})
    settings = {"image_size": 224, "test_fraction": 0.15, "val_fraction": 0.1, "max_bad_images": 0}
    graph = prepared(listed(source, uri, tmp_path / "graph", **settings), [1, 0], tmp_path / "expected")
    assert without_seconds(open_dataset(tmp_path / "dataset")) == without_seconds(graph)
