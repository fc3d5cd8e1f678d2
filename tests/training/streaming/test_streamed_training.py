"""A training whose data set does not fit on its disk: the shards come from the store, and leave again."""

import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.shared.core.errors import CorruptDataError, UserError
from components.shared.core.files import sha256_file
from components.shared.data import shard_reader
from components.shared.data.dataset import open_dataset, write_document
from components.shared.data.shard_cache import CACHE_VARIABLE
from components.shared.data.shard_reader import shard_bytes
from components.shared.data.shard_room import NoRoom, Room
from components.shared.data.sources.digits import read_digits
from components.shared.storage.client import open_store
from components.shared.training import batches
from components.shared.training.distributed.launch import launch
from components.shared.training.distributed.task import TASK, TaskDocument
from components.shared.training.search.outcome import TrialDocument
from components.shared.training.streaming.order import WindowedOrder
from components.shared.training.streaming.plan import plan_streaming
from components.shared.training.streaming.streamed_split import StreamedSplit
from components.trial import trial
from tests.conftest import ROOT
from tests.dataset_writer import DatasetWriter
from tests.disk_use import held, most_held
from tests.servers.s3_server import BUCKET, Proxy, S3Server, answer, hang_up, hold_after, truncate
from tests.steps.test_trial import planned
from tests.trained_digits import RUN, largest_difference, settings, trained
from tests.training.states import state_after

COUNTS = {"train": 2000, "val": 250, "test": 100}
SHARD_IMAGES = 100  # of 1 KiB
PREFIX = "team/datasets/shards"
STREAMED: dict[str, Any] = {"shuffle_window": 300, "batch_size": "50", "epochs": 2}  # 2 streams

pytestmark = pytest.mark.slow  # each needs the real server


@pytest.fixture(scope="module")
def stored(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A remote dataset of 20 shards to train, and 3 to validate."""
    folder, draw = tmp_path_factory.mktemp("stored"), np.random.default_rng(0)
    pixels, classes = read_digits()
    small = (pixels.reshape(-1, 1, 8, 8) * 255 / 16).astype(np.uint8)
    shard: dict[str, Any] = {"image_shape": (1, 32, 32), "shard_bytes": SHARD_IMAGES * 1024}
    writer = DatasetWriter(folder, classes=list("0123456789"), counts=COUNTS, **shard)
    for split, count in COUNTS.items():
        drawn = draw.integers(len(small), size=count)
        images = small[drawn].repeat(4, 2).repeat(4, 3) // 2 + draw.integers(0, 128, (count, 1, 32, 32), np.uint8)
        writer.append(split, images, classes[drawn].astype(np.int64))
    document = writer.finish(name="digits", seconds={"download": 0.5, "preprocess": 0.25})
    store = open_store(f"s3://{BUCKET}/{PREFIX}", server.environment)
    for entry in open_dataset(folder).files():
        store.put_file(folder / entry.path, f"{entry.sha256}.npy", entry.sha256)
        (folder / entry.path).unlink()
    write_document(folder, document.model_copy(update={"shards": store.uri()}))
    return folder


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be loaded whole."""
    monkeypatch.setattr(batches, "free_memory", lambda: 0)


def asked(proxy: Proxy) -> Counter[str]:
    """How often each shard was asked for."""
    return Counter(path.rpartition("/")[2].partition("?")[0] for method, path, _ in proxy.asked if method == "GET")


def weights(folder: Path) -> str:
    return sha256_file(folder / "model.safetensors")


def test_weights_are_those_of_a_training_in_memory(
    stored: Path,
    s3_proxy: Proxy,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Any number of threads fetches each shard once an epoch, into a cache of half of the data, whatever fails."""
    trained(stored, tmp_path / "held", **STREAMED)
    assert "the images are shuffled within a window of 300, in 2 streams" in capsys.readouterr().out
    shutil.rmtree(cache)
    monkeypatch.setattr(batches, "free_memory", lambda: 0)
    monkeypatch.setenv(CACHE_VARIABLE, "1")
    document = open_dataset(stored).document
    assert sum(shard_bytes(shard) for shard in document.splits["train"].shards) > 1.9 * 2**20
    for threads in (1, 4):
        monkeypatch.setattr(shard_reader, "READERS", threads)
        before = asked(s3_proxy)
        with most_held(cache, every=0.001) as most:
            model = trained(stored, tmp_path / str(threads), **STREAMED)
        assert 2**18 < most[0] <= 2**20 and held(cache) == 0
        fetched = asked(s3_proxy) - before
        assert {fetched[f"{shard.images.sha256}.npy"] for shard in document.splits["train"].shards} == {2}
        assert model.document.parameters["shuffle_window"] == 300
        assert all(0 < epoch.data_wait < 1 for epoch in model.history.epochs)
        assert weights(tmp_path / str(threads)) == weights(tmp_path / "held")
    s3_proxy.script = [answer(503, "SlowDown"), hang_up, truncate, answer(500, "InternalError")]
    trained(stored, tmp_path / "faults", **STREAMED)
    assert s3_proxy.script == [] and weights(tmp_path / "faults") == weights(tmp_path / "held")


@pytest.mark.usefixtures("no_memory", "s3_proxy")
def test_a_resumed_training_ends_in_the_same_weights(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch has 40 steps; another number of threads reads on."""
    data, epochs, drawn = open_dataset(stored), 2, list[int]()
    draw = WindowedOrder.epoch

    def record(order: WindowedOrder, number: int) -> Any:
        drawn.append(number)
        return draw(order, number)

    monkeypatch.setattr(WindowedOrder, "epoch", record)
    expected = state_after(data, 40 * epochs, STREAMED, seed=3)
    assert drawn == [1, 2], "another order in each epoch"
    for steps in (27, 40, 71):
        drawn.clear()
        monkeypatch.setattr(shard_reader, "READERS", 1)
        begun = state_after(data, steps, STREAMED, seed=3)
        monkeypatch.setattr(shard_reader, "READERS", 4)
        ended = state_after(data, 40 * epochs - steps, STREAMED, begun, seed=3)
        assert all(tensor.equal(ended.tensors[name]) for name, tensor in expected.tensors.items())
        assert drawn == {27: [1, 1, 2], 40: [1, 2], 71: [1, 2, 2]}[steps]
        assert ended.document.epochs[-1].val_loss == expected.document.epochs[-1].val_loss


@pytest.mark.usefixtures("no_memory")
def test_a_killed_training_resumes_and_leaves_nothing(
    stored: Path, s3_proxy: Proxy, cache: Path, tmp_path: Path, uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = {**STREAMED, "epochs": 6}
    trained(stored, tmp_path / "whole", **chosen)
    task = TaskDocument(
        dataset=str(stored),
        parameters=settings(**chosen).values(),
        **{**RUN, "store": uri},
    )
    (tmp_path / "task").mkdir()
    task.write(tmp_path / "task" / TASK)
    freed = threading.Event()
    s3_proxy.always = hold_after("/checkpoints/", freed)  # so that it waits for shards when it is killed
    command = [sys.executable, "-m", "tests.training.streaming.worker", str(tmp_path / "task")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as child:
        wait_until(lambda: any("/checkpoints/" in path and method == "PUT" for method, path, _ in s3_proxy.asked))
        wait_until(lambda: s3_proxy.busy > 1)
        child.kill()
    freed.set()
    s3_proxy.always = None
    assert [*(cache / "shards").iterdir()], "what it had of the cache"
    trained(stored, tmp_path / "model", **chosen, store=uri)
    assert "[train] resumed after step " in capsys.readouterr().out
    assert weights(tmp_path / "model") == weights(tmp_path / "whole")
    assert [*(cache / "shards").iterdir()] == []


def wait_until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + 300
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_two_processes_share_the_cache_and_the_batches(
    stored: Path, server: S3Server, s3_proxy: Proxy, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    chosen = {**STREAMED, "batch_size": "48", "epochs": 1}
    trained(stored, tmp_path / "one", **chosen)
    shutil.rmtree(cache)
    monkeypatch.setattr("components.shared.training.distributed.launch.WORKER", "tests.training.streaming.worker")
    monkeypatch.setenv(CACHE_VARIABLE, "3")
    (tmp_path / "two").mkdir()
    before = asked(s3_proxy)
    with most_held(cache, every=0.001) as most:
        launch(settings(**chosen), stored, processes=2, **RUN, folder=tmp_path / "two")
    assert largest_difference(tmp_path / "one", tmp_path / "two") < 1e-4
    assert 2**18 < most[0] <= 3 * 2**20 and held(cache) == 0
    shards = open_dataset(stored).document.splits["train"].shards
    fetched = asked(s3_proxy) - before
    assert sum(fetched[f"{shard.images.sha256}.npy"] for shard in shards) <= len(shards) + 1, "each by one of them"


@pytest.mark.usefixtures("no_memory")
def test_a_cache_that_is_too_small_is_refused(
    stored: Path, s3_proxy: Proxy, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is fetched before."""
    monkeypatch.setenv(CACHE_VARIABLE, "1")
    ahead = "and the shards read ahead need {} MiB of the cache of shards in each process, and"
    expected = {
        900: f"shuffle_window=900 {ahead.format(1.3)} {CACHE_VARIABLE}=1 has room for 1.0; give it 2 or more, or a "
        "smaller shuffle_window",
        0: f"the full shuffle needs all 2.3 MiB in the cache of shards, and {CACHE_VARIABLE}=1 has room for 1.0; give "
        "it 3 or more",
    }
    for window, message in expected.items():
        with pytest.raises(UserError) as refused:
            trained(stored, tmp_path / "model", **STREAMED | {"shuffle_window": window})
        assert str(refused.value) == message
    monkeypatch.setenv(CACHE_VARIABLE, "2")
    with pytest.raises(UserError, match=r"give it 3 or more, or set shuffle_window to fewer images$"):
        trained(stored, tmp_path / "model", **STREAMED | {"shuffle_window": 0})
    monkeypatch.setenv(CACHE_VARIABLE, "0")
    with pytest.raises(UserError, match=r"has room for 0.0; give it 1 or more$"):
        trained(stored, tmp_path / "model", **STREAMED)
    assert not asked(s3_proxy) and not (tmp_path / "model").exists()


@pytest.mark.usefixtures("s3_proxy", "cache")
def test_a_refusal_reckons_with_all_processes_of_the_machine(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = settings(**STREAMED | {"batch_size": "48", "shuffle_window": 900})

    def room() -> Room:
        data = open_dataset(stored)
        planned = plan_streaming(data, chosen, processes=4, on_machine=4, batches=41, seed=0)
        assert planned
        return planned.room

    for mib, end in ((1, ""), (2, ", or a smaller shuffle_window")):
        monkeypatch.setenv(CACHE_VARIABLE, str(mib))
        held = [room()]
        with pytest.raises(UserError, match=rf" 0\.7 MiB .* in each of 4 processes, .*; give it 3 or more{end}$"):
            held += [room() for _ in range(3)]
        del held
    monkeypatch.setenv(CACHE_VARIABLE, "3")
    assert len([room() for _ in range(4)]) == 4


@pytest.mark.usefixtures("no_memory")
def test_a_shard_that_is_gone_is_named(
    stored: Path, s3_proxy: Proxy, cache: Path, tmp_path: Path, server: S3Server
) -> None:
    gone = f"{PREFIX}/{open_dataset(stored).document.splits['train'].shards[7].images.sha256}.npy"
    with server.client.get_object(BUCKET, gone) as response:
        content = response.read()
    server.client.remove_object(BUCKET, gone)
    try:
        with pytest.raises(
            CorruptDataError, match=rf"^s3://{BUCKET}/{gone} cannot be used .*; prepare the dataset again"
        ):
            trained(stored, tmp_path / "model", **STREAMED)
    finally:
        server.client.put_object(BUCKET, gone, BytesIO(content), len(content))
    assert held(cache) == 0


@pytest.mark.usefixtures("s3_proxy")
def test_a_reader_whose_room_is_gone_closes(stored: Path, cache: Path) -> None:
    """As in a process that is interrupted within an epoch: its rooms go at its end, and its generators after them."""
    data = open_dataset(stored)
    room = data.stored.reserve(2**20)
    reading = StreamedSplit(data, "train", room, None).read([torch.arange(50), torch.arange(50, 100)], 1)
    next(reading)
    room.close()
    reading.close()
    assert [*(cache / "shards").iterdir()] == []


HOLDER = """
import sys, time
from components.shared.data.dataset import open_dataset
room = open_dataset(sys.argv[1]).stored.reserve(2**20)
(room.folder / "shard").write_bytes(b"half")
print("ready", flush=True)
time.sleep(600)
"""


def test_what_a_killed_process_had_of_the_cache_is_free(
    stored: Path, s3_proxy: Proxy, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "1")
    shards = open_dataset(stored).stored
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(stored)], cwd=ROOT, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout and other.stdout.readline() == b"ready\n"
            assert shards.free_bytes() == 0 and held(cache) == 4
            with pytest.raises(NoRoom):
                shards.reserve(1)
        finally:
            other.kill()
    assert shards.free_bytes() == 2**20 and held(cache) == 0
    room = shards.reserve(2**20)
    assert shards.free_bytes() == 0
    del room
    assert shards.free_bytes() == 2**20 and list((cache / "shards").iterdir()) == []


@pytest.mark.usefixtures("s3_proxy", "no_memory")
def test_a_failed_trial_leaves_the_cache_to_the_next(
    stored: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "1")  # of which one training takes 0.7
    common = {**STREAMED, "epochs": 1, "optimizer": "sgd"}
    trial(
        dataset=stored,
        planned=planned({"learning_rate": 1e30}, {"learning_rate": 0.05}, **common),
        trials=tmp_path / "trials",
    )
    errors = [TrialDocument.read(tmp_path / "trials" / number / "trial.json").error for number in "12"]
    assert errors[0] and "became nan" in errors[0].message
    assert errors[1] is None
