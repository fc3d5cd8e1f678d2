"""Trainings that resume from checkpoints in a real S3 server: pytest tests/training/checkpoints/test_manager.py"""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from components import train as step
from components.shared.core.errors import CorruptDataError, TransientError, UserError
from components.shared.core.files import sha256_file
from components.shared.storage import retry
from components.shared.storage.client import Store, open_store
from components.shared.training import loop
from components.shared.training.augmentation import warp
from components.shared.training.checkpoints import manager as checkpoints
from components.shared.training.checkpoints.manager import run_resumably
from components.shared.training.checkpoints.state import StateDict
from components.shared.training.checkpoints.store import delete_checkpoints, step_of
from tests.fuzz.shelf import Shelf
from tests.models.documents import epoch
from tests.servers.s3_server import BUCKET, Handler, Proxy, S3Server, answer, forward, hang_up, proxy
from tests.trained_digits import training_recipe, write_digits
from tests.training.states import state_of

pytestmark = pytest.mark.slow  # each needs the real server

ROOT = Path(__file__).parents[3]
BATCHES = 40  # in an epoch
PATIENCE = 200  # seconds, for a busy machine
QUICK = {"batch_size": 10, "epochs": 4, "checkpoint_seconds": 1}
IMPATIENT = {"optimizer": "adamw", "learning_rate": 0.1, "ema_decay": 0.0, "epochs": 30, "patience": 2}
SLOW_CHILD = """
import json, sys, time
from components.shared.training import loop
from components.train import train

warp = loop.warp
loop.warp = lambda *words: time.sleep(0.02) or warp(*words)
train(**json.loads(sys.argv[1]))
"""
Files = dict[str, str]


@pytest.fixture
def uri(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty store, with the environment that reaches it."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/test-{time.monotonic_ns()}"


@pytest.fixture
def store(uri: str) -> Store:
    return open_store(uri, os.environ)


@pytest.fixture
def between(server: S3Server, uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before the server, without waits between attempts."""
    monkeypatch.setattr(retry, "MAX_WAIT_SECONDS", 0.0)
    with proxy(server.address) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", between.url)
        yield between


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], None]], None]:
    """Have a function called at the beginning of each step of the next training, with its number from 1."""
    return lambda act: watch(monkeypatch, act)


def watch(patch: pytest.MonkeyPatch, act: Callable[[int], None]) -> None:
    number = count(1)

    def act_and_warp(*words: Any) -> Tensor:
        act(next(number))
        return warp(*words)

    patch.setattr(loop, "warp", act_and_warp)


def quick_recipe(**changes: Any) -> str:
    return training_recipe(**{**QUICK, **changes})


def trained(dataset: Path, folder: Path, store: str = "", **settings: Any) -> Files:
    """The digests of weights and document of a training in this process."""
    step.train(dataset=dataset, recipe=quick_recipe(store=store, **settings), model=folder)
    return digests(folder)


def digests(folder: Path) -> Files:
    assert sorted(path.name for path in folder.iterdir()) == ["history.json", "model.json", "model.safetensors"]
    return {name: sha256_file(folder / name) for name in ("model.safetensors", "model.json")}


def start_slow_child(dataset: Path, folder: Path, store: str, **settings: Any) -> subprocess.Popen[str]:
    arguments = {"dataset": str(dataset), "recipe": quick_recipe(store=store, **settings), "model": str(folder)}
    command = [sys.executable, "-c", SLOW_CHILD, json.dumps(arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def stored_steps(store: Store) -> list[int]:
    return [step_of(entry.name) for entry in store.list("checkpoints")]


def wait_until(happened: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    "settings",
    [{}, {"optimizer": "sgd", "learning_rate": 0.05}, {"optimizer": "adamw"}, IMPATIENT],
    ids=["muon", "sgd", "adamw", "patience"],
)
def test_four_sigterms_do_not_change_the_model(
    digits: Path, tmp_path: Path, uri: str, at_step: Any, settings: dict[str, Any]
) -> None:
    expected = trained(digits, tmp_path / "whole", **settings)
    ended = json.loads((tmp_path / "whole/history.json").read_text())
    before = signal.getsignal(signal.SIGTERM)
    last = len(ended["epochs"]) * BATCHES
    stops = [1, BATCHES + 17, 2 * BATCHES, last]  # at the beginning, within an epoch, at the end of one, and of all
    for done, stop in zip([0, *stops], stops, strict=False):
        at_step(lambda number, stop=stop - done: terminate() if number == stop else None)
        with pytest.raises(SystemExit, match="143"):
            trained(digits, tmp_path / "model", uri, **settings)
        assert not list(tmp_path.glob("model*"))
        assert stored_steps(open_store(uri, os.environ))[-1] == stop
    at_step(pytest.fail)
    assert trained(digits, tmp_path / "model", uri, **settings) == expected
    history = json.loads((tmp_path / "model/history.json").read_text())
    assert [e["val_loss"] for e in history["epochs"]] == [e["val_loss"] for e in ended["epochs"]]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_sigterm_does_not_change_batch_norm_and_dropout(tmp_path: Path, uri: str, at_step: Any) -> None:
    small = write_digits(tmp_path / "digits", enlarge=1)
    settings: dict[str, Any] = {"network": "mobilenet_v2", "optimizer": "adamw", "batch_size": 100, "epochs": 2}
    expected = trained(small, tmp_path / "whole", **settings)
    for stop in (3, 4):  # after 3 of 8 steps, and after 7
        at_step(lambda number, stop=stop: terminate() if number == stop else None)
        with pytest.raises(SystemExit, match="143"):
            trained(small, tmp_path / "model", uri, **settings)
    at_step(lambda _: None)
    assert trained(small, tmp_path / "model", uri, **settings) == expected


@pytest.mark.parametrize(
    ("settings", "moment"),
    [
        ({}, "upload"),
        ({"optimizer": "sgd", "learning_rate": 0.05}, "epoch"),
        (IMPATIENT, "epoch"),
    ],
    ids=["muon", "sgd", "adamw"],
)
def test_a_kill_that_loses_local_files_does_not_change_the_model(
    digits: Path,
    tmp_path: Path,
    store: Store,
    between: Proxy,
    settings: dict[str, Any],
    moment: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    held, puts = threading.Event(), count(1)

    def hold_the_second(handler: Handler) -> None:
        if handler.command == "PUT" and next(puts) > 1:
            held.set()
            child.wait()
            return handler.hang_up()
        forward(handler)

    between.always = hold_the_second if moment == "upload" else None
    with start_slow_child(digits, tmp_path / "lost", store.uri(), **settings) as child:
        wait_until(held.is_set if moment == "upload" else lambda: stored_steps(store))
        child.kill()
    between.always = None
    stored = stored_steps(store)[-1]
    found = trained(digits, tmp_path / "model", store.uri(), **settings)
    assert f"resumed after step {stored:,}, from {store.uri()}/checkpoints/" in capsys.readouterr().out
    assert stored > 0 and found == trained(digits, tmp_path / "whole", **settings)


def test_two_trainings_of_one_key_end_in_the_same_model(
    digits: Path, tmp_path: Path, store: Store, at_step: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = trained(digits, tmp_path / "whole")
    at_step(lambda _: time.sleep(0.01))
    with start_slow_child(digits, tmp_path / "other", store.uri()) as child:
        wait_until(lambda: stored_steps(store))
        assert trained(digits, tmp_path / "model", store.uri()) == whole
        output = child.communicate(timeout=PATIENCE)[0] + capsys.readouterr().out
    assert child.returncode == 0 and digests(tmp_path / "other") == whole
    assert "resumed after" in output and "not saved" not in output and "not used" not in output
    assert stored_steps(store)[-1] == 4 * BATCHES


def test_a_store_that_fails_does_not_stop_the_training(
    digits: Path, tmp_path: Path, store: Store, between: Proxy, at_step: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail_for_a_while(number: int) -> None:
        if number == 1:
            between.script += [hang_up] * 8 + [answer(403, "AccessDenied")] * 100
        if len(between.script) < 100 or number == 4 * BATCHES - 5:
            between.script.clear()
        else:
            time.sleep(0.03)

    at_step(fail_for_a_while)
    found = trained(digits, tmp_path / "model", store.uri())
    output = capsys.readouterr().out
    assert "was not saved, the training continues: http://127.0.0.1" in output and "access is denied" in output
    assert stored_steps(store)[-1] == 4 * BATCHES
    at_step(lambda _: None)
    assert found == trained(digits, tmp_path / "whole")


def test_an_unreachable_store_is_refused_before_the_training(
    digits: Path, tmp_path: Path, uri: str, between: Proxy, at_step: Any
) -> None:
    at_step(pytest.fail)
    between.script += [hang_up] * 8
    with pytest.raises(TransientError, match="broke the connection 8 times"):
        trained(digits, tmp_path / "model", uri)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def stopped_twice(
    server: S3Server, digits: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, bytes], Files]:
    """Two checkpoints of a training, name -> content, and the digests of its model."""
    store = open_store(f"s3://{BUCKET}/kept", server.environment)
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        watch(patch, lambda number: terminate() if number in (51, 81) else None)
        for _ in range(2):
            with pytest.raises(SystemExit):  # however slow the machine is, no checkpoint but these two
                trained(digits, folder / "model", store.uri(), epochs=3, checkpoint_seconds=600)
    contents = {entry.name: store.get_bytes(entry.name)[0] for entry in store.list()}
    return contents, trained(digits, folder / "whole", epochs=3)


def rewritten(
    content: bytes,
    folder: Path,
    tensors: Mapping[str, Tensor | None] = {},
    is_signed: bool = True,
    **figures: Any,
) -> bytes:
    """A checkpoint with other tensors (None removes one) or figures, and a checksum that fits, or the former one."""
    (folder / "checkpoint").write_bytes(content)
    with safe_open(folder / "checkpoint", "pt") as file:
        metadata = file.metadata()
        changed = {name: file.get_tensor(name) for name in file.keys()} | dict(tensors)  # noqa: SIM118
    whole = {name: tensor for name, tensor in changed.items() if tensor is not None}
    state = json.dumps({**json.loads(metadata["state"]), **figures})
    if is_signed:
        parts = [whole[name].numpy().tobytes() for name in sorted(whole)]
        metadata["checksum"] = hashlib.sha256(b"".join([state.encode(), *parts])).hexdigest()
    return save(whole, {**metadata, "state": state})


def rows(*numbers: int) -> list[dict[str, Any]]:
    return [epoch(number).model_dump() for number in numbers]


UNUSABLE: dict[str, tuple[Callable[[bytes, Path], bytes], str]] = {
    "truncated": (lambda c, _: c[:-100], "it is not a safetensors file"),
    "empty": (lambda *_: b"", "it is not a safetensors file"),
    "another file": (lambda *_: b"pickle" * 1000, "it is not a safetensors file"),
    "flipped": (lambda c, _: c[:-9] + bytes([c[-9] ^ 1]) + c[-8:], "it differs from its checksum"),
    "state changed": (lambda c, f: rewritten(c, f, is_signed=False, step=3), "it differs from its checksum"),
    "no state": (lambda *_: save({"network.c1.bias": torch.zeros(6)}), "tensors are not those of this training"),
    "too large": (lambda c, f: rewritten(c, f, {"more": torch.zeros(2**22)}), r"it has 1\d,\d{3},\d{3} bytes, and 1"),
    "shape": (lambda c, f: rewritten(c, f, {"best.c1.bias": torch.zeros(7)}), "tensors are not those of this training"),
    "type": (
        lambda c, f: rewritten(c, f, {"best.c1.bias": torch.zeros(6, dtype=torch.int32)}),
        "its tensors are not those of this training",
    ),
    "tensor missing": (lambda c, f: rewritten(c, f, {"optimizer.0.velocity": None}), "its tensors are not those"),
    "random state": (
        lambda c, f: rewritten(c, f, {"generator.own": torch.zeros(5056, dtype=torch.uint8)}),
        "it holds no state of a random generator",
    ),
    "key": (lambda c, f: rewritten(c, f, key="0" * 64), "it was written under the key '00000"),
    "format": (lambda c, f: rewritten(c, f, format="another"), "its state has the format 'another'"),
    "step": (lambda c, f: rewritten(c, f, step=BATCHES), "its state is not one of this training"),
    "too many epochs": (lambda c, f: rewritten(c, f, epochs=rows(1, 2, 3)), "its state is not one of this training"),
    "epochs": (lambda c, f: rewritten(c, f, epochs=rows(1, 1)), "its state has no valid field 'epochs'"),
    "epoch": (lambda c, f: rewritten(c, f, epochs=[{"epoch": 1}]), r"has no valid field 'epochs\.0\.learning_rate'"),
    "stopped": (lambda c, f: rewritten(c, f, stopped="in an epoch"), "its state has no valid field 'stopped'"),
    "not finite": (lambda c, f: rewritten(c, f, total_loss=float("nan")), "its state is no"),
}


@pytest.mark.parametrize("damage", UNUSABLE)
def test_an_unusable_checkpoint_is_skipped_for_an_older_one(
    digits: Path,
    tmp_path: Path,
    store: Store,
    stopped_twice: Any,
    damage: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ((older, good), (newer, bad)), expected = stopped_twice[0].items(), stopped_twice[1]
    spoil, reason = UNUSABLE[damage]
    store.put_bytes(good, older)
    store.put_bytes(spoil(bad, tmp_path), newer)
    assert trained(digits, tmp_path / "model", store.uri(), epochs=3) == expected
    skipped, resumed = capsys.readouterr().out.splitlines()[:2]
    assert skipped.startswith(f"[train] {store.uri(newer)} was not used: ")
    assert re.search(reason, skipped)
    assert resumed.startswith("[train] resumed after step 51, from ")


def test_the_training_restarts_if_its_only_checkpoint_is_corrupt(
    digits: Path,
    tmp_path: Path,
    server: S3Server,
    store: Store,
    stopped_twice: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (_, (newer, content)), expected = stopped_twice[0].items(), stopped_twice[1]
    client, key = server.client, store.uri(newer).removeprefix(f"s3://{BUCKET}/")
    metadata = {"sha256": hashlib.sha256(content).hexdigest()}
    client.put_object(BUCKET, key, BytesIO(bytes([content[0] ^ 1]) + content[1:]), len(content), metadata={**metadata})
    assert trained(digits, tmp_path / "model", store.uri(), epochs=3) == expected
    assert "is damaged: its SHA-256 is" in capsys.readouterr().out


def test_a_checkpoint_may_be_deleted_after_it_was_listed(
    digits: Path,
    tmp_path: Path,
    store: Store,
    stopped_twice: Any,
    between: Proxy,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (older, _), (newer, _) = stopped_twice[0].items()
    for name, content in stopped_twice[0].items():
        store.put_bytes(content, name)

    def vanish(handler: Handler) -> None:
        store.remove(newer)
        forward(handler)

    between.script += [forward, vanish]
    assert trained(digits, tmp_path / "model", store.uri(), epochs=3) == stopped_twice[1]
    assert capsys.readouterr().out.startswith(f"[train] resumed after step 51, from {store.uri(older)}\n")


class Counting:
    """The smallest training: it counts to 50, and calls `act` in each step and once after the last."""

    def __init__(self, act: Callable[[int], object] = bool, key: str = "key") -> None:
        self.completed_steps, self.act, self.key = 0, act, key

    def steps(self) -> Iterator[None]:
        while self.completed_steps < 50:
            self.completed_steps += 1
            self.act(self.completed_steps)
            yield
        self.act(51)

    def state_dict(self) -> StateDict:
        return StateDict({"done": torch.tensor(self.completed_steps)}, state_of(self.key, step=self.completed_steps))

    def load_state_dict(self, state: StateDict) -> None:
        if int(state.tensors["done"]) != state.document.step:
            raise CorruptDataError("the two differ")
        self.completed_steps = state.document.step


def test_the_training_does_not_wait_for_a_slow_store(tmp_path: Path, store: Store, between: Proxy) -> None:
    is_free = threading.Event()

    def puts() -> int:
        return sum(method == "PUT" for method, *_ in between.asked)

    def hold(handler: Handler) -> None:
        assert is_free.wait(PATIENCE)
        forward(handler)

    def act(done: int) -> None:
        if done == 2:
            wait_until(puts)
        if done == 20:
            assert puts() == 1
            is_free.set()
        if done > 20 and puts() < 4:
            time.sleep(0.2)

    between.script += [forward, hold]
    store.put_bytes(b"", "checkpoints/key/README")
    faulty = open_store(store.uri(), {**os.environ, "AWS_ENDPOINT_URL_S3": between.url})
    run_resumably(Counting(act), faulty, 0, tmp_path)
    assert puts() > 3
    names = [entry.name.removeprefix("checkpoints/key/") for entry in store.list()]
    assert len(names) == 3 and names[1:] == ["0000000050.safetensors", "README"]
    assert not list(tmp_path.iterdir())


def test_checkpoints_of_an_earlier_attempt_are_deleted(tmp_path: Path, store: Store) -> None:
    def end_after_an_upload(done: int) -> None:
        if done == 2:
            wait_until(lambda: stored_steps(store))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_resumably(Counting(end_after_an_upload), store, 0, tmp_path)
    first = stored_steps(store)
    training = Counting(lambda _: time.sleep(0.01))
    left = run_resumably(training, store, 0, tmp_path)
    last = stored_steps(store)
    assert left == last
    assert first and not set(first) & set(last) and len(last) == 2 and last[1] == training.completed_steps == 50


def test_a_training_may_run_in_a_thread(tmp_path: Path, store: Store) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(run_resumably, Counting(), store, 1, tmp_path).result()
    assert stored_steps(store) == [50]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(("error", "said"), [(KeyError("etag"), "'etag'"), (MemoryError(), "MemoryError")])
def test_an_upload_that_ends_by_a_bug_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Exception, said: str
) -> None:
    class Broken(Shelf):
        def put_file(self, path: Path, name: str, sha256: str = "") -> str:
            raise error

    store: Any = Broken()
    assert run_resumably(Counting(), store, 999, tmp_path) == []
    expected = f"[log] the checkpoint of step 50 was not saved, the training continues: {said}\n"
    assert capsys.readouterr().out == expected and not list(tmp_path.iterdir())


class Hanging(Shelf):
    """A store that accepts no file before `is_free`, and counts those that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.is_free, self.given = threading.Event(), 0

    def put_file(self, path: Path, name: str, sha256: str = "") -> str:
        self.given += 1
        self.is_free.wait(PATIENCE)
        return super().put_file(path, name, sha256)


@pytest.mark.parametrize("stop", [3, 51, None], ids=["sigterm", "sigterm-after-the-last-step", "end"])
@pytest.mark.parametrize("seconds", [0, 999], ids=["on-its-way", "begun-at-the-end"])
def test_an_upload_that_hangs_is_abandoned_at_the_end(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stop: int | None,
    seconds: float,
) -> None:
    monkeypatch.setattr(checkpoints, "FINAL_SECONDS", PATIENCE if stop else 0.5)
    monkeypatch.setattr(checkpoints, "GRACE_SECONDS", 0.5 if stop else PATIENCE)
    shelf, join, others = Hanging(), threading.Thread.join, {*threading.enumerate()}

    def join_when_asked(thread: threading.Thread, timeout: float | None = None) -> None:
        wait_until(lambda: shelf.given)
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", join_when_asked)
    store: Any = shelf
    training = Counting(lambda done: terminate() if done == stop else None)
    try:
        with pytest.raises(SystemExit) if stop else nullcontext():
            run_resumably(training, store, seconds, tmp_path)
        assert shelf.given == 1 and not list(tmp_path.iterdir())
        output = (
            f"[log] the checkpoint of step {training.completed_steps} was not saved: the store took more than 0.5 s\n"
        )
    finally:
        shelf.is_free.set()
        for thread in {*threading.enumerate()} - others:
            thread.join()
    assert capsys.readouterr().out == output


def test_only_checkpoints_of_the_given_training_are_deleted(tmp_path: Path, store: Store) -> None:
    for key in ("key", "key2"):
        assert run_resumably(Counting(key=key), store, 1, tmp_path) == [50]
    others = "checkpoints/key/0000000007.safetensors"  # of a training that is still running
    store.put_bytes(b"", others)
    delete_checkpoints(store, "key", [50])
    assert [entry.name for entry in store.list()] == [others, "checkpoints/key2/0000000050.safetensors"]
    with pytest.raises(UserError, match="s3://no-such-bucket"):
        delete_checkpoints(open_store("s3://no-such-bucket", os.environ), "key", [50])
