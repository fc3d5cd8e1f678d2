"""A training that other machines do: what is to be done, and how it ended, in the store.

jobs/<name>/job.json      what is to be done: all that components/entrypoints/trainjob_worker.py needs
jobs/<name>/lease.json    held by the step that waits for the end, see lease.py
jobs/<name>/model/        the files of the model's folder
jobs/<name>/result.json   how it ended, written last: those files' digests, or the mistake that the user can mend
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from components.shared.core.errors import CorruptDataError
from components.shared.core.files import Document, json_bytes, parse_json, sha256_json
from components.shared.core.schema import check_fields, is_count, is_map, is_size
from components.shared.storage.client import Store
from components.shared.storage.errors import Conflict

FOLDER = "jobs"
FORMAT, RESULT_FORMAT = "torch2kubeflow/job", "torch2kubeflow/job-result"


def job_name(**facts: object) -> str:
    """The name of the job whose weights the facts determine: equal jobs have equal names, and these are DNS labels."""
    return f"train-{sha256_json(facts)[:24]}"


class Job:
    """One job in the store."""

    def __init__(self, store: Store, name: str) -> None:
        """Make no request yet."""
        self._store, self.name = store, name
        self._folder = f"{FOLDER}/{name}"
        self.lease = f"{self._folder}/lease.json"

    @property
    def uri(self) -> str:
        """Its address, which components/entrypoints/trainjob_worker.py takes."""
        return self._store.uri(self._folder)

    def write(self, task: Document) -> None:
        """Say what is to be done; what an earlier job of the name has left, but for its lease, is removed."""
        found = [entry.name for entry in self._store.list(self._folder)]
        self._store.remove(*(name for name in found if name != self.lease))
        self._store.put_bytes(json_bytes({"format": FORMAT, **task}), f"{self._folder}/job.json")

    def read(self) -> Document:
        """What is to be done; UserError where it is not there or nothing of ours."""
        name = f"{self._folder}/job.json"
        content, _ = self._store.get_bytes(name)
        task = parse_json(content, FORMAT, self._store.uri(name))
        check_fields(task, _FIELDS, self._store.uri(name), "run the pipeline again")
        return task

    def succeed(self, folder: Path) -> None:
        """Send the model's folder, and then the result."""
        files = {}
        for path in sorted(folder.iterdir()):
            files[path.name] = self._store.put_file(path, f"{self._folder}/model/{path.name}")
        self._end(files=files)

    def fail(self, mistake: str) -> None:
        """Tell a mistake that the user can mend."""
        self._end(mistake=mistake)

    def result(self) -> Document | None:
        """`files`, which maps each file of the model to its digest, or `mistake`; None where it has not ended."""
        name = f"{self._folder}/result.json"
        if not self._store.exists(name):
            return None
        content, _ = self._store.get_bytes(name)
        return parse_json(content, RESULT_FORMAT, self._store.uri(name))

    def fetch(self, files: dict[str, str], folder: Path) -> None:
        """Bring the model's files into a folder; CorruptDataError where one is not what its digest says."""
        for name, sha256 in files.items():
            if Path(name).name != name:
                raise CorruptDataError(f"{self.uri}/result.json names the file {name!r}; run the pipeline again")
            self._store.get_file(f"{self._folder}/model/{name}", folder / name, sha256)

    def remove(self) -> None:
        """Leave nothing of it in the store."""
        self._store.remove(*(entry.name for entry in self._store.list(self._folder)))

    def _end(self, **how: object) -> None:
        with suppress(Conflict):  # another process has told it
            content = json_bytes({"format": RESULT_FORMAT, **how})
            self._store.put_bytes(content, f"{self._folder}/result.json", if_absent=True)


_FIELDS: dict[str, Callable[[Document], bool]] = {
    "dataset": lambda d: isinstance(d["dataset"], dict),
    "parameters": lambda d: is_map(d["parameters"], lambda value: True),
    "seed": lambda d: is_count(d["seed"]),
    "threads": lambda d: is_count(d["threads"]),
    "checkpoint_seconds": lambda d: is_size(d["checkpoint_seconds"]),
}
