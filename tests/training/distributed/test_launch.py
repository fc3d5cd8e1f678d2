"""Training by several processes of this machine: pytest tests/training/test_launch.py"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from components.shared.core.errors import UserError
from components.shared.data.dataset import open_dataset
from components.shared.models import saved_model
from components.shared.storage.client import open_store
from components.shared.training.distributed.launch import launch
from components.shared.training.distributed.process_group import ProcessGroup
from tests.dataset_writer import DatasetWriter
from tests.servers.s3_server import BUCKET, S3Server, hold_after, proxy
from tests.trained_digits import RUN, largest_difference, settings, trained


def test_more_gpus_than_available_are_refused(digits: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there are GPUs here")
    for gpus in ("1", "2"):
        with pytest.raises(
            UserError, match=f"gpus={gpus} is more than the 0 GPUs that PyTorch sees here.*; give gpus=0"
        ):
            trained(digits, tmp_path / "model", gpus=gpus)
    assert not (tmp_path / "model").exists()


def test_each_process_takes_its_shard_of_a_batch() -> None:
    everything = torch.arange(12)
    parts = [ProcessGroup(rank, 3, torch.device("cpu")).shard(everything) for rank in range(3)]
    assert torch.cat(parts).equal(everything) and {len(part) for part in parts} == {4}


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one_up_to_rounding(digits: Path, tmp_path: Path) -> None:
    one = trained(digits, tmp_path / "one", epochs=3)
    (tmp_path / "two").mkdir()
    launch(settings(epochs=3), digits, processes=2, **RUN, folder=tmp_path / "two")
    two = saved_model.load(tmp_path / "two")
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == [
        "history.json",
        "model.json",
        "model.safetensors",
    ]
    assert two.document.processes == 2
    assert largest_difference(tmp_path / "one", tmp_path / "two") < 1e-4
    assert two.document.val_accuracy == pytest.approx(one.document.val_accuracy, abs=0.01)
    losses = [[epoch.train_loss for epoch in model.history.epochs] for model in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
def test_a_process_without_an_image_to_validate_changes_nothing(digits: Path, tmp_path: Path) -> None:
    data, counts = open_dataset(digits), {"train": 64, "val": 2, "test": 0}
    (tmp_path / "few").mkdir()
    writer = DatasetWriter(tmp_path / "few", classes=data.classes, image_shape=data.image_shape, counts=counts)
    for split in ("train", "val"):
        images, labels = data.load(split)
        writer.append(split, images[: counts[split]], labels[: counts[split]])
    writer.finish(name="few", seconds={})
    chosen: dict[str, Any] = {"batch_size": "48", "epochs": 1}
    (one,) = trained(tmp_path / "few", tmp_path / "one", **chosen).history.epochs
    (tmp_path / "three").mkdir()
    launch(settings(**chosen), tmp_path / "few", processes=3, **RUN, folder=tmp_path / "three")
    (three,) = saved_model.load(tmp_path / "three").history.epochs
    assert three.val_accuracy == one.val_accuracy and three.val_loss == pytest.approx(one.val_loss, rel=1e-4)


SLOW_LAUNCH = """
import json, sys
from pathlib import Path
from components.shared.parameters.training import Settings
from components.shared.training.distributed.launch import launch

given = json.loads(sys.argv[1])
launch(Settings.of(**given["settings"]), given["dataset"], processes=2, **given["run"], folder=Path(given["folder"]))
"""


@pytest.mark.slow
def test_training_resumes_after_one_process_is_killed(digits: Path, tmp_path: Path, server: S3Server) -> None:
    chosen = settings(epochs=15, batch_size="10")
    run = {**RUN, "store": f"s3://{BUCKET}/restarted"}
    (tmp_path / "model").mkdir()
    given = {"settings": chosen.values(), "dataset": str(digits), "run": run, "folder": str(tmp_path / "model")}
    freed = threading.Event()
    with proxy(server.address) as network:
        network.always = hold_after("/checkpoints/", freed)  # so that it does not end before the kill
        environment = {**os.environ, **server.environment, "AWS_ENDPOINT_URL_S3": network.url}
        command = [sys.executable, "-c", SLOW_LAUNCH, json.dumps(given)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
            store = open_store(run["store"], server.environment)
            _wait_until(lambda: list(store.list("checkpoints")))
            os.kill(_worker(tmp_path / "model", rank=1), signal.SIGKILL)
            freed.set()
            told = child.communicate(timeout=300)[0]
    assert child.returncode == 0 and "[train] resumed after step " in told
    assert len(saved_model.load(tmp_path / "model").history.epochs) == 15


@pytest.mark.slow
def test_an_error_in_all_processes_is_raised_once(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match=r"the loss became .* give a lower learning_rate"):
        launch(settings(optimizer="sgd", learning_rate=1e10), digits, processes=2, **RUN, folder=tmp_path / "model")


def _wait_until(happened: Any) -> None:
    deadline = time.monotonic() + 300
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _worker(folder: Path, rank: int) -> int:
    """The process that trains as that rank."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words, variables = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in words and f"\0RANK={rank}\0".encode() in variables:
            return int(process.name)
    raise AssertionError("there is no such process")
