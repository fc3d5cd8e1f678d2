"""The processes on the nodes of a TrainJob: pytest tests/entrypoints/test_trainjob_worker.py"""

import pytest

from components.entrypoints import trainjob_worker
from components.shared.core.errors import UserError
from components.shared.storage.client import open_store
from components.shared.training.distributed.handoff import Job
from tests.servers.s3_server import BUCKET, S3Server


def test_a_worker_has_nothing_to_do_after_the_end(
    server: S3Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    job = Job(open_store(f"s3://{BUCKET}/worker", server.environment), "train-1")
    trainjob_worker.main(job.uri)  # nobody holds the lease
    job.fail(UserError("an error"))
    trainjob_worker.main(job.uri)
    assert capsys.readouterr().out.count("nothing is left to do") == 2
    assert str(job.result()) == "an error"
