"""What stands before KFP answers: logins, Istio, pages. Each in one line with the remedy.

None of these answers is among the recorded ones. Istio's are those of Envoy in issues of kubeflow/pipelines (4976) and
kubeflow/kubeflow (6220); oauth2-proxy's are read in its sources (SignInPage: 403 and a page; errorJSON: 401 and `{}`).
"""

from dataclasses import replace

import pytest

from components.shared.core.errors import UserError
from runner.cluster import rest
from runner.cluster.connection import connect
from runner.cluster.rest import ApiError
from runner.verbs.parser import parse
from tests.servers.kfp_http import Answer, Handler, page
from tests.servers.kfp_messages import Request
from tests.servers.kfp_server import KfpServer

TOKEN = "secret-token"
ASK = "give a token with --token-file or, with --cookie-file, the cookie of a browser that is logged in (oauth2_proxy_"
HOST = "check --host: Kubeflow's own ends in /pipeline, that of KFP alone does not"
DASHBOARD = "<html><head><title>Kubeflow Central Dashboard</title></head></html>"
SIGN_IN = (
    "<!DOCTYPE html><html><head><title>Sign In</title></head><body><form action=/oauth2/start></form></body></html>"
)
DEX = "/dex/auth?client_id=kubeflow-oidc-authservice&redirect_uri=%2Foauth2%2Fcallback&state=abc"
RBAC = "RBAC: access denied"


def refusal(*words: str) -> str:
    """Return the error, one line, of a connection that fails."""
    with pytest.raises(UserError) as refused:
        connect(parse(["status", *words]))
    assert "\n" not in str(refused.value) and TOKEN not in str(refused.value)
    return str(refused.value)


def empty(status: int) -> Answer:
    """Answer without a document, as Envoy does where it has no route."""
    return lambda handler, _request: handler.reply(status, b"", "")


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (page(302, "", Location=DEX), f"sends to a login (302: URL/dex/auth); {ASK}"),
        (page(302, "", Location="/oauth2/start?rd=%2Fapis"), f"sends to a login (302: URL/oauth2/start); {ASK}"),
        (page(303, "", Location="https://id.example.org/realms/kf/protocol/openid-connect/auth?a=b"), ASK),
        (
            page(307, "", Location="/elsewhere?token=1"),
            f"sends to URL/elsewhere (307), as KFP's API never does; {HOST}",
        ),
        (page(403, SIGN_IN), f"answers with a login page, 'Sign In'; {ASK}"),
        (page(200, "<html><title>dex</title></html>"), f"answers with a login page, 'dex'; {ASK}"),
        (page(200, "<form><input type=password></form>"), f"answers with a login page; {ASK}"),
        (
            page(200, DASHBOARD),
            f"answers with the web page 'Kubeflow Central Dashboard', as KFP's API never does; {HOST}",
        ),
        (page(200, "<html>caf\xe9</html>"), f"answers with a web page, as KFP's API never does; {HOST}; or {ASK}"),
        (page(401, "{}", "application/json"), f"refuses the credentials (401): none were given; {ASK}"),
        (page(403, RBAC, "text/plain"), f": Istio forbids it (403: RBAC: access denied); {ASK}"),
        (
            page(401, "Jwt is expired", "text/plain"),
            ": Istio refuses the token (401: Jwt is expired); give a new token",
        ),
        (
            page(403, "Audiences in Jwt are not allowed", "text/plain"),
            ": Istio refuses the token (403: Audiences in Jwt are not allowed); kubectl create token default-editor ",
        ),
        (empty(404), f"answers with 404 and no document, as KFP's API never does; {HOST}"),
    ],
)
def test_an_answer_that_is_not_kfps_is_told_apart(kfp_api: KfpServer, answer: Answer, line: str) -> None:
    kfp_api.script("GET /.*", *[answer] * 3)
    assert line.replace("URL", kfp_api.url) in refusal()


@pytest.mark.parametrize(("variable", "sent"), [("KFP_EXISTING_TOKEN", "the token"), ("KFP_COOKIE", "the cookie")])
def test_credentials_that_a_login_does_not_take_are_named(
    kfp_api: KfpServer, monkeypatch: pytest.MonkeyPatch, variable: str, sent: str
) -> None:
    monkeypatch.setenv(variable, TOKEN)
    for answer in (page(302, "", Location=f"{DEX}&token={TOKEN}"), page(403, SIGN_IN)):
        kfp_api.script("GET /healthz", answer)
        assert f"; {sent} is not accepted, or has expired: {ASK}" in refusal()
    kfp_api.script("GET /healthz", page(403, RBAC, "text/plain"))
    assert refusal().endswith(
        "(403: RBAC: access denied); ask for a Profile or, for a pod, an AuthorizationPolicy that lets it reach "
        "ml-pipeline"
    )


def test_a_later_refusal_by_istio_is_told_too(kfp_api: KfpServer) -> None:
    connection = connect(parse(["status"]))
    kfp_api.script("GET /runs", page(403, RBAC, "text/plain"))
    with pytest.raises(ApiError, match="Istio forbids it") as refused:
        connection.client.list_runs()
    assert refused.value.status == 403


def test_the_words_of_a_gateway_that_is_busy_are_shown(kfp_api: KfpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "RETRIES", rest.RETRIES.new(total=0))
    kfp_api.script("GET /healthz", page(503, "no healthy upstream", "text/plain"))
    assert "answers 503 to GET /apis/v2beta1/healthz: no healthy upstream; see the log of" in refusal()


def test_http_that_is_sent_to_https_is_told_so(kfp_api: KfpServer) -> None:
    api = "https://kf.example.org/pipeline/apis/v2beta1/healthz"
    kfp_api.script("GET /healthz", page(301, "", Location=api))
    assert refusal().endswith("sends to another address (301); give --host https://kf.example.org/pipeline")


@pytest.mark.parametrize("path", ["", "/dashboard"])
def test_the_address_below_which_kfp_answers_is_found(kfp_api: KfpServer, path: str) -> None:
    """Kubeflow serves its dashboard everywhere but below /pipeline."""

    def serve(handler: Handler, request: Request) -> None:
        if request.path.startswith("/pipeline/apis/v2beta1"):
            return handler.serve(replace(request, path=request.path.removeprefix("/pipeline/apis/v2beta1")))
        return page(200, DASHBOARD)(handler, request)

    kfp_api.script("GET .*", *[serve] * 2)
    line = refusal("--host", f"{kfp_api.url}{path}")
    assert line.endswith(f"KFP's API never does; give --host {kfp_api.url}/pipeline, where KFP answers")


def test_a_path_that_kfp_alone_does_not_have_is_named(kfp_api: KfpServer) -> None:
    line = refusal("--host", f"{kfp_api.url}/pipeline/")
    assert "refuses GET /pipeline/apis/v2beta1/healthz (404)" in line
    assert line.endswith(f"give --host {kfp_api.url}, where KFP answers")
    kfp_api.breaches.clear()


@pytest.mark.parametrize(
    ("pasted", "api"),
    [
        ("https://kfp.example.org/#/runs", "https://kfp.example.org"),
        ("https://kfp.example.org:8443/#/runs/details/7", "https://kfp.example.org:8443"),
        ("https://kf.example.org/pipeline/#/experiments", "https://kf.example.org/pipeline"),
        ("https://kf.example.org/pipeline/?ns=team-a#/runs", "https://kf.example.org/pipeline, and --namespace team-a"),
        (
            "https://kf.example.org/_/pipeline/?ns=team-a#/runs",
            "https://kf.example.org/pipeline, and --namespace team-a",
        ),
        ("https://kf.example.org/_/jupyter/?ns=team-a", "https://kf.example.org/pipeline, and --namespace team-a"),
        ("https://kf.example.org/_/pipeline/", "https://kf.example.org/pipeline"),
        ("https://kf.example.org/?ns=team-a", "https://kf.example.org/pipeline, and --namespace team-a"),
        ("https://kf.example.org/pipeline/apis/v2beta1/healthz", "https://kf.example.org/pipeline"),
        ("http://localhost:8080/apis/v2beta1/", "http://localhost:8080"),
    ],
)
def test_the_address_of_a_page_is_refused_with_that_of_the_api(kfp_api: KfpServer, pasted: str, api: str) -> None:
    named = pasted.replace("?ns=team-a", "?...")  # a query may hold a secret
    line = f"{named} is not the address of KFP's API, but of a page or a part of it; give {api}"
    assert refusal("--host", pasted) == line
    assert not kfp_api.requests
