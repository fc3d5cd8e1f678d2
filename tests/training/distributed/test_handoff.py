"""Tasks and models that pass through the store: pytest tests/training/distributed/test_handoff.py"""

from pathlib import Path

import pytest

from components.shared.core.errors import CorruptDataError, UserError
from components.shared.storage.client import Store
from components.shared.training.distributed.handoff import Job, job_name


def test_equal_jobs_have_equal_names() -> None:
    assert job_name(seed=1, epochs=2) == job_name(epochs=2, seed=1) != job_name(epochs=2, seed=2)


def test_a_model_is_checked_by_its_digests(store: Store, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("{}")
    job = Job(store, "train-1")
    job.succeed(tmp_path / "model")
    files = job.result()
    assert isinstance(files, dict) and list(files) == ["model.json"]
    store.put_bytes(b"other", "jobs/train-1/model/model.json")
    with pytest.raises(CorruptDataError):
        job.fetch(files, tmp_path)


def test_the_first_of_two_errors_is_the_result(store: Store) -> None:
    job = Job(store, "train-1")
    assert job.result() is None
    job.fail(CorruptDataError("shard 3 is damaged", "prepare the data again"))
    job.fail(UserError("an error of a second process"))
    result = job.result()
    assert type(result) is CorruptDataError
    assert (result.message, result.remedy) == ("shard 3 is damaged", "prepare the data again")
