"""A training that other processes carry out: the task they are given, and the result that ended it.

launch.py passes both through a folder to processes of this machine, handoff.py through the store to other machines.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import StringConstraints, model_validator

from components.shared.core.document import Count, Document, JsonObject, Sha256, Size, require
from components.shared.core.errors import TYPES, UserError, error_from_json, raise_as_corrupt
from components.shared.core.files import json_bytes

if TYPE_CHECKING:
    from components.shared.data.dataset import Dataset

TASK, RESULT = "job.json", "result.json"
AGAIN = "run the pipeline again"

FileName = Annotated[str, StringConstraints(pattern=r"^\w[\w.-]*$")]
Result = dict[str, str] | UserError  # the digest of each file of the model by its name, or why there is none


class TaskDocument(Document):
    """`job.json`: the arguments of a training."""

    FORMAT = "torch2kubeflow/job"
    REMEDY = AGAIN

    dataset: str | JsonObject  # its folder, or its document if its shards are in the store
    parameters: JsonObject  # of the pipeline, those in Settings
    seed: Count
    threads: Count
    store: str
    checkpoint_seconds: Size

    def open_dataset(self) -> "Dataset":
        """Open the dataset. Raises UserError if its document is missing or damaged."""
        from components.shared.data.dataset import Dataset, DatasetDocument, open_dataset

        if isinstance(self.dataset, str):
            return open_dataset(self.dataset)
        return Dataset(Path(), DatasetDocument.parse(json_bytes(self.dataset), "the dataset of the task"))

    def train(self, folder: Path) -> None:
        """Train, as one of the processes that torchrun started; the first writes the model into `folder`."""
        from components.shared.parameters.training import Settings
        from components.shared.training.engine import train_model  # PyTorch: seconds, only if there is something to do

        train_model(
            Settings.of(**self.parameters),
            self.open_dataset(),
            seed=self.seed,
            threads=self.threads,
            store=self.store,
            checkpoint_seconds=self.checkpoint_seconds,
            folder=folder,
        )


class ResultDocument(Document):
    """`result.json`: either the files of the model, or the error that ended the training."""

    FORMAT = "torch2kubeflow/job-result"
    REMEDY = AGAIN

    files: dict[FileName, Sha256] | None = None
    error: str | None = None  # its type
    message: str | None = None
    remedy: str | None = None

    @model_validator(mode="after")
    def _has_one_of_both(self) -> Self:
        if self.files is None:
            require("error", self.error in TYPES)
            require("message", self.message is not None)
            require("remedy", self.remedy is not None)
        return self


def result_json(result: Result) -> bytes:
    """Return the document that `read_result` reads."""
    if isinstance(result, UserError):
        return ResultDocument.model_validate(result.to_json()).to_json()
    return ResultDocument(files=result).to_json()


def read_result(content: bytes, name: str) -> Result:
    """Return the result in the bytes of `name`. Raises CorruptDataError if they hold none."""
    with raise_as_corrupt():
        document = ResultDocument.parse(content, name)
    return error_from_json(document.fields()) if document.files is None else document.files
