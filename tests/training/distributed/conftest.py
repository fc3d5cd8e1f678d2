"""A store, a dataset in it, and a cluster with Kubeflow Trainer."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from components.shared.storage.client import Store, open_store
from tests.servers.s3_server import BUCKET, S3Server
from tests.servers.trainer_server import TrainerServer, trainer_server
from tests.trained_digits import write_stored_digits

ROOT = Path(__file__).parents[3]
RUN_ID = "5e9f2f6c-0001-4ad6-9d3f-2f8f0f6f0001"


@pytest.fixture
def store(server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    """A store of the test's own, which this process and its children reach."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RUN_ID", RUN_ID)
    return open_store(f"s3://{BUCKET}/team/{tmp_path.name}", server.environment)


@pytest.fixture
def digits(store: Store, tmp_path: Path) -> Path:
    """A dataset whose shards are in the store."""
    return write_stored_digits(tmp_path / "digits", store)


@pytest.fixture
def trainer(store: Store, server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrainerServer]:
    """A cluster with Trainer, in which this process seems to be."""
    (tmp_path / "pods").mkdir()
    with trainer_server(tmp_path / "pods", server.environment) as running:
        running.write_kubeconfig(tmp_path / ".kube" / "config")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("STEP_IMAGE", "registry/torch@sha256:1")
        monkeypatch.setenv("SERVICE_ACCOUNT", "pipeline-runner")
        yield running
