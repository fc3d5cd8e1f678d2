"""Checkpoints of a training in the store, from which it resumes after a kill, with every local file gone.

Each is one safetensors file `checkpoints/<key>/<step>.safetensors`: the tensors, and in its metadata a JSON document
`state` with the other figures, and the `checksum` of both. The key is a digest of all that determines the weights, so
that a retry, a rerun and the next scheduled run find them. The last one holds the complete training: a kill between the
end of the training and the upload of the model costs seconds, and so does a step that must run again after a change of
other code. Once the model has been evaluated, `delete_superseded` of store.py deletes the ones before it.
"""

import hashlib
import signal
import threading
import time
from collections.abc import Iterator, Mapping
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
from components.shared.storage.client import Entry, Store
from components.shared.storage.errors import NoSuchObject
from components.shared.training.checkpoints.state import CheckpointDocument, StateDict
from components.shared.training.checkpoints.store import checkpoint_name, list_checkpoints, step_of
from components.shared.training.distributed.process_group import SINGLE, ProcessGroup

KEEP_LAST = 2
FINAL_SECONDS = 120  # for the store to accept the last checkpoint
GRACE_SECONDS = 20  # the same after SIGTERM; Kubernetes kills after 30
TERMINATED = 128 + signal.SIGTERM  # the exit code that a shell reports


class Resumable(Protocol):
    """A training that can be saved and restored between two steps."""

    @property
    def key(self) -> str:
        """Return the digest of all that determines when the training ends, and with which weights."""

    @property
    def completed_steps(self) -> int:
        """Return the number of steps taken so far."""

    def steps(self) -> Iterator[None]:
        """Take all steps that are left; yield after each."""

    def state_dict(self) -> StateDict:
        """Return all that steps change; names, shapes and dtypes of the tensors are the same at every step."""

    def load_state_dict(self, state: StateDict) -> None:
        """Restore a state. Raises CorruptDataError, with nothing changed, if it is not one of this training."""


def run_resumably(
    training: Resumable, store: Store, seconds: float, scratch: Path, group: ProcessGroup = SINGLE
) -> list[int]:
    """Resume from the newest usable checkpoint, take all steps that are left, and save every `seconds` and at the end.

    Returns the steps of the checkpoints that stay in the store. They are uploaded in the background, by way of the
    folder `scratch`; a store that fails or hangs does not stop the training. After SIGTERM one more checkpoint is
    saved, and the process ends by SystemExit. Of several processes the first reads and writes. Raises UserError if the
    store cannot be read at the start.
    """
    manager = CheckpointManager(store, training.key, scratch)
    if group.is_first:
        manager.resume(training)
    if group.size > 1:
        training.load_state_dict(group.broadcast_object(lambda: _on_cpu(training.state_dict())))
    due = time.monotonic() + seconds
    with _catch_sigterm() as terminated:
        for _ in training.steps():
            if terminated.is_set():
                break
            if group.is_first and time.monotonic() >= due and not manager.is_uploading:
                manager.save(training)
                due = time.monotonic() + seconds
    if group.is_first:
        manager.finish(training, GRACE_SECONDS if terminated.is_set() else FINAL_SECONDS)
    if terminated.is_set():
        raise SystemExit(TERMINATED)
    return manager.stored_steps()


class CheckpointManager:
    """Restores a training from the checkpoints of its key, and uploads new ones by a thread."""

    def __init__(self, store: Store, key: str, scratch: Path) -> None:
        self._store, self._key = store, key
        self._outgoing, self._incoming = scratch / "outgoing.safetensors", scratch / "incoming.safetensors"
        self._names: list[str] = []  # of the checkpoints in the store, oldest first
        self._current = ""  # the name of the last checkpoint that was restored or uploaded
        self._thread = threading.Thread()
        self._is_abandoned = False  # the upload that runs

    def stored_steps(self) -> list[int]:
        """Return the steps of the checkpoints that stay in the store."""
        return [step_of(name) for name in self._names]

    @property
    def is_uploading(self) -> bool:
        """Return whether a checkpoint is being uploaded."""
        return self._thread.is_alive()

    def resume(self, training: Resumable) -> None:
        """Restore the newest usable checkpoint and log those that are not. Raises UserError if the store fails."""
        entries = list_checkpoints(self._store, self._key)
        self._names = [entry.name for entry in entries]
        for entry in reversed(entries):
            uri = self._store.uri(entry.name)
            try:
                training.load_state_dict(self._read(entry, training.state_dict().tensors))
            except NoSuchObject:
                continue  # another training of this key has deleted it meanwhile
            except CorruptDataError as error:
                log.info(f"{uri} was not used: {error}")
            else:
                self._current = entry.name
                log.info(f"resumed after step {training.completed_steps:,}, from {uri}")
                return

    def save(self, training: Resumable) -> None:
        """Copy the state and upload it by a thread; no other upload may be running."""
        tensors, document = _on_cpu(training.state_dict())
        arguments = (self._name(training), tensors, document.to_json().decode())
        self._thread = threading.Thread(target=self._upload, args=arguments, daemon=True)
        self._thread.start()

    def finish(self, training: Resumable, seconds: float) -> None:
        """Upload the last state unless it is in the store; abandon an upload that takes longer than `seconds`."""
        end = time.monotonic() + seconds
        self._wait(end)
        if not self.is_uploading and self._current != self._name(training):
            self.save(training)
            self._wait(end)
        if self.is_uploading:
            step = training.completed_steps
            self._is_abandoned = True
            log.info(f"the checkpoint of step {step:,} was not saved: the store took more than {seconds} s")
            self._outgoing.unlink(missing_ok=True)

    def _wait(self, end: float) -> None:
        if self.is_uploading:
            self._thread.join(max(0, end - time.monotonic()))

    def _name(self, training: Resumable) -> str:
        return checkpoint_name(self._key, training.completed_steps)

    def _upload(self, name: str, tensors: dict[str, Tensor], text: str) -> None:
        """Upload a checkpoint, and delete all but the newest of this process and of those it found at the start."""
        try:
            save_file(tensors, self._outgoing, {"state": text, "checksum": _checksum(tensors, text)})
            self._store.put_file(self._outgoing, name)
            self._current = name
            self._names = [other for other in self._names if other != name] + [name]
            self._store.remove(*self._names[:-KEEP_LAST])
            del self._names[:-KEEP_LAST]
        except Exception as error:
            reason = str(error) or type(error).__name__
            if not self._is_abandoned:
                log.info(f"the checkpoint of step {step_of(name):,} was not saved, the training continues: {reason}")
            if not isinstance(error, UserError | OSError | SafetensorError):
                raise  # a bug, of which Python prints the traceback
        finally:
            self._outgoing.unlink(missing_ok=True)

    def _read(self, entry: Entry, expected: Mapping[str, Tensor]) -> StateDict:
        """Return the state in a checkpoint. Raises CorruptDataError if it is not one of this training."""
        limit = sum(tensor.nbytes for tensor in expected.values()) + CheckpointDocument.MAX_BYTES
        if entry.size > limit:
            raise CorruptDataError(f"it has {entry.size:,} bytes, and {limit:,} are allowed")
        self._store.get_file(entry.name, self._incoming)
        try:
            with safe_open(self._incoming, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise CorruptDataError(f"it is not a safetensors file ({error})") from None
        finally:
            self._incoming.unlink()
        if _kinds(tensors) != _kinds(expected):
            raise CorruptDataError("its tensors are not those of this training")
        text = metadata.get("state", "")
        if metadata.get("checksum") != _checksum(tensors, text):
            raise CorruptDataError("it differs from its checksum")
        with raise_as_corrupt():
            document = CheckpointDocument.parse(text.encode(), "its state")
        if document.key != self._key:
            raise CorruptDataError(f"it was written under the key {document.key!r}")
        return StateDict(tensors, document)


def _on_cpu(state: StateDict) -> StateDict:
    """Return a copy of the state that later steps do not change."""
    tensors = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in state.tensors.items()
    }
    return StateDict(tensors, state.document)


def _kinds(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def _checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    """Return the SHA-256 of the document's text and the tensors' bytes, ordered by name."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def _catch_sigterm() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM sets instead of ending the process; outside the main thread nothing sets it."""
    terminated = threading.Event()

    def set_event(_signal: int, _frame: FrameType | None) -> None:
        terminated.set()

    if threading.current_thread() is not threading.main_thread():
        yield terminated
        return
    previous = signal.signal(signal.SIGTERM, set_event)
    try:
        yield terminated
    finally:
        signal.signal(signal.SIGTERM, previous)
