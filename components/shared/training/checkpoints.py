"""Checkpoints of a training in the store, from which it goes on after a kill, with every local file gone.

Each is one safetensors file `checkpoints/<key>/<step>.safetensors`: the tensors, and in its metadata a JSON document
`state` with the other figures, and the `checksum` of both. The key is a digest of what determines the weights, so that
a retry, a rerun and the next scheduled run find them. The last one holds the complete training: a kill between the
end of the training and the hand-over of the model costs seconds. The model has been handed over when the next step
begins; so step evaluate is the one that removes the checkpoints of its model's training, and leaves those of another
training of the same key that is still on its way.
"""

import hashlib
import json
import re
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from components.shared.core import log
from components.shared.core.errors import CorruptDataError, UserError, raise_as_corrupt
from components.shared.core.files import Document, parse_json
from components.shared.storage.client import Entry, Store
from components.shared.storage.errors import NoSuchObject
from components.shared.training.distributed.process_group import SINGLE, ProcessGroup

FORMAT = "torch2kubeflow/checkpoint"
FOLDER = "checkpoints"
KEPT = 2
MAX_STATE_BYTES = 2**24  # of all that is not tensors: some 50,000 epochs
PATIENCE_SECONDS = 120  # with the store, at the end
GRACE_SECONDS = 20  # the same after SIGTERM; Kubernetes kills after 30
TERMINATED = 128 + signal.SIGTERM

Tensors = Mapping[str, Tensor]


class Resumable(Protocol):
    """A training whose state can be taken between two steps."""

    @property
    def done(self) -> int:
        """The steps taken so far."""

    def steps(self) -> Iterator[None]:
        """Take all steps that are left, and yield after each."""

    def tensors(self) -> Tensors:
        """All tensors that steps change; names, shapes and dtypes are the same at every step."""

    def figures(self) -> Document:
        """All else that steps change, as JSON takes it."""

    def restore(self, tensors: Tensors, figures: Document) -> None:
        """Restore the state. Raises CorruptDataError, with nothing changed, if it is not one of this training."""


def run_resumably(
    training: Resumable, store: Store, key: str, seconds: float, scratch: Path, group: ProcessGroup = SINGLE
) -> list[int]:
    """Take the steps that are left after the newest usable checkpoint, and send another every `seconds` and at the end.

    Returns the steps of the checkpoints that stay in the store, for `forget`. They are sent beside the training, which
    a store that fails or hangs does not stop; files on their way lie in the folder `scratch`. After SIGTERM one more is
    sent, and the process ends by SystemExit. Of several processes the first reads and writes. UserError where the store
    cannot be read at the start.
    """
    checkpoints = _Checkpoints(store, key, scratch)
    if group.is_first:
        checkpoints.resume(training)
    if group.size > 1:
        training.restore(*group.broadcast_object(lambda: (_copied(training.tensors()), training.figures())))
    due = time.monotonic() + seconds
    with _sigterm_told() as terminated:
        for _ in training.steps():
            if terminated.is_set():
                break
            if group.is_first and time.monotonic() >= due and not checkpoints.is_busy:
                checkpoints.write(training)
                due = time.monotonic() + seconds
    if group.is_first:
        checkpoints.finish(training, GRACE_SECONDS if terminated.is_set() else PATIENCE_SECONDS)
    if terminated.is_set():
        raise SystemExit(TERMINATED)
    return checkpoints.steps()


def forget(store: Store, key: str, steps: Iterable[int]) -> None:
    """Remove the checkpoints of a key that were taken after so many steps; UserError where the store fails."""
    store.remove(*(_name(key, step) for step in steps))


class _Checkpoints:
    """Those of one key, read at the start and written by a thread."""

    def __init__(self, store: Store, key: str, scratch: Path) -> None:
        self._store, self._key, self._scratch = store, key, scratch
        self._folder = f"{FOLDER}/{key}"
        self._sent = scratch / "sent.safetensors"
        self._names: list[str] = []  # of those to be removed when there are newer ones
        self._newest = ""  # that was restored or has been sent
        self._thread = threading.Thread()

    def steps(self) -> list[int]:
        """After how many steps each was taken that this writer leaves in the store."""
        return [int(Path(name).stem) for name in self._names]

    @property
    def is_busy(self) -> bool:
        """Whether one is on its way."""
        return self._thread.is_alive()

    def resume(self, training: Resumable) -> None:
        """Restore the newest usable one and log those that are not. Raises UserError if the store fails."""
        pattern = re.compile(rf"{self._folder}/\d{{10}}\.safetensors")
        entries = [entry for entry in self._store.list(self._folder) if pattern.fullmatch(entry.name)]
        self._names = [entry.name for entry in entries]
        for entry in reversed(entries):
            try:
                training.restore(*self._read(entry, training.tensors()))
                self._newest = entry.name
            except NoSuchObject:
                continue  # another writer of this key has removed it meanwhile
            except CorruptDataError as error:
                log.info(f"{self._store.uri(entry.name)} is not used: {error}")
            else:
                log.info(f"goes on after step {training.done:,}, from {self._store.uri(entry.name)}")
                return

    def write(self, training: Resumable) -> None:
        """Copy the state and send it by a thread, while none is on its way."""
        tensors = _copied(training.tensors())
        state = json.dumps({"format": FORMAT, "key": self._key, **training.figures()}, allow_nan=False)
        arguments = (self._name(training.done), tensors, state)
        self._thread = threading.Thread(target=self._send, args=arguments, daemon=True)
        self._thread.start()

    def finish(self, training: Resumable, seconds: float) -> None:
        """Send the state, if it is not there yet; what takes more than so many seconds is told and left alone."""
        end = time.monotonic() + seconds
        self._wait(end)
        if not self.is_busy and self._newest != self._name(training.done):
            self.write(training)
            self._wait(end)
        if self.is_busy:
            log.info(f"the checkpoint of step {training.done:,} was not kept: the store took more than {seconds} s")
            self._sent.unlink(missing_ok=True)

    def _wait(self, end: float) -> None:
        if self.is_busy:
            self._thread.join(max(0, end - time.monotonic()))

    def _name(self, done: int) -> str:
        return _name(self._key, done)

    def _send(self, name: str, tensors: dict[str, Tensor], state: str) -> None:
        """Send a checkpoint, and remove all but the newest of this writer and of those it found at the start."""
        try:
            save_file(tensors, self._sent, {"state": state, "checksum": _checksum(tensors, state)})
            self._store.put_file(self._sent, name)
            self._newest = name
            self._names = [other for other in self._names if other != name] + [name]
            self._store.remove(*self._names[:-KEPT])
            del self._names[:-KEPT]
        except (UserError, OSError, SafetensorError) as error:
            log.info(f"the checkpoint of step {name[-22:-12]} was not kept, the training goes on: {error}")
        finally:
            self._sent.unlink(missing_ok=True)

    def _read(self, entry: Entry, expected: Tensors) -> tuple[dict[str, Tensor], Document]:
        """Tensors and figures of a checkpoint; CorruptDataError where it is not one of this training."""
        limit = sum(tensor.nbytes for tensor in expected.values()) + MAX_STATE_BYTES
        if entry.size > limit:
            raise CorruptDataError(f"it has {entry.size:,} bytes, and {limit:,} are allowed")
        path = self._scratch / "found.safetensors"
        self._store.get_file(entry.name, path)
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise CorruptDataError(f"it is no safetensors file ({error})") from None
        finally:
            path.unlink()
        if _kinds(tensors) != _kinds(expected):
            raise CorruptDataError("its tensors are not those of this training")
        state = metadata.get("state", "")
        if metadata.get("checksum") != _checksum(tensors, state):
            raise CorruptDataError("it differs from its checksum")
        return tensors, self._figures(state)

    def _figures(self, state: str) -> Document:
        """What the training told, and format and key beside it."""
        with raise_as_corrupt():
            document = parse_json(state.encode(), FORMAT, "its state")
        if document.get("key") != self._key:
            raise CorruptDataError(f"it was written under the key {document.get('key')!r}")
        return document


def _name(key: str, done: int) -> str:
    return f"{FOLDER}/{key}/{done:010}.safetensors"


def _copied(tensors: Tensors) -> dict[str, Tensor]:
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def _kinds(tensors: Tensors) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def _checksum(tensors: Tensors, state: str) -> str:
    """The SHA-256 of the state's text and the tensors' bytes, ordered by name."""
    digest = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def _sigterm_told() -> Iterator[threading.Event]:
    """An event that SIGTERM sets instead of ending the process; outside the main thread nothing sets it."""
    terminated = threading.Event()

    def tell(_signal: int, _frame: FrameType | None) -> None:
        terminated.set()

    if threading.current_thread() is not threading.main_thread():
        yield terminated
        return
    former = signal.signal(signal.SIGTERM, tell)
    try:
        yield terminated
    finally:
        signal.signal(signal.SIGTERM, former)
