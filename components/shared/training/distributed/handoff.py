"""A training that other machines do: the task and its result in the store.

jobs/<name>/job.json      the task, for components/entrypoints/trainjob_worker.py
jobs/<name>/lease.json    held by the step that waits for the end, see lease.py
jobs/<name>/model/        the files of the model's folder
jobs/<name>/result.json   written last: the digests of those files, or the error that ended the training
"""

from contextlib import suppress
from pathlib import Path

from components.shared.core.errors import UserError
from components.shared.core.files import sha256_json
from components.shared.storage.client import Store
from components.shared.storage.errors import Conflict
from components.shared.training.distributed.task import RESULT, TASK, Result, TaskDocument, read_result, result_json

FOLDER = "jobs"


def job_name(**facts: object) -> str:
    """Return the name of the job whose weights the facts determine: a DNS label, the same for equal facts."""
    return f"train-{sha256_json(facts)[:24]}"


class Job:
    """One job in the store."""

    def __init__(self, store: Store, name: str) -> None:
        """Refer to a job, without a request."""
        self._store, self.name = store, name
        self._folder = f"{FOLDER}/{name}"
        self.lease = f"{self._folder}/lease.json"

    @property
    def uri(self) -> str:
        """Return its URI, the argument of components/entrypoints/trainjob_worker.py."""
        return self._store.uri(self._folder)

    def write(self, task: TaskDocument) -> None:
        """Store the task; whatever an earlier job of the name has left is removed, except for its lease."""
        found = [entry.name for entry in self._store.list(self._folder)]
        self._store.remove(*(name for name in found if name != self.lease))
        self._store.put_bytes(task.to_json(), f"{self._folder}/{TASK}")

    def read(self) -> TaskDocument:
        """Return the task. Raises UserError if it is missing or invalid."""
        name = f"{self._folder}/{TASK}"
        content, _ = self._store.get_bytes(name)
        return TaskDocument.parse(content, self._store.uri(name))

    def succeed(self, folder: Path) -> None:
        """Store the files of the model's folder, and then the result."""
        files = {}
        for path in sorted(folder.iterdir()):
            files[path.name] = self._store.put_file(path, f"{self._folder}/model/{path.name}")
        self._end(files)

    def fail(self, error: UserError) -> None:
        """Store an error as the result."""
        self._end(error)

    def result(self) -> Result | None:
        """Return the result; None if the job has not ended. Raises CorruptDataError if it is invalid."""
        name = f"{self._folder}/{RESULT}"
        if not self._store.exists(name):
            return None
        content, _ = self._store.get_bytes(name)
        return read_result(content, self._store.uri(name))

    def fetch(self, files: dict[str, str], folder: Path) -> None:
        """Download the model's files into a folder. Raises CorruptDataError if one does not match its digest."""
        for name, sha256 in files.items():
            self._store.get_file(f"{self._folder}/model/{name}", folder / name, sha256)

    def remove(self) -> None:
        """Remove all its objects from the store."""
        self._store.remove(*(entry.name for entry in self._store.list(self._folder)))

    def _end(self, result: Result) -> None:
        with suppress(Conflict):  # another process has reported first
            self._store.put_bytes(result_json(result), f"{self._folder}/{RESULT}", if_absent=True)
