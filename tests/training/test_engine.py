"""The training engine beyond one process and one batch in memory: pytest tests/training/test_engine.py"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.core.files import sha256_file
from components.shared.core.resources import inference_batch_size
from components.shared.data.dataset import open_dataset
from components.shared.evaluation.inference import predict
from components.shared.models import factory, saved_model
from components.shared.storage.client import open_store
from components.shared.training import auto_batch_size, batches, loop, utilization
from components.shared.training.distributed.launch import launch
from components.shared.training.distributed.process_group import ProcessGroup
from components.shared.training.engine import train_model
from components.shared.training.loop import Training
from components.shared.training.settings import Settings, read_settings
from tests.servers.s3_server import BUCKET, S3Server
from tests.trained_digits import SETTINGS, trained

PLAIN = {"rotation": 0.0, "shift": 0.0, "scale": 0.0, "shear": 0.0}
RUN: dict[str, Any] = {"seed": 0, "threads": 1, "store": "", "checkpoint_seconds": 1}


def settings(**others: Any) -> Settings:
    return read_settings({**SETTINGS, **others})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(saved_model.load(folder).module.state_dict())


def largest_difference(one: Path, other: Path) -> float:
    first, second = weights(one), weights(other)
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def test_images_that_stay_in_their_shards_give_the_same_weights(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(digits, tmp_path / "held")
    monkeypatch.setattr(batches, "free_memory", lambda: 0)
    trained(digits, tmp_path / "mapped")
    assert sha256_file(tmp_path / "held/model.json") == sha256_file(tmp_path / "mapped/model.json")


def test_batches_of_many_shards_hold_the_images_asked_for_and_a_reader_may_leave_early(
    digits: Path, tmp_path: Path
) -> None:
    data = open_dataset(digits)
    images, labels = map(torch.from_numpy, data.load("train"))
    mapped = batches.MappedSplit(data, "train")
    parts = [(images[:3].numpy(), labels[:3].numpy()), (images[3:].numpy(), labels[3:].numpy())]
    mapped._shards, mapped._ends = parts, torch.tensor([3, 400]).numpy()
    some = batches.Batches(mapped, 400, torch.device("cpu"), prefetch=True)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    found = list(some.each(order.split(30)))  # type: ignore[no-untyped-call]
    assert torch.cat([i for i, _ in found]).equal(images[order]) and torch.cat([n for _, n in found]).equal(
        labels[order]
    )
    assert next(some.each(order.split(30)))[1].equal(labels[order[:30]])  # type: ignore[no-untyped-call]
    shares = [torch.cat([n for _, n in some.in_order(150, rank, 3)]) for rank in range(3)]
    assert [len(share) for share in shares] == [134, 133, 133]
    assert shares[1].equal(labels[1::3])


def test_accumulated_batches_are_one_step_of_as_many_images(digits: Path, tmp_path: Path) -> None:
    trained(digits, tmp_path / "whole", batch_size="100")
    trained(digits, tmp_path / "parts", batch_size="25", accumulate=4)
    assert largest_difference(tmp_path / "whole", tmp_path / "parts") < 1e-4
    with pytest.raises(UserError, match="batch_size=200 times accumulate=3 is more than the 400 images"):
        trained(digits, tmp_path / "model", batch_size="200", accumulate=3)


def test_gradients_are_scaled_down_to_the_norm_given(digits: Path, tmp_path: Path) -> None:
    one = {"optimizer": "sgd", "batch_size": "400", "epochs": 1, "learning_rate": 1.0, "ema_decay": 0.0}
    architecture = trained(digits, tmp_path / "clipped", clip_norm=0.01, **one).document["architecture"]
    torch.manual_seed(SETTINGS["seed"])
    initial = factory.build(architecture)
    after = weights(tmp_path / "clipped")
    moved = torch.cat([(after[name] - tensor).flatten() for name, tensor in initial.state_dict().items()]).norm()
    assert moved.item() == pytest.approx(0.01 * 1.9, rel=1e-3)  # Nesterov's first step is 1 + momentum times as long


@pytest.mark.parametrize(
    "others",
    [{"mixup": 0.4}, {"cutmix": 1.0}, {"precision": "bfloat16"}, {"schedule": "cosine"}, {"flip": True}],
    ids=lambda others: next(iter(others)),
)
def test_what_can_be_switched_on_learns_too_and_gives_other_weights(
    digits: Path, tmp_path: Path, others: dict[str, Any]
) -> None:
    model = trained(digits, tmp_path / "model", epochs=8, **others)
    assert model.document["val_accuracy"] > 0.6
    assert all(tensor.dtype == torch.float32 for tensor in model.module.state_dict().values())
    plain = trained(digits, tmp_path / "plain", epochs=1)
    once = trained(digits, tmp_path / "once", epochs=1, **others)
    assert plain.document["weights_sha256"] != once.document["weights_sha256"]


def test_mixup_and_cutmix_exclude_each_other() -> None:
    with pytest.raises(UserError, match=r"mixup=0\.2 and cutmix=1\.0 exclude each other"):
        settings(mixup=0.2, cutmix=1.0)


def test_the_network_is_compiled_when_asked(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[object] = []
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or network)
    trained(digits, tmp_path / "model", epochs=1)
    assert not compiled
    trained(digits, tmp_path / "model", epochs=1, torch_compile=True)
    assert len(compiled) == 1
    monkeypatch.setenv("CXX", "no-compiler")
    with pytest.raises(
        UserError, match=r'^torch_compile=True needs no-compiler, .* make images COMPILERS="gcc g\+\+"$'
    ):
        trained(digits, tmp_path / "refused", epochs=1, torch_compile=True)


def test_the_history_tells_what_each_epoch_cost(digits: Path, tmp_path: Path) -> None:
    for epoch in trained(digits, tmp_path / "model").history["epochs"]:
        assert 0 <= epoch["data_wait"] < 0.5
        assert 100 < epoch["memory_mib"] < 24_000
        assert epoch["peak_share"] == 0, "the peak of a CPU is not known"


def test_the_operations_of_a_network_are_three_times_those_of_its_forward_pass() -> None:
    layer = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 4 * 4, 10, bias=False))
    assert utilization.training_operations(layer, (3, 4, 4)) == 3 * 2 * 48 * 10


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A10G", 70),
        ("NVIDIA L40", 181),
        ("Tesla T4", 0),
    ],
)
def test_the_peak_of_a_gpu_is_found_by_whole_words(name: str, peak: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    assert utilization.peak_operations(torch.device("cuda")) == peak * 1e12


def test_weights_that_diverge_in_the_last_step_are_one_line(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^the validation loss became (nan|inf) after epoch 1 at learning_rate=1e\+30; "
    ):
        trained(
            digits,
            tmp_path / "model",
            optimizer="sgd",
            learning_rate=1e30,
            batch_size="400",
            epochs=1,
            ema_decay=0.0,
            schedule="cosine",
        )


def test_stop_ends_the_training_by_its_reason_after_an_epoch(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(epochs: Any) -> str | None:
        return "enough" if len(epochs) == 2 else None

    (tmp_path / "model").mkdir()
    train_model(settings(epochs=5), open_dataset(digits), **RUN, folder=tmp_path / "model", stop=stop)
    history = saved_model.load(tmp_path / "model").history
    assert (len(history["epochs"]), history["stopped"]) == (2, "enough")
    assert "[log] stopped early: enough" in capsys.readouterr().out


# The largest batch


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Sets the whole memory and what is free of it, in bytes."""

    def set_memory(total: int, free: int) -> None:
        monkeypatch.setattr(auto_batch_size, "total_memory", lambda: total)
        monkeypatch.setattr(auto_batch_size, "free_memory", lambda: free)

    yield set_memory


def test_the_largest_batch_leaves_ten_steps_in_an_epoch(digits: Path, tmp_path: Path, room: Any) -> None:
    room(2**40, 2**40)
    model = trained(digits, tmp_path / "model", batch_size="auto", epochs=1)
    assert model.document["parameters"]["batch_size"] == "32", "32 times 10 is within 400"
    given = trained(digits, tmp_path / "given", batch_size="32", epochs=1)
    assert given.document == model.document, "looking for the size leaves no trace"


def test_the_largest_batch_follows_from_the_free_memory(small_digits: Path, room: Any) -> None:
    data, group = open_dataset(small_digits), ProcessGroup(0, 1, torch.device("cpu"))
    sizes = []
    for mib in (480, 500, 2_000):
        room(mib * 2**20, mib * 2**20)
        sizes.append(auto_batch_size.largest_batch(settings(network="resnet18", batch_size="auto"), data, group))
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1] == 32
    room(500 * 2**20, 300 * 2**20)
    assert auto_batch_size.largest_batch(settings(network="resnet18", batch_size="auto"), data, group) == sizes[1], (
        "as before"
    )
    room(2**20, 2**20)
    with pytest.raises(UserError, match="no step of resnet18 fits into memory; prepare smaller images"):
        auto_batch_size.largest_batch(settings(network="resnet18", batch_size="auto"), data, group)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_memory_that_is_too_small_is_told_with_the_figure_to_lower(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(loop, "warp", fail)
    with pytest.raises(UserError, match=r"batch_size=50 needs more memory than the cpu has; give a smaller batch_size"):
        trained(digits, tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("size", "images"), [(32, 256), (224, 20), (4096, 1)])
def test_fewer_large_pictures_than_small_ones_are_looked_at_at_once(size: int, images: int) -> None:
    assert inference_batch_size(256, (3, size, size)) == images
    pictures = np.broadcast_to(np.zeros(1, np.uint8), (images + 1, 3, size, size))
    seen: list[int] = []

    def classify(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        seen.append(len(batch))
        return np.zeros((len(batch), 2), np.float32)

    predict(classify, [(pictures, np.zeros(images + 1, np.int64))], log.Progress("test", images + 1, "images"))
    assert seen == [images, 1]


# Pretrained weights


def test_a_training_starts_from_pretrained_weights_and_leaves_frozen_stages_as_they_are(
    small_digits: Path, tmp_path: Path
) -> None:
    network = {"network": "squeezenet1_1", "optimizer": "sgd", "learning_rate": 0.001, "epochs": 1, **PLAIN}
    trained(small_digits, tmp_path / "first", **network)
    given = {"pretrained": str(tmp_path / "first"), "frozen_stages": 3}
    model = trained(small_digits, tmp_path / "second", **network, **given)
    before, after = weights(tmp_path / "first"), weights(tmp_path / "second")
    same = {name for name in before if before[name].equal(after[name])}
    assert "features.0.weight" in same and "features.12.squeeze.weight" not in same
    assert model.document["pretrained_sha256"] == sha256_file(tmp_path / "first/model.safetensors")
    with pytest.raises(UserError, match="frozen_stages=99 is more than the "):
        trained(small_digits, tmp_path / "third", **network, frozen_stages=99)


@pytest.mark.slow  # needs the real server
def test_pretrained_weights_come_from_a_store_and_are_checked(
    digits: Path, tmp_path: Path, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    trained(digits, tmp_path / "first", epochs=1)
    store = open_store(f"s3://{BUCKET}/pretrained", os.environ)
    for name in ("model.safetensors", "model.json"):
        store.put_file(tmp_path / "first" / name, f"3/{name}")
    digest = sha256_file(tmp_path / "first/model.safetensors")
    for uri in (store.uri("3"), store.uri("3/model.safetensors") + f"#sha256={digest}"):
        model = trained(digits, tmp_path / "second", epochs=1, pretrained=uri)
        assert model.document["pretrained_sha256"] == digest
    with pytest.raises(UserError, match="differs from its digest"):
        trained(digits, tmp_path / "third", epochs=1, pretrained=store.uri("3") + f"#sha256={'0' * 64}")
    with pytest.raises(UserError, match=r"pretrained weights cannot be fetched: .*/4/model\.safetensors"):
        trained(digits, tmp_path / "third", epochs=1, pretrained=store.uri("4"))


# Many processes


def test_more_gpus_than_there_are_is_one_line(digits: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there are GPUs here")
    for gpus in ("1", "2"):
        with pytest.raises(
            UserError, match=f"gpus={gpus} is more than the 0 GPUs that PyTorch sees here.*; give gpus=0"
        ):
            trained(digits, tmp_path / "model", gpus=gpus)
    assert not list(tmp_path.iterdir())


def test_each_process_takes_its_part_of_a_batch() -> None:
    everything = torch.arange(12)
    parts = [ProcessGroup(rank, 3, torch.device("cpu")).shard(everything) for rank in range(3)]
    assert torch.cat(parts).equal(everything) and {len(part) for part in parts} == {4}


def test_a_batch_that_cannot_be_shared_evenly_is_refused(digits: Path) -> None:
    with pytest.raises(UserError, match="batch_size=50 cannot be split evenly over 3 processes; give a multiple of 3"):
        Training(settings(), open_dataset(digits), ProcessGroup(0, 3, torch.device("cpu")), 0)


@pytest.mark.slow
def test_two_processes_train_to_the_weights_of_one_within_the_noise_of_float32(digits: Path, tmp_path: Path) -> None:
    one = trained(digits, tmp_path / "one", epochs=3)
    (tmp_path / "two").mkdir()
    launch(settings(epochs=3), digits, processes=2, **RUN, folder=tmp_path / "two")
    two = saved_model.load(tmp_path / "two")
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == [
        "history.json",
        "model.json",
        "model.safetensors",
    ]
    assert two.document["processes"] == 2
    assert largest_difference(tmp_path / "one", tmp_path / "two") < 1e-4
    assert two.document["val_accuracy"] == pytest.approx(one.document["val_accuracy"], abs=0.01)
    losses = [[epoch["train_loss"] for epoch in model.history["epochs"]] for model in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


SLOW_LAUNCH = """
import json, sys
from pathlib import Path
from components.shared.training.settings import Settings
from components.shared.training.distributed.launch import launch

given = json.loads(sys.argv[1])
launch(Settings(**given["settings"]), given["dataset"], processes=2, **given["run"], folder=Path(given["folder"]))
"""


@pytest.mark.slow
def test_a_killed_process_is_started_again_and_the_training_goes_on_from_its_checkpoint(
    digits: Path, tmp_path: Path, server: S3Server
) -> None:
    chosen = settings(epochs=15, batch_size="10")
    run = {**RUN, "store": f"s3://{BUCKET}/restarted"}
    (tmp_path / "model").mkdir()
    given = {"settings": chosen.__dict__, "dataset": str(digits), "run": run, "folder": str(tmp_path / "model")}
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_LAUNCH, json.dumps(given)],
        env={**os.environ, **server.environment},
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        store = open_store(run["store"], server.environment)
        _wait_until(lambda: list(store.list("checkpoints")))
        os.kill(_worker(tmp_path / "model", rank=1), signal.SIGKILL)
        told = child.communicate(timeout=300)[0]
    assert child.returncode == 0 and "[train] resumed after step " in told
    assert len(saved_model.load(tmp_path / "model").history["epochs"]) == 15


@pytest.mark.slow
def test_a_mistake_in_one_of_many_processes_is_told_once(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match=r"the loss became .* give a lower learning_rate"):
        launch(settings(optimizer="sgd", learning_rate=1e10), digits, processes=2, **RUN, folder=tmp_path / "model")


def _wait_until(happened: Any) -> None:
    deadline = time.monotonic() + 120
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
