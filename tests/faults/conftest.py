"""What the tests of faults share."""

import time

import pytest

from tests.faults.whole_runs import Reference, Run
from tests.servers.s3_server import S3Server


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, server: S3Server) -> Reference:
    run = Run(tmp_path_factory.mktemp("reference"), "reference", server)
    started = time.monotonic()
    digest = run.finish()
    seconds = time.monotonic() - started
    run.check_store()
    steps = {name: step["seconds"] for name, step in run.read("summary.json")["steps"].items()}
    return Reference(run, digest, seconds, steps)
