"""How a verb reaches Kubeflow Pipelines: from its options, the environment, and the pod that it runs in, if any.

Tokens and cookies come from files or the environment, never from the command line, where every user could read them.
"""

import argparse
import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, urlsplit

from components.shared.core.errors import UserError
from components.shared.core.proxy import literal_address

PROJECTED_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True)
class Options:
    """How to reach KFP, as `resolve` found it."""

    host: str | None  # None: a port-forward through the Kubernetes API or, in a pod, KFP's service
    ui: str | None
    token_file: Path | None
    token: str | None = field(repr=False)
    cookie: str | None = field(repr=False)
    cookie_file: Path | None
    authority: Path | None

    @property
    def bearer(self) -> str | None:
        """The token that is sent now; a file may hold another one later."""
        return _read_secret(self.token_file, "--token-file") or self.token

    @property
    def is_renewed(self) -> bool:
        """Whether Kubernetes replaces the token before it expires."""
        return self.token_file == PROJECTED_TOKEN


class NoProfile(UserError):
    """KFP has many users, and none of their namespaces is named."""


def resolve(arguments: argparse.Namespace) -> Options:
    """Return what counts for each setting: the first of option, environment, and what a pod of the cluster has.

    setting     option         environment                            in a pod, if KFP's address is not given
    ----------  -------------  -------------------------------------  ---------------------------------------
    host        --host         KF_PIPELINES_ENDPOINT, KFP_ENDPOINT    the service ml-pipeline
    token file  --token-file   KF_PIPELINES_SA_TOKEN_PATH             the projected token, if there is one
    token                      KFP_EXISTING_TOKEN, without a file
    cookie      --cookie-file  KFP_COOKIE
    authority   --ca           SSL_CERT_FILE
    UI                         KF_PIPELINES_UI_ENDPOINT, else host
    namespace   --namespace    KFP_NAMESPACE                          the pod's own, if KFP has many users
    Kubernetes  --context      KUBECONFIG                             the service account, without --context

    Raises UserError if one of them cannot be used.
    """
    host = _host(arguments.host or os.environ.get("KF_PIPELINES_ENDPOINT") or os.environ.get("KFP_ENDPOINT") or "")
    token_file = _token_file(arguments.token_file or os.environ.get("KF_PIPELINES_SA_TOKEN_PATH"), host)
    cookie = read_cookie(arguments.cookie_file) or _secret_variable("KFP_COOKIE")
    token = None if token_file else _secret_variable("KFP_EXISTING_TOKEN")
    if host and (token_file or token or cookie):
        secret = "the cookie" if cookie and not (token_file or token) else "the token"
        check_encrypted(
            host, secret, "give its https:// address, or none: then KFP is reached through the Kubernetes API"
        )
    authority = arguments.ca or os.environ.get("SSL_CERT_FILE")
    if authority and not os.access(authority, os.R_OK):
        raise UserError(f"--ca {authority} cannot be read", "give a file of certificates in PEM form")
    return Options(
        host=host,
        ui=os.environ.get("KF_PIPELINES_UI_ENDPOINT") or host,
        token_file=token_file,
        token=token,
        cookie=cookie,
        cookie_file=arguments.cookie_file,
        authority=Path(authority) if authority else None,
    )


def runs_namespace(arguments: argparse.Namespace, multi_user: bool) -> str:
    """Return the namespace of the runs. Raises NoProfile if KFP has many users and none is named."""
    named: str | None = arguments.namespace or os.environ.get("KFP_NAMESPACE")
    if not named and multi_user and POD_NAMESPACE.exists():
        named = POD_NAMESPACE.read_text().strip()
    if not named and multi_user:
        raise NoProfile("this KFP has many users", "name the Profile in which the runs live with --namespace")
    return named or str(arguments.kfp_namespace)


def is_in_pod(context: str | None) -> bool:
    """Return whether this process runs in a pod and reaches Kubernetes from there."""
    return context is None and "KUBERNETES_SERVICE_HOST" in os.environ and POD_NAMESPACE.exists()


def _host(given: str) -> str | None:
    """Check KFP's address, if one is given. Raises UserError if it is no URL or holds a password."""
    host = given.strip()
    if not host:
        return None
    if "@" in host:
        raise UserError("the address of KFP holds a user or password", "give it alone, and a token with --token-file")
    try:
        parts = urlsplit(host)
        _ = parts.port  # parsed only when it is read
    except ValueError as error:
        raise UserError(f"{host} is no address ({error})", "give https://NAME or https://NAME:PORT") from None
    if parts.scheme not in ("http", "https"):
        raise UserError(f"{host} has no scheme", f"write https://{host.rpartition('://')[2]} (or http://)")
    if not parts.hostname:
        raise UserError(f"{host} names no machine", "write https://NAME")
    if parts.query or parts.fragment or "/apis/" in parts.path or "/_/" in parts.path:
        raise _page_for_api(host, parts)
    return host


def check_encrypted(host: str, secret: str, remedy: str) -> None:
    """Raise UserError if a secret would go over plain HTTP to another machine that is not in this pod's cluster."""
    parts = urlsplit(host)
    name = (parts.hostname or "").rstrip(".")
    address = literal_address(name)
    is_here = address.is_loopback if address else name == "localhost" or name.endswith(".localhost")
    is_inside = name.endswith((".svc", ".svc.cluster.local"))
    if is_in_pod(None):
        is_inside = is_inside or (address.is_private if address else name.count(".") < 2)
    if parts.scheme == "http" and not (is_here or is_inside):
        raise UserError(f"{secret} would go to {host} without encryption", remedy)


def _page_for_api(host: str, parts: SplitResult) -> UserError:
    """Return the error for the address of a page, as a browser shows it, which names that of the API."""
    namespaces = parse_qs(parts.query).get("ns", [])
    path = parts.path.partition("/apis/")[0].rstrip("/")
    if "/_/" in parts.path or (namespaces and not path):  # of Kubeflow's dashboard, which shows KFP's UI in a frame
        path = f"{parts.path.partition('/_/')[0].rstrip('/')}/pipeline"
    api = f"{parts.scheme}://{parts.netloc}{path}"
    named = f", and --namespace {namespaces[0]}" if namespaces else ""
    return UserError(f"{host} is not the address of KFP's API, but of a page or a part of it", f"give {api}{named}")


def _token_file(named: str | Path | None, host: str | None) -> Path | None:
    """Return the file with the token: the one named or, in a pod, the one that only KFP's own server may see."""
    if named:
        _read_secret(Path(named), "--token-file")
        return Path(named)
    return PROJECTED_TOKEN if PROJECTED_TOKEN.exists() and not host else None


def read_cookie(path: Path | None) -> str | None:
    """Return the cookie in a file, if one is given. Raises UserError if there is something else in it."""
    return _read_secret(path, "--cookie-file")


def _read_secret(path: Path | None, option: str) -> str | None:
    """Return the one line in a file. Raises UserError if there is something else in it."""
    if path is None:
        return None
    try:
        return _checked_secret(path.read_text(), f"{option} {path}")
    except OSError as error:
        raise UserError(f"{option} {path} cannot be read ({error.strerror})", "give another file") from None
    except UnicodeDecodeError:
        raise UserError(f"{option} {path} is no text", "give another file") from None


def _secret_variable(name: str) -> str | None:
    """Return the one line in a variable of the environment, if it is set. Raises UserError if it is something else."""
    value = os.environ.get(name)
    return _checked_secret(value, name) if value else None


def _checked_secret(text: str, source: str) -> str:
    """Return a stripped token or cookie. Raises UserError, which does not show it, if it cannot be in a header."""
    text = text.strip()  # files and Secrets often end in a newline
    if not text or not (text.isascii() and text.isprintable()):
        raise UserError(f"{source} holds no single line of ASCII", "put nothing but the token or cookie into it")
    return text
