"""The step train-distributed: pytest tests/steps/test_train_distributed.py"""

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.resolve import resolve
from components.shared.core.errors import UserError
from components.shared.models import saved_model
from components.shared.storage.client import open_store
from components.train_distributed import train_distributed
from tests.servers.s3_server import BUCKET, S3Server
from tests.trained_digits import training_recipe, write_digits, write_stored_digits

ROOT = Path(__file__).parents[2]
CONFIG = SimpleNamespace(
    resources=None, node_selector=None, tolerations=None, env=None, volumes=None, volume_mounts=None
)


def train(dataset: Path, model: Path, store: str, **changed: Any) -> saved_model.Model:
    recipe = training_recipe(store=store, checkpoint_seconds=1, **changed)
    train_distributed(dataset=dataset, recipe=recipe, task_config=CONFIG, model=model)
    return saved_model.load(model)


@pytest.mark.slow
def test_this_machine_trains_by_the_sdks_local_processes(
    server: S3Server, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT), **server.environment}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store = open_store(f"s3://{BUCKET}/local", server.environment)
    model = train(write_stored_digits(tmp_path / "digits", store), tmp_path / "model", store.uri())
    assert model.document.processes == 1
    assert "[train] epoch 2/2: val loss" in capfd.readouterr().out
    assert not list(store.list("jobs")) and not list(tmp_path.glob("train-*"))
    assert list(store.list("checkpoints"))


def test_data_that_other_nodes_cannot_read_is_refused(tmp_path: Path) -> None:
    dataset = write_digits(tmp_path / "own", enlarge=1)
    with pytest.raises(UserError, match="which other nodes cannot read; prepare it by handover_mib=0"):
        train(dataset, tmp_path / "model", f"s3://{BUCKET}")


def test_a_plain_graph_refuses_nodes_and_names_the_right_one() -> None:
    with pytest.raises(UserError, match=r"^nodes=2 is more than graph training trains on; give --graph distributed"):
        resolve(graph="training", data="digits", options={"nodes": 2})
    with pytest.raises(UserError, match=r"^store= is empty"):
        resolve(graph="distributed", data="digits", nodes=2, options={})
