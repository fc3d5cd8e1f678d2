"""KFP and the Kubernetes API go by the proxy that the environment names, unless they are near."""

from pathlib import Path

import pytest
import yaml

from components.shared.core.errors import UserError
from runner.cluster import rest
from runner.cluster.connection import Connection, connect
from runner.verbs.parser import parse
from tests.servers.kfp_server import KfpServer
from tests.servers.port_forward import kube_server
from tests.servers.proxy_server import ProxyServer, speak_tls

TOKEN = "secret-token"


def reach(*words: str) -> Connection:
    return connect(parse(["status", *words]))


def test_kfp_is_reached_by_the_proxy(
    kfp_api: KfpServer, proxy_server: ProxyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy_server.hosts["kubeflow.example.org"] = kfp_api.server_port
    assert reach("--host", "http://kubeflow.example.org").client.list_runs().runs is None
    health, runs = proxy_server.asked
    assert health == "GET http://kubeflow.example.org/apis/v2beta1/healthz"
    assert runs.startswith("GET http://kubeflow.example.org/apis/v2beta1/runs")
    authority = speak_tls(kfp_api, tmp_path, "kubeflow.example.org")
    monkeypatch.setenv("KFP_EXISTING_TOKEN", TOKEN)
    kfp_api.token = TOKEN
    proxy_server.asked.clear()
    monkeypatch.setenv("HTTPS_PROXY", f"http://ada:secret@{proxy_server.address}")
    reach("--host", "https://kubeflow.example.org", "--ca", str(authority)).client.list_runs()
    assert proxy_server.asked == ["CONNECT kubeflow.example.org:443"]
    assert proxy_server.logins[-1] == "Basic YWRhOnNlY3JldA=="


def test_kfp_on_this_machine_is_reached_without_the_proxy(kfp_api: KfpServer, proxy_server: ProxyServer) -> None:
    reach().client.list_runs()
    assert len(kfp_api.requests) == 2 and not proxy_server.asked


@pytest.mark.parametrize(
    ("host", "status", "line"),
    [
        (
            "https://kf.example.org",
            407,
            "(HTTPS_PROXY) asks for a user and a password (407); set HTTPS_PROXY to http://",
        ),
        ("http://kf.example.org", 407, "(HTTP_PROXY) asks for a user and a password (407); set HTTP_PROXY to http://"),
        (
            "https://kf.example.org",
            403,
            "(HTTPS_PROXY) does not connect to kf.example.org (403 Forbidden); check HTTPS",
        ),
    ],
)
def test_a_proxy_that_refuses_kfp_is_named(
    kfp_api: KfpServer,
    proxy_server: ProxyServer,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    status: int,
    line: str,
) -> None:
    monkeypatch.setattr(rest, "RETRIES", rest.RETRIES.new(total=0))
    proxy_server.refusal = status
    with pytest.raises(UserError) as refused:
        reach("--host", host)
    assert f"{host} cannot be reached: proxy {proxy_server.url} {line}" in str(refused.value)


def test_the_kubernetes_api_is_reached_by_the_proxy(
    kfp_api: KfpServer, proxy_server: ProxyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port-forward goes the same way, by a websocket of its own."""
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    kubeconfig = tmp_path / "kubeconfig"
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    with kube_server(kfp_api.server_port) as server:
        server.write_kubeconfig(kubeconfig)
        reach()
        assert server.forwarded == 1 and not proxy_server.asked
        config = yaml.safe_load(kubeconfig.read_text())
        config["clusters"][0]["cluster"]["server"] = "http://kubernetes.example.org"
        kubeconfig.write_text(yaml.safe_dump(config))
        proxy_server.hosts["kubernetes.example.org"] = server.server_port
        reach()
        assert server.forwarded == 2
        listed, forwarded = proxy_server.asked
        assert listed.startswith("GET http://kubernetes.example.org/api/v1/namespaces/kubeflow/pods")
        assert forwarded == "CONNECT kubernetes.example.org:80"
        monkeypatch.setenv("NO_PROXY", "kubernetes.example.org")
        with pytest.raises(UserError, match="the Kubernetes API cannot be reached to list pods"):
            reach()
        assert len(proxy_server.asked) == 2
