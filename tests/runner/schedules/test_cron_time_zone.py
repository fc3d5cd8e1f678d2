"""The time zone in which KFP reads crontabs."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kubernetes import client

from components.shared.core.errors import UserError
from runner.schedules import schedule
from tests.runner.schedules.deploy_folder import NIGHTLY, DeployFolder
from tests.runner.verbs import run_verb
from tests.servers.kfp_server import KfpServer
from tests.servers.kube_server import KubeServer, kube_server

Printed = Callable[..., list[str]]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeServer]:
    """A cluster that the kubeconfig names."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with kube_server() as server:
        server.write_kubeconfig(tmp_path / "kubeconfig")
        yield server


def _install_config(**data: str) -> client.V1ConfigMap:
    """The ConfigMap in which KFP's installation has the time zone."""
    metadata = client.V1ObjectMeta(name="pipeline-install-config", namespace="kubeflow")
    return client.V1ConfigMap(metadata=metadata, data=data or None)


def _hours(printed: Printed, *words: str) -> set[str]:
    """The times of day, in UTC, of a recurring run at half past two."""
    lines = printed("add", "nightly", "30 2 * * *", *words)
    return {line.split()[2] for line in lines if line.startswith("  next")}


def test_option(kfp_api: KfpServer, printed: Printed) -> None:
    assert _hours(printed, "--time-zone", "Asia/Tokyo") == {"17:30"}


def test_option_of_apply(kfp_api: KfpServer, folder: DeployFolder) -> None:
    lines = folder.apply("--time-zone", "Asia/Tokyo", schedules={"nightly": NIGHTLY})
    assert {line.split()[2] for line in lines if line.startswith("  next")} == {"17:00"}


def test_unknown_zone_is_refused_before_anything_is_created(kfp_api: KfpServer) -> None:
    with pytest.raises(UserError, match="Asia/Tokio is not a known time zone; give --time-zone NAME such as"):
        run_verb(schedule, "add", "another", "@daily", "--time-zone", "Asia/Tokio")
    assert not kfp_api.recurring_runs


def test_setting_of_the_cluster(kfp_api: KfpServer, cluster: KubeServer, printed: Printed) -> None:
    cluster.add(_install_config(cronScheduleTimezone="Asia/Tokyo"))
    assert _hours(printed, "--context", "loopback") == {"17:30"}


def test_option_overrides_the_cluster(kfp_api: KfpServer, cluster: KubeServer, printed: Printed) -> None:
    cluster.add(_install_config(cronScheduleTimezone="Asia/Tokyo"))
    assert _hours(printed, "--context", "loopback", "--time-zone", "UTC") == {"02:30"}


def test_utc_if_the_cluster_denies_its_setting(kfp_api: KfpServer, cluster: KubeServer, printed: Printed) -> None:
    cluster.add(_install_config(cronScheduleTimezone="Asia/Tokyo"))
    cluster.denied.add("get configmaps")
    assert _hours(printed, "--context", "loopback") == {"02:30"}


@pytest.mark.parametrize("exists", [False, True])
def test_utc_if_the_cluster_has_no_setting(
    kfp_api: KfpServer, cluster: KubeServer, printed: Printed, exists: bool
) -> None:
    if exists:
        cluster.add(_install_config())
    assert _hours(printed, "--context", "loopback") == {"02:30"}
