"""The connection to KFP, and the errors if there is none."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from kubernetes import client

from components.shared.core.errors import UserError
from runner.cluster import options, rest
from runner.cluster.connection import Connection, connect
from runner.cluster.rest import ApiError
from runner.verbs.parser import parse
from tests.runner.tokens import jwt
from tests.servers.kfp_http import Answer, cut, cut_body, error, page, slow
from tests.servers.kfp_server import KfpServer
from tests.servers.kube_server import kube_server as kubernetes_server
from tests.servers.port_forward import kube_server

TOKEN = "secret-token"


def reach(*words: str) -> Connection:
    return connect(parse(["status", *words]))


def refusal(*words: str) -> str:
    """Return the error, one line, of a connection that fails."""
    with pytest.raises(UserError) as refused:
        reach(*words)
    assert "\n" not in str(refused.value)
    assert TOKEN not in str(refused.value)
    return str(refused.value)


def test_one_user_needs_no_namespace(kfp_api: KfpServer) -> None:
    connection = reach()
    assert (connection.namespace, connection.scope) == ("kubeflow", None)
    assert connection.ui_link("run", "7") == f"{kfp_api.url}/#/runs/details/7"
    assert connection.client.get_user_namespace() == ""


def test_many_users_need_one(kfp_api: KfpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    kfp_api.multi_user = True
    assert "name the Profile in which the runs live with --namespace" in refusal()
    monkeypatch.setenv("KFP_NAMESPACE", "team")
    assert reach().scope == "team"
    assert reach("--namespace", "other").client.get_user_namespace() == "other"


@pytest.mark.parametrize(
    ("ui", "link"),
    [
        ("https://kubeflow.example.org/pipeline", "https://kubeflow.example.org/_/pipeline/?ns=team#/runs/details/7"),
        (
            "https://kubeflow.example.org/_/pipeline/",
            "https://kubeflow.example.org/_/pipeline/?ns=team#/runs/details/7",
        ),
        ("https://kfp.example.org", "https://kfp.example.org/?ns=team#/runs/details/7"),
    ],
)
def test_in_a_profile_links_carry_its_namespace(
    kfp_api: KfpServer, monkeypatch: pytest.MonkeyPatch, ui: str, link: str
) -> None:
    """As those of the dashboard: https://github.com/kubeflow/pipelines/issues/7420 tells what happens without it."""
    kfp_api.multi_user = True
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", ui)
    assert reach("--namespace", "team").ui_link("run", "7") == link


def test_an_unknown_namespace_is_refused_by_name(kfp_api: KfpServer) -> None:
    kfp_api.multi_user = True
    connection = reach("--namespace", "nowhere")
    with pytest.raises(ApiError, match=r"403.*'nowhere'.*--namespace"):
        connection.client.list_experiments()


def test_all_pages_of_a_list_are_read(kfp_api: KfpServer) -> None:
    there = [kfp_api.add_run().run_id for _ in range(5)]
    kfp_api.page_limit = 2
    connection = reach()
    assert [run.run_id for run in connection.paginate("runs", connection.client.list_runs)] == there
    assert len(kfp_api.asked("GET /runs")) == 3
    kfp_api.runs.clear()
    assert not list(connection.paginate("runs", connection.client.list_runs))


def test_nothing_is_written_to_the_users_home(kfp_api: KfpServer, tmp_path: Path) -> None:
    kfp_api.multi_user = True
    reach("--namespace", "team")
    assert not list(tmp_path.iterdir())


def test_the_token_is_read_again_for_every_request(kfp_api: KfpServer, tmp_path: Path) -> None:
    kfp_api.token = TOKEN
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    connection = reach("--token-file", str(tmp_path / "token"))
    kfp_api.token = "rotated"
    (tmp_path / "token").write_text("rotated")
    assert connection.client.list_runs().runs is None


@pytest.mark.parametrize(("variable", "header"), [("KFP_EXISTING_TOKEN", "authorization"), ("KFP_COOKIE", "cookie")])
def test_token_and_cookie_come_from_the_environment(
    kfp_api: KfpServer, monkeypatch: pytest.MonkeyPatch, variable: str, header: str
) -> None:
    monkeypatch.setenv(variable, f"{TOKEN}\n")
    reach()
    assert kfp_api.requests[-1].headers[header].removeprefix("Bearer ") == TOKEN


@pytest.mark.parametrize("value", [f"{TOKEN}\r\nX-More: 1", f"{TOKEN}\x00", f"{TOKEN}…", f"{TOKEN}é", " \n"])
def test_a_token_that_no_header_takes_is_not_shown(
    kfp_api: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    (tmp_path / "secret").write_text(value)
    for option in ("--token-file", "--cookie-file"):
        assert f"{option} {tmp_path / 'secret'} holds no single line of ASCII" in refusal(
            option, str(tmp_path / "secret")
        )
    if "\x00" not in value:
        for variable in ("KFP_EXISTING_TOKEN", "KFP_COOKIE"):
            monkeypatch.setenv(variable, value)
            assert f"{variable} holds no single line of ASCII" in refusal()
            monkeypatch.delenv(variable)
    assert not kfp_api.requests


def test_a_token_is_in_no_message_even_if_the_server_repeats_it(
    kfp_api: KfpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_EXISTING_TOKEN", TOKEN)
    kfp_api.script("GET /healthz", error(400, f"bad header Bearer {TOKEN}"), error(403, TOKEN), error(401, TOKEN))
    assert "refuses GET /apis/v2beta1/healthz (400): bad header" in refusal()
    assert "forbids GET /apis/v2beta1/healthz (403)" in refusal()
    assert "the credentials (401): they are wrong or expired" in refusal()


def test_an_expired_token_is_named_so(kfp_api: KfpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_EXISTING_TOKEN", jwt(-7300))
    kfp_api.token = "another"
    assert refusal().endswith("(401): the token expired 2 hours ago; give a new token with --token-file")


def test_a_token_for_another_audience_is_named_so(kfp_api: KfpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_EXISTING_TOKEN", jwt(600))
    kfp_api.multi_user, kfp_api.token, kfp_api.audience = True, "another", "https://kubernetes.default.svc"
    connection = reach("--namespace", "team")
    with pytest.raises(ApiError, match=r"\(401\): the token is for https://kubernetes.default.svc, not for pip.*"):
        connection.client.list_runs(namespace="team")


def test_a_user_without_rights_is_named(kfp_api: KfpServer) -> None:
    kfp_api.multi_user = True
    connection = reach("--namespace", "team")
    with pytest.raises(ApiError) as refused:
        connection.client.list_runs(namespace="team")
    assert str(refused.value) == (
        f"{kfp_api.url} forbids system:serviceaccount:default:default to list runs.pipelines.kubeflow.org in namespace "
        "team (403); ask for the right, or name your own --namespace"
    )


def test_a_token_file_must_hold_a_token(kfp_api: KfpServer, tmp_path: Path) -> None:
    assert "cannot be read (No such file" in refusal("--token-file", str(tmp_path / "none"))
    (tmp_path / "empty").write_text("\n")
    assert "holds no single line" in refusal("--token-file", str(tmp_path / "empty"))
    (tmp_path / "key").write_text(f"{TOKEN}\nmore\n")
    assert "holds no single line" in refusal("--token-file", str(tmp_path / "key"))


@pytest.mark.parametrize(
    ("host", "variable", "what"),
    [
        ("http://kfp.example.com/pipeline", "KFP_EXISTING_TOKEN", "the token"),
        ("http://kfp.example.com", "KFP_COOKIE", "the cookie"),
        ("http://192.168.49.2:31380", "KFP_COOKIE", "the cookie"),
        ("http://localhost.evil.org", "KFP_EXISTING_TOKEN", "the token"),
    ],
)
def test_a_token_is_not_sent_without_encryption(
    kfp_api: KfpServer, monkeypatch: pytest.MonkeyPatch, host: str, variable: str, what: str
) -> None:
    monkeypatch.setenv(variable, TOKEN)
    line = refusal("--host", host)
    assert line.startswith(f"{what} would go to {host} without encryption; give its https:// address, or none")
    assert TOKEN not in line


@pytest.mark.parametrize(
    "host", ["https://kfp.example.com", "http://localhost:8080", "http://[::1]:80", "http://ml-pipeline.kubeflow.svc"]
)
def test_a_token_is_sent_with_tls_here_and_inside(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("KFP_EXISTING_TOKEN", TOKEN)
    found = options.resolve(parse(["status", "--host", host]))
    assert (found.host, found.token) == (host, TOKEN)


@pytest.mark.parametrize(
    ("host", "line"),
    [
        ("kfp.example.com", "kfp.example.com has no scheme; write https://kfp.example.com (or http://)"),
        ("ftp://kfp", "ftp://kfp has no scheme; write https://kfp (or http://)"),
        ("https://", "https:// names no machine; write https://NAME"),
        ("https://kf:abc", "https://kf:abc is no address (Port could not be cast to integer value as 'abc'); "),
        ("https://kf:99999", "https://kf:99999 is no address (Port out of range 0-65535); "),
        ("https://[::1", "https://[::1 is no address (Invalid IPv6 URL); "),
        ("https://ada:" + TOKEN + "@kf", "the address of KFP holds a user or password; give it alone"),
    ],
)
def test_a_host_is_a_url(kfp_api: KfpServer, host: str, line: str) -> None:
    assert refusal("--host", host).startswith(line)


def test_nobody_listens(kfp_api: KfpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "RETRIES", rest.RETRIES.new(total=1))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert "cannot be reached ([Errno 111] Connection refused)" in refusal(
            "--host", f"http://127.0.0.1:{taken.getsockname()[1]}"
        )


@pytest.mark.parametrize("fault", [error(429, Retry_After="0"), error(500), error(503), page(502), cut, cut_body])
def test_reads_are_retried(kfp_api: KfpServer, fault: Answer) -> None:
    kfp_api.script("GET /healthz", fault)
    assert not reach().multi_user
    assert len(kfp_api.asked("GET /healthz")) == 2


@pytest.mark.parametrize("fault", [error(429), error(500), cut])
def test_writes_are_not_retried(kfp_api: KfpServer, fault: Answer) -> None:
    connection = reach()
    kfp_api.script("POST /runs/7:terminate", fault)
    with pytest.raises(ApiError) as refused:
        connection.client.terminate_run("7")
    assert refused.value.is_transient
    assert len(kfp_api.asked("POST .*")) == 1


@pytest.mark.parametrize(
    ("fault", "line"),
    [(error(503, "overloaded"), "answers 503.*overloaded; see the log"), (cut, "cuts the connection")],
)
def test_retries_end_in_an_error(kfp_api: KfpServer, monkeypatch: pytest.MonkeyPatch, fault: Answer, line: str) -> None:
    monkeypatch.setattr(rest, "RETRIES", rest.RETRIES.new(backoff_factor=0, backoff_jitter=0))
    kfp_api.script("GET /healthz", *[fault] * 5)
    with pytest.raises(ApiError, match=line):
        reach()


def test_a_late_answer_times_out(kfp_api: KfpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    kfp_api.script("GET /healthz", slow(0.1))
    reach()
    monkeypatch.setattr(rest, "SECONDS", (1, 0.1))
    monkeypatch.setattr(rest, "RETRIES", rest.RETRIES.new(total=0))
    kfp_api.script("GET /healthz", slow(5))
    assert "does not answer in time" in refusal()


def test_http_and_tls_are_confused(kfp_api: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "RETRIES", rest.RETRIES.new(total=0))
    with _tls_server(tmp_path) as port:
        assert refusal("--host", f"http://127.0.0.1:{port}").endswith("speaks TLS; write https://")
        assert "give its authority with --ca FILE" in refusal("--host", f"https://127.0.0.1:{port}")
        reach("--host", f"https://127.0.0.1:{port}", "--ca", str(tmp_path / "cert.pem"))
    kfp_api.script("GET /healthz", page(400, "Client sent an HTTP request to an HTTPS server.", "text/plain"))
    assert refusal().endswith("speaks TLS; write https://")
    assert "does not speak TLS; write http://" in refusal("--host", kfp_api.url.replace("http", "https"))
    assert "none.pem cannot be read" in refusal("--ca", str(tmp_path / "none.pem"))


def test_without_a_host_kfp_is_reached_by_port_forward(
    kfp_api: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with kube_server(kfp_api.server_port) as server:
        server.write_kubeconfig(tmp_path / "kubeconfig")
        connection = reach("--context", "here")
        kfp_api.script("GET /runs", cut)
        assert connection.client.list_runs().runs is None
        assert server.forwarded == 2  # a cut connection is opened again
        assert "(after `python pipeline.py ui`)" in connection.ui_link("run", "7")
        server.phase = "Pending"
        assert "no pod app=ml-pipeline runs in namespace kubeflow" in refusal()
        server.status = 403
        assert "Kubernetes refuses to list pods in namespace kubeflow (403" in refusal()


def test_a_token_of_a_kubeconfig_needs_encryption(
    kfp_api: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    user, host = {"name": "u", "user": {"token": TOKEN}}, "http://kubernetes.example.invalid"
    context = {"name": "here", "context": {"cluster": "c", "user": "u"}}
    config = {"clusters": [{"name": "c", "cluster": {"server": host}}], "users": [user], "contexts": [context]}
    kubeconfig.write_text(yaml.safe_dump({**config, "current-context": "here"}))
    line = f"the token of the Kubernetes API would go to {host} without encryption; give the https:// address of the"
    assert refusal().startswith(f"{line} cluster in the kubeconfig {kubeconfig}")
    kubeconfig.write_text(kubeconfig.read_text().replace("http://", "https://"))
    assert "without encryption" not in refusal(), "it is not a known host"


@pytest.mark.parametrize("text", [None, "{", "[]", "nonsense", "contexts: 3", "current-context: x\ncontexts: []"])
def test_an_unusable_kubeconfig(
    kfp_api: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    if text is not None:
        (tmp_path / "kubeconfig").write_text(text)
    line = refusal()
    assert "no cluster is known: kubeconfig" in line
    assert ("no such file" in line) == (text is None)


@contextmanager
def _tls_server(folder: Path) -> Iterator[int]:
    """Yield the port of a healthy server that speaks TLS with a self-signed certificate."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=here -days 2"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_an_expired_token_of_the_kubeconfig_is_asked_for_again(
    kfp_api: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its plugin is run again, for requests and for port-forwards."""
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    token = tmp_path / "token"
    with kubernetes_server() as cluster:
        cluster.write_kubeconfig(tmp_path / ".kube" / "config")
        _log_in_by_plugin(tmp_path / ".kube" / "config", token)
        metadata = client.V1ObjectMeta(name="ml-pipeline-1", namespace="kubeflow", labels={"app": "ml-pipeline"})
        cluster.add(client.V1Pod(metadata=metadata, status=client.V1PodStatus(phase="Running")))
        cluster.forwards["ml-pipeline-1", 8888] = kfp_api.server_port
        token.write_text(cluster.token)
        connection = reach()
        for new in ("second", "third"):
            cluster.token = new
            token.write_text(new)
            assert connection.kube and connection.kube.list_namespaced_pod("kubeflow").items
            connection.rest.pool_manager.clear()
            connection.client.list_runs()
        cluster.token = "fourth"
        connection.rest.pool_manager.clear()
        with pytest.raises(ApiError, match=r"401 Unauthorized.*log in to the cluster again") as refused:
            connection.client.list_runs()
        assert connection.may_pass(refused.value)


def _log_in_by_plugin(kubeconfig: Path, token: Path) -> None:
    """Let a kubeconfig's user log in by a program that reads a token from a file."""
    credential = (
        '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "%s"}}'
    )
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "sh",
        "args": ["-c", f"printf '{credential}' \"$(cat {token})\""],
        "interactiveMode": "Never",
    }
    config = yaml.safe_load(kubeconfig.read_text())
    config["users"][0]["user"] = {"exec": plugin}
    kubeconfig.write_text(yaml.safe_dump(config))
