"""Doctor's checks of Kubeflow Pipelines: its version, access to the runs of a Profile, and tokens."""

from pathlib import Path

import pytest
import yaml

from tests.runner.doctor.objects import PROFILE, Examine, make_profile, set_version
from tests.runner.tokens import jwt
from tests.servers.kfp_server import KfpServer
from tests.servers.kube_server import KubeServer


@pytest.fixture
def profile(cluster: KubeServer, kfp_api: KfpServer, monkeypatch: pytest.MonkeyPatch) -> KubeServer:
    """The cluster with a KFP of many users and one Profile, which the environment names."""
    set_version(kfp_api, "2.17.0", multi_user=True)
    make_profile(cluster)
    monkeypatch.setenv("KFP_NAMESPACE", PROFILE)
    return cluster


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("2.14.3", "problem KFP KFP is 2.14.3, older than 2.17"),
        ("v2.18.0", "ok KFP KFP v2.18.0 answers"),
        ("unknown", "warning KFP KFP answers but does not show its version (unknown)"),
    ],
)
def test_version_of_kfp(cluster: KubeServer, kfp_api: KfpServer, examine: Examine, tag: str, expected: str) -> None:
    set_version(kfp_api, tag)
    assert expected in examine()[1]


def test_access_to_a_profile_is_tried(profile: KubeServer, kfp_api: KfpServer, examine: Examine) -> None:
    code, table = examine()
    assert code == 0, table
    assert "ok KFP this user may list the runs of namespace ada" in table
    assert kfp_api.asked("GET /runs")[0].query["namespace"] == PROFILE


def test_no_access_to_a_profile(profile: KubeServer, kfp_api: KfpServer, examine: Examine) -> None:
    kfp_api.namespaces.clear()
    code, table = examine()
    assert code == 1
    assert "forbids system:serviceaccount:default:default to list runs.pipelines.kubeflow.org in namespace ada" in table
    assert "ok namespace ada is a Profile" in table


def test_token_that_a_profile_needs(profile: KubeServer, kfp_api: KfpServer, examine: Examine) -> None:
    kfp_api.token = "another"
    code, table = examine()
    assert code == 1
    assert "ok KFP KFP 2.17.0 answers, multi-user" in table
    assert "refuses the credentials (401): none were given" in table


def test_no_profile_is_named(profile: KubeServer, examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KFP_NAMESPACE")
    code, table = examine()
    assert code == 1
    first = "problem KFP this KFP has many users -> name the Profile in which the runs live with --namespace"
    assert table.splitlines()[0] == first
    assert {line.split()[1] for line in table.splitlines()[1:-2]} == {"images"}
    assert not profile.requests


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-7300, "problem KFP the token for KFP expired 2 hours ago -> give a new one"),
        (610, "warning KFP the token for KFP expires in 10 minutes -> give a new one before then"),
        (3 * 86400 + 60, "ok KFP the token for KFP expires in 3 days"),
    ],
)
def test_token_for_kfp_expires(
    cluster: KubeServer, examine: Examine, monkeypatch: pytest.MonkeyPatch, seconds: int, expected: str
) -> None:
    monkeypatch.setenv("KFP_EXISTING_TOKEN", jwt(seconds))
    code, table = examine()
    assert table.splitlines()[0] == expected
    assert code == expected.startswith("problem")


def test_token_in_a_file_expires(cluster: KubeServer, examine: Examine, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(jwt(610))
    assert "warning KFP the token for KFP expires in 10" in examine("--token-file", str(tmp_path / "token"))[1]


def test_token_that_kubernetes_renews(
    cluster: KubeServer, examine: Examine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(jwt(610))
    monkeypatch.setattr("runner.cluster.options.PROJECTED_TOKEN", tmp_path / "token")
    _, table = examine("--token-file", str(tmp_path / "token"))
    assert "ok KFP the token for KFP expires in 10 minutes, and is renewed before" in table


def test_expired_token_for_kubernetes(cluster: KubeServer, examine: Examine, tmp_path: Path) -> None:
    path = tmp_path / ".kube" / "config"
    document = yaml.safe_load(path.read_text())
    document["users"][0]["user"]["token"] = jwt(-7300)
    path.write_text(yaml.safe_dump(document))
    _, table = examine()
    assert "problem Kubernetes the token for Kubernetes expired 2 hours ago -> log in again" in table
    assert "problem Kubernetes the Kubernetes API does not know this user (401)" in table
    assert "ok namespace" not in table
