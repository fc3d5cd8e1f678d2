"""A training that other processes carry out: the task they are given, and the result that ended it.

launch.py passes both through a folder to processes of this machine, handoff.py through the store to other machines.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from components.shared.core.errors import (
    TYPES,
    CorruptDataError,
    UserError,
    error_from_json,
    raise_as_corrupt,
)
from components.shared.core.files import Document, json_bytes, parse_json
from components.shared.core.schema import check_fields, is_count, is_map, is_size, is_text

TASK, RESULT = "job.json", "result.json"
FORMAT, RESULT_FORMAT = "torch2kubeflow/job", "torch2kubeflow/job-result"
AGAIN = "run the pipeline again"

Result = dict[str, str] | UserError  # the digest of each file of the model by its name, or why there is none


@dataclass(frozen=True)
class Task:
    """The arguments of a training."""

    dataset: str | Document  # its folder, or its document if its shards are in the store
    parameters: Document  # of the pipeline, those in Settings
    seed: int
    threads: int
    store: str
    checkpoint_seconds: int

    def to_json(self) -> bytes:
        """Return the document that `from_json` reads."""
        return json_bytes({"format": FORMAT, **asdict(self)})

    @classmethod
    def from_json(cls, content: bytes, name: str) -> "Task":
        """Return the task in the bytes of `name`. Raises UserError if they hold none."""
        document = parse_json(content, FORMAT, name)
        check_fields(document, _FIELDS, name, AGAIN)
        return cls(**{field: document[field] for field in _FIELDS})

    def train(self, folder: Path) -> None:
        """Train, as one of the processes that torchrun started; the first writes the model into `folder`."""
        from components.shared.data.dataset import Dataset, check_document, open_dataset
        from components.shared.parameters.training import Settings
        from components.shared.training.engine import train_model  # PyTorch: seconds, only if there is something to do

        if isinstance(self.dataset, str):
            data = open_dataset(self.dataset)
        else:
            check_document(self.dataset, "the dataset of the task")
            data = Dataset(folder, self.dataset)
        train_model(
            Settings.of(**self.parameters),
            data,
            seed=self.seed,
            threads=self.threads,
            store=self.store,
            checkpoint_seconds=self.checkpoint_seconds,
            folder=folder,
        )


def result_json(result: Result) -> bytes:
    """Return the document that `read_result` reads."""
    content = result.to_json() if isinstance(result, UserError) else {"files": result}
    return json_bytes({"format": RESULT_FORMAT, **content})


def read_result(content: bytes, name: str) -> Result:
    """Return the result in the bytes of `name`. Raises CorruptDataError if they hold none."""
    with raise_as_corrupt():
        document = parse_json(content, RESULT_FORMAT, name)
    match document:
        case {"files": dict() as files} if is_map(files, is_text):
            return files
        case {"error": str() as kind, "message": str(), "remedy": str()} if kind in TYPES:
            return error_from_json(document)
    raise CorruptDataError(f"{name} holds neither the model's files nor an error", AGAIN)


_FIELDS: dict[str, Callable[[Document], bool]] = {
    "dataset": lambda d: isinstance(d["dataset"], str | dict),
    "parameters": lambda d: is_map(d["parameters"], lambda value: True),
    "seed": lambda d: is_count(d["seed"]),
    "threads": lambda d: is_count(d["threads"]),
    "store": lambda d: is_text(d["store"]),
    "checkpoint_seconds": lambda d: is_size(d["checkpoint_seconds"]),
}
