"""Pictures that are kept as JPEG are streamed, too, and give the same weights however that is done."""

from pathlib import Path
from typing import Any

import pytest

from components.shared.core.files import sha256_file
from components.shared.data.dataset import open_dataset
from components.shared.data.pictures.kept import JPEG_SHARE
from components.shared.data.preparation import unit
from components.shared.training import batches
from components.shared.training.distributed.launch import launch
from tests.conftest import ROOT
from tests.kept_pictures import SIZE, download_from, prepare_kept, write_photographs
from tests.trained_digits import RUN, largest_difference, settings, trained
from tests.training.states import state_after

STREAMED: dict[str, Any] = {"shuffle_window": 24, "batch_size": "8", "epochs": 2, "flip": True}
STREAMED |= {"optimizer": "sgd", "learning_rate": 0.05}  # Muon enlarges the differences in rounding of two processes

pytestmark = pytest.mark.slow


@pytest.fixture
def stored(tmp_path: Path, uri: str, s3_variables: None, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A remote dataset in units of 8 pictures, of which nothing is loaded whole."""
    monkeypatch.setattr(unit, "UNIT_BYTES", 8 * 3 * SIZE**2 // JPEG_SHARE)
    monkeypatch.setattr(batches, "free_memory", lambda: 0)
    raw = download_from(write_photographs(tmp_path / "pictures"), tmp_path / "raw")
    data = prepare_kept(raw, tmp_path / "dataset", store=uri, handover_mib=0)
    assert data.is_remote and len(data.document.splits["train"].shards) >= 5
    return tmp_path / "dataset"


def test_two_processes_read_the_crops_that_one_reads(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr("components.shared.training.distributed.launch.WORKER", "tests.training.streaming.worker")
    trained(stored, tmp_path / "one", **STREAMED)
    assert "shuffled within a window of 24, in 8 streams" in capsys.readouterr().out
    trained(stored, tmp_path / "again", **STREAMED)
    assert sha256_file(tmp_path / "one/model.safetensors") == sha256_file(tmp_path / "again/model.safetensors")
    (tmp_path / "two").mkdir()
    launch(settings(**STREAMED), stored, processes=2, **RUN, folder=tmp_path / "two")
    assert largest_difference(tmp_path / "one", tmp_path / "two") < 1e-4
    trained(stored, tmp_path / "another", **STREAMED, seed=1)
    assert largest_difference(tmp_path / "one", tmp_path / "another") > 1e-2


def test_a_resumed_stream_reads_the_same_crops(stored: Path) -> None:
    """An epoch has 5 steps."""
    data = open_dataset(stored)
    expected = state_after(data, 10, STREAMED)
    ended = state_after(data, 3, STREAMED, state_after(data, 7, STREAMED))
    assert all(tensor.equal(ended.tensors[name]) for name, tensor in expected.tensors.items())
