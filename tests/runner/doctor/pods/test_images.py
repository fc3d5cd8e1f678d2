"""Doctor's check that the cluster can pull the steps' images."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import requests
from kubernetes import client
from kubernetes import config as kube_config

from components import steps
from components.shared.core.errors import UserError
from runner.doctor.cluster import Cluster
from runner.doctor.finding import Finding, ok
from runner.doctor.pods.images import check_images, check_images_from_here
from runner.doctor.preflight import Preflight
from runner.images.registry import _grant, parse
from tests.runner.doctor.objects import STANDALONE, node, pods_with, secret, service_account
from tests.runner.tokens import jwt, registry_token
from tests.servers.image_registry import CHALLENGE, basic_auth, image_registry
from tests.servers.kube_server import KubeServer
from tests.servers.proxy_server import ProxyServer, speak_tls
from tests.servers.web_server import run_web_server

Find = Callable[[str], list[Finding]]
CheckImage = Callable[[str], Finding]
DATA = {"team/data/manifests/1"}  # what the registry has
FROM_HERE = "checked from here, without the cluster's pull secrets"


@pytest.fixture
def find(cluster: KubeServer, tmp_path: Path) -> Find:
    """Return the findings about an image that all steps use, and about its pull secret."""

    def check(name: str) -> list[Finding]:
        with kube_config.new_client_from_config(str(tmp_path / ".kube" / "config")) as api:
            return list(check_images(Cluster(api, STANDALONE, STANDALONE), Preflight({}, pods_with(name))))

    return check


@pytest.fixture
def check_image(find: Find) -> CheckImage:
    """Return the only finding about an image that all steps use."""

    def check(name: str) -> Finding:
        (finding,) = find(name)
        return finding

    return check


def _check_from_here(name: str) -> Finding:
    (finding,) = check_images_from_here(Preflight({}, pods_with(name)))
    return finding


def _add_pull_secret(server: KubeServer, text: str) -> None:
    """Give the pods' service account a pull secret."""
    server.add(secret("pull", **{".dockerconfigjson": text}))
    account = service_account()
    account.image_pull_secrets = [client.V1LocalObjectReference(name="pull")]
    server.add(account)


def test_public_image_without_a_cluster() -> None:
    with image_registry(DATA) as host:
        assert _check_from_here(f"{host}/team/data:1") == ok(f"image {host}/team/data:1 can be pulled; {FROM_HERE}")
        assert _check_from_here(f"{host}/team/data:2").state == "problem"
    assert _check_from_here(f"{host}/team/data:1").state == "unknown"


def test_private_image_without_a_cluster_is_unknown() -> None:
    with image_registry(DATA, login="a:b") as host:
        found = _check_from_here(f"{host}/team/data:1")
    text = f"image {host}/team/data:1 cannot be pulled without credentials (401); {FROM_HERE}"
    assert (found.state, found.text) == ("unknown", text)
    assert "imagePullSecrets of the service account" in found.remedy


@pytest.mark.parametrize(
    ("image", "realm", "is_refused"),
    [
        ("127.0.0.1:5000/a:1", "http://127.0.0.1:5001/token", False),
        ("127.0.0.1:5000/a:1", "https://auth.example.org/token", False),
        ("127.0.0.1:5000/a:1", "http://auth.example.org/token", True),
        ("r.example.org/a:1", "https://auth.example.org/token", False),
        ("r.example.org/a:1", "http://auth.example.org/token", True),
        ("r.example.org/a:1", "http://127.0.0.1/token", True),
        ("r.example.org/a:1", "file:///etc/passwd", True),
    ],
)
def test_a_pull_secret_goes_only_to_https(image: str, realm: str, is_refused: bool) -> None:
    sent: list[tuple[str, object]] = []

    class Session(requests.Session):
        def get(self, url: str | bytes, **options: Any) -> requests.Response:
            sent.append((str(url), options["auth"]))
            return requests.Response()

    named = parse(image)
    assert named
    with pytest.raises(UserError) if is_refused else nullcontext():
        _grant(Session(), named, f'Bearer realm="{realm}"', ("ada", "lovelace"))
    assert sent == ([] if is_refused else [(realm, ("ada", "lovelace"))])


def test_a_realm_without_tls_is_a_problem(check_image: CheckImage) -> None:
    with image_registry(DATA, challenge='Bearer realm="http://auth.example.org/token"') as host:
        found = check_image(f"{host}/team/data:1")
    assert found.state == "problem" and "grants tokens at http://auth.example.org/token, without encr" in found.text


def test_image_without_a_registry_is_a_problem() -> None:
    assert _check_from_here("data:1").state == "problem"


@pytest.mark.parametrize("reference", [":1", f"@sha256:{64 * '0'}"], ids=["tag", "digest"])
def test_image_in_its_registry(check_image: CheckImage, reference: str) -> None:
    with image_registry({f"team/data/manifests/{reference[1:]}"}) as host:
        name = f"{host}/team/data{reference}"
        assert check_image(name) == ok(f"image {name} can be pulled")


def test_image_missing_in_its_registry(check_image: CheckImage) -> None:
    with image_registry(DATA) as host:
        missing = check_image(f"{host}/team/data:2")
    assert (missing.state, missing.text) == ("problem", f"image {host}/team/data:2 is not in its registry")


def test_registry_out_of_reach(check_image: CheckImage) -> None:
    with image_registry(DATA) as host:
        pass
    found = check_image(f"{host}/team/data:1")
    assert (found.state, found.text.partition(" (")[0]) == ("unknown", f"registry {host} gives no usable answer here")


def test_private_image_without_a_pull_secret(check_image: CheckImage) -> None:
    with image_registry(DATA, login="ada:lovelace") as host:
        name = f"{host}/team/data:1"
        found = check_image(name)
    assert (found.state, found.text) == ("problem", f"image {name} cannot be pulled without credentials (401)")


@pytest.mark.parametrize(("login", "state"), [("ada:lovelace", "ok"), ("ada:byron", "problem")])
def test_private_image_with_a_pull_secret(cluster: KubeServer, check_image: CheckImage, login: str, state: str) -> None:
    with image_registry(DATA, login="ada:lovelace") as host:
        _add_pull_secret(cluster, json.dumps({"auths": {host: {"auth": basic_auth(login)}}}))
        assert check_image(f"{host}/team/data:1").state == state


@pytest.mark.parametrize("key", ["https://HOST", "http://HOST/v2/", "HOST/team", "HOST/v1/team/data", "*.0.0.1:PORT"])
def test_pull_secret_is_matched_as_by_kubelet(cluster: KubeServer, check_image: CheckImage, key: str) -> None:
    with image_registry(DATA, login="ada:lovelace") as host:
        key = key.replace("HOST", host).replace("PORT", host.partition(":")[2])
        others = {f"{host}/other": {"auth": basic_auth("ada:byron")}, host.partition(":")[0]: {}, "*.1": {}}
        logins = {**others, key: {"username": "ada", "password": "lovelace", "auth": ""}}
        _add_pull_secret(cluster, json.dumps({"auths": logins}))
        assert check_image(f"{host}/team/data:1").state == "ok"


@pytest.mark.parametrize(
    ("make", "seconds", "state", "text"),
    [
        (registry_token, 11 * 3600 + 60, "ok", "expires in 11 hours"),
        (jwt, 610, "warning", "expires in 10 minutes"),
        (registry_token, -7300, "problem", "expired 2 hours ago"),
    ],
)
def test_token_in_a_pull_secret_expires(
    cluster: KubeServer, find: Find, make: Callable[[float], str], seconds: float, state: str, text: str
) -> None:
    login = f"AWS:{make(seconds)}"
    with image_registry(DATA, login=login) as host:
        _add_pull_secret(cluster, json.dumps({"auths": {host: {"auth": basic_auth(login)}}}))
        image, token = find(f"{host}/team/data:1")
    assert image.state == "ok"
    assert (token.state, token.text) == (state, f"the token in the pull secret for {host} {text}")


def test_pull_secret_that_does_not_exist(cluster: KubeServer, find: Find) -> None:
    _add_pull_secret(cluster, "{}")
    cluster.remove("secrets", "pull")
    with image_registry(DATA) as host:
        image, secret = find(f"{host}/team/data:1")
    assert (image.state, secret.state) == ("ok", "warning")
    assert secret.text == "pull secret pull, which service account pipeline-runner names, does not exist"


def test_longest_matching_path_of_a_pull_secret_wins(cluster: KubeServer, check_image: CheckImage) -> None:
    with image_registry(DATA, login="ada:lovelace") as host:
        team = {"auth": basic_auth("ada:lovelace")}
        logins = {host: {"auth": basic_auth("ada:byron")}, f"https://{host}/team": team}
        _add_pull_secret(cluster, json.dumps({"auths": logins}))
        assert check_image(f"{host}/team/data:1").state == "ok"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('{"auths": {"HOST": {"identitytoken": "x"}}}', id="no-login"),
        pytest.param('{"auths": {"HOST": {"auth": "YQ"}}}', id="bad-base64"),
        pytest.param('{"auths": {"HOST": {"auth": "bm8gY29sb24="}}}', id="no-colon"),
        pytest.param('{"auths": {"HOST": "x"}}', id="login-not-a-mapping"),
        pytest.param('{"auths": ["HOST"]}', id="auths-not-a-mapping"),
        pytest.param("[]", id="list"),
        pytest.param("{", id="no-json"),
    ],
)
def test_malformed_pull_secret_is_refused(cluster: KubeServer, check_image: CheckImage, text: str) -> None:
    with image_registry(set()) as host:
        _add_pull_secret(cluster, text.replace("HOST", host))
        with pytest.raises(UserError, match="pull secret pull is malformed; create it with kubectl create secret"):
            check_image(f"{host}/team/data:1")


@pytest.mark.parametrize(
    ("challenge", "grant", "reason"),
    [
        pytest.param('Bearer service="r"', "", "InvalidHeader", id="no-realm"),
        pytest.param(CHALLENGE, "no JSON", "JSONDecodeError", id="no-json"),
        pytest.param(CHALLENGE, "[]", "InvalidJSONError", id="list"),
        pytest.param(CHALLENGE, "{}", "InvalidJSONError", id="no-token"),
    ],
)
def test_malformed_answer_of_a_registry_is_unknown(
    check_image: CheckImage, challenge: str, grant: str, reason: str
) -> None:
    with image_registry(set(), challenge=challenge, grant=grant) as host:
        found = check_image(f"{host}/team/data:1")
    text = f"registry {host} gives no usable answer here ({reason}); the nodes may reach it"
    assert (found.state, found.text) == ("unknown", text)


def test_image_on_every_node(check_image: CheckImage) -> None:
    assert check_image(steps.DATA_IMAGE) == ok(f"image {steps.DATA_IMAGE} is on every node")


def test_image_on_some_nodes_is_a_warning(cluster: KubeServer, check_image: CheckImage) -> None:
    bare = node("bare")
    bare.status.images = None
    cluster.add(bare)
    found = check_image(steps.DATA_IMAGE)
    assert (found.state, found.text.rpartition("; ")[2]) == ("warning", "1 of 2 nodes have it")


def test_a_registry_is_asked_by_the_proxy(
    proxy_server: ProxyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_web_server() as registry:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(speak_tls(registry, tmp_path, "registry.example.org")))
        registry.files["/v2/team/data/manifests/1"] = b"{}"
        proxy_server.hosts["registry.example.org"] = registry.server_port
        assert _check_from_here("registry.example.org/team/data:1").state == "ok"
        assert proxy_server.asked == ["CONNECT registry.example.org:443"]
        proxy_server.refusal = 403
        found = _check_from_here("registry.example.org/team/data:1")
    assert found.state == "unknown"
    assert (
        f"is not asked: proxy {proxy_server.url} (HTTPS_PROXY) does not connect to registry.example.org" in found.text
    )
    with image_registry(DATA) as local:
        assert _check_from_here(f"{local}/team/data:1").state == "ok"
    assert len(proxy_server.asked) == 2
