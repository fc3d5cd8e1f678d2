"""What answers in place of KFP: a login (Dex, oauth2-proxy), Istio, a page of the UI, or another server.

Each function returns a message and a remedy.
"""

import re
from urllib.parse import urljoin, urlsplit

from components.shared.core.web_page import title_of

API = "/apis/"  # where KFP's API begins, below the address that --host gives
LOGIN = re.compile(r"/dex/|/oauth|/login|/sign[-_]?in|/authorize|openid-connect|/auth/", re.I)
LOGIN_PAGE = re.compile(r"\b(log ?in|sign ?in|oauth2|dex)\b|type=.?password", re.I)
ISTIO = "RBAC: access denied"  # Envoy's words, like those about a JWT
JWT = re.compile(r"Jwt \w[\w ]{2,60}|Audiences in Jwt are not allowed")
CREDENTIALS = (
    "give a token with --token-file or, with --cookie-file, the cookie of a browser that is logged in "
    "(oauth2_proxy_kubeflow=...; before Kubeflow 1.9 authservice_session=...)"
)
HOST = "check --host: Kubeflow's own ends in /pipeline, that of KFP alone does not"
Words = tuple[str, str]


def base(url: str) -> str:
    """Return the address of the server that a URL of the API is of, as --host gives it."""
    return url.partition(API)[0].rstrip("/")


def redirect(url: str, status: int, location: str, sent: str) -> Words | None:
    """Return what a redirect means, if `sent` (the token, the cookie, or empty) was sent; None if it is no login's."""
    target = urljoin(url, location)
    asked, to = urlsplit(url), urlsplit(target)
    if LOGIN.search(to.path):
        page = to._replace(query="", fragment="").geturl()
        return f"{base(url)} sends to a login ({status}: {page})", _credentials(sent)
    if API in to.path and (asked.scheme, to.scheme) != ("https", "http"):
        return f"{base(url)} sends to another address ({status})", f"give --host {base(target)}"
    return None


def elsewhere(url: str, status: int, location: str) -> Words:
    """Return what a redirect means that is neither a login's nor that of a moved API."""
    return f"{base(url)} sends to {urljoin(url, location).partition('?')[0]} ({status}), as KFP's API never does", HOST


def page(url: str, body: str, sent: str) -> Words | None:
    """Return what a login's page means; None for other pages."""
    title = _title(body)
    if not LOGIN_PAGE.search(title or body):
        return None
    return f"{base(url)} answers with a login page{title and f', {title!r}'}", _credentials(sent)


def other_page(url: str, status: int, body: str) -> Words:
    """Return what an answer means that is neither KFP's nor a login's."""
    title = _title(body)
    what = f"the web page {title!r}" if title else "a web page" if "<" in body else f"{status} and no document"
    return f"{base(url)} answers with {what}, as KFP's API never does", HOST if title else f"{HOST}; or {CREDENTIALS}"


def istio(url: str, status: int, body: str, sent: str) -> Words | None:
    """Return what a refusal by Istio means; None if it is not one."""
    if found := JWT.match(body):
        what = f"{base(url)}: Istio refuses the token ({status}: {found[0]})"
        audience = "kubectl create token default-editor -n NAMESPACE --audience AUDIENCE, for the audience of the login"
        return what, audience if "Audiences" in body else "give a new token of this cluster with --token-file"
    if ISTIO not in body:
        return None
    allow = "ask for a Profile or, for a pod, an AuthorizationPolicy that lets it reach ml-pipeline"
    return f"{base(url)}: Istio forbids it ({status}: {ISTIO})", allow if sent else f"{CREDENTIALS}; with them, {allow}"


def _credentials(sent: str) -> str:
    return f"{sent} is not accepted, or has expired: {CREDENTIALS}" if sent else CREDENTIALS


def _title(body: str) -> str:
    text = title_of(body) or ""
    return text[:60] if text.isprintable() else ""
