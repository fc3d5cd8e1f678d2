"""Check that the cluster's nodes can pull the steps' images, by asking the registry as a node would."""

import base64
import json
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import requests
from kubernetes.client.exceptions import ApiException

from components.shared.core.errors import UserError
from components.shared.storage.web_session import ProxyFailed, open_session
from runner.doctor.cluster import SECONDS, Cluster
from runner.doctor.finding import Finding, ok, problem, unknown, warning
from runner.doctor.kfp import check_token
from runner.doctor.preflight import Preflight

MANIFESTS = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in (
        "oci.image.index.v1",
        "oci.image.manifest.v1",
        "docker.distribution.manifest.list.v2",
        "docker.distribution.manifest.v2",
    )
)
LOCAL = re.compile(r"(localhost|127\.\d+\.\d+\.\d+)(:\d+)?")  # reached without TLS, as by Docker
DOCKER_HUB = "docker.io"  # its API has another host
EVENTS = "see the first pod's events if it stays in ImagePullBackOff"
Login = tuple[str, str]


class Image(NamedTuple):
    """The parts of an image's name."""

    registry: str
    repository: str
    reference: str  # a tag or digest

    @property
    def url(self) -> str:
        """Return the address of the image's manifest."""
        scheme = "http" if LOCAL.fullmatch(self.registry) else "https"
        host = "registry-1.docker.io" if self.registry == DOCKER_HUB else self.registry
        return f"{scheme}://{host}/v2/{self.repository}/manifests/{self.reference}"


def check_images(cluster: Cluster, preflight: Preflight) -> Iterator[Finding]:
    """Check each image at its registry, with the service account's pull secrets, and on the nodes."""
    logins = {}
    for name in _names(preflight):
        image = parse(name)
        login = _login(cluster, image) if image else None
        finding = _ask(image, name, login) if image else _no_registry(name)
        yield finding if finding.state == "ok" else _on_nodes(cluster, name, finding)
        if image and login:
            logins[image.registry] = login
    yield from _check_pull_secrets(cluster, logins)


def check_images_from_here(preflight: Preflight) -> Iterator[Finding]:
    """Check each image at its registry, without a cluster and so without its pull secrets."""
    for name in _names(preflight):
        image = parse(name)
        if image:
            finding = _ask(image, name, login=None, denied=unknown)
            yield finding._replace(text=f"{finding.text}; checked from here, without the cluster's pull secrets")
        else:
            yield _no_registry(name)


def parse(name: str) -> Image | None:
    """Return the parts of an image's name, or None if it names no registry."""
    registry, slash, rest = name.partition("/")
    if not slash or not ({".", ":"} & set(registry) or registry == "localhost"):
        return None
    if "@" in rest:
        path, _, digest = rest.partition("@")
        return Image(registry, path.partition(":")[0], digest)
    path, _, tag = rest.partition(":")
    return Image(registry, path, tag or "latest")


def _names(preflight: Preflight) -> list[str]:
    return sorted({pod.spec.containers[0].image for pod in preflight.pods})


def _no_registry(name: str) -> Finding:
    return problem(f"image {name} names no registry", "make push REGISTRY=..., which records its digest")


def _ask(image: Image, name: str, login: Login | None, denied: Callable[[str, str], Finding] = problem) -> Finding:
    """Return what the registry's answer means; `denied` makes the finding if it asks for a login and we have none."""
    try:
        status = _status(image, login)
    except ProxyFailed as error:
        return unknown(f"registry {image.registry} is not asked: {error}", error.fault.remedy)
    except requests.RequestException as error:
        return unknown(
            f"registry {image.registry} gives no usable answer here ({type(error).__name__}); the nodes may reach it",
            EVENTS,
        )
    if status == 200:
        return ok(f"image {name} can be pulled")
    if status == 404:
        return problem(f"image {name} is not in its registry", f"make push REGISTRY={image.registry}/...")
    if status in (401, 403) and login is None:
        return denied(
            f"image {name} cannot be pulled without credentials ({status})",
            "kubectl create secret docker-registry, and name it in imagePullSecrets of the service account",
        )
    if status in (401, 403):
        return problem(f"image {name} cannot be pulled with the pull secret ({status})", "renew the pull secret")
    remedy = "try again later" if status == 429 or status >= 500 else EVENTS
    return unknown(f"registry {image.registry} answered {status} for image {name}", remedy)


def _status(image: Image, login: Login | None) -> int:
    """Return the HTTP status for the manifest, after the login that the registry asks for (its HTTP API V2)."""
    with open_session() as session:
        session.headers["Accept"] = MANIFESTS
        answer = session.head(image.url, timeout=SECONDS)
        challenge = answer.headers.get("WWW-Authenticate", "")
        if answer.status_code != 401:
            return answer.status_code
        if challenge.lower().startswith("bearer"):
            granted = _grant(session, challenge, login)
            if granted.status_code != 200:
                return granted.status_code
            session.headers["Authorization"] = f"Bearer {_token(granted)}"
        elif login:
            session.auth = login
        return session.head(image.url, timeout=SECONDS).status_code


def _grant(session: requests.Session, challenge: str, login: Login | None) -> requests.Response:
    """Return the answer of the server from which the registry wants a token."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    if "realm" not in fields:
        raise requests.exceptions.InvalidHeader("WWW-Authenticate without a realm")
    query = {key: fields[key] for key in ("service", "scope") if key in fields}
    return session.get(fields["realm"], params=query, auth=login, timeout=SECONDS)


def _token(granted: requests.Response) -> str:
    document = granted.json()
    token = isinstance(document, dict) and (document.get("token") or document.get("access_token"))
    if not token:
        raise requests.exceptions.InvalidJSONError("no token")
    return str(token)


def _login(cluster: Cluster, image: Image) -> Login | None:
    """Return user and password for an image, from the pull secrets of the pods' service account.

    Raises UserError if a pull secret is malformed.
    """
    for name in _pull_secrets(cluster):
        text = (cluster.secret(name) or {}).get(".dockerconfigjson", "{}")
        try:
            auths = json.loads(text).get("auths") or {}
            keys = [key for key in auths if _is_for(key, image)]
            if keys:
                return _parse_login(auths[max(keys, key=lambda key: _parts(key)[1])])
        except (ValueError, TypeError, AttributeError, KeyError):
            raise UserError(
                f"pull secret {name} is malformed", "create it with kubectl create secret docker-registry"
            ) from None
    return None


def _check_pull_secrets(cluster: Cluster, logins: dict[str, Login]) -> Iterator[Finding]:
    """Check that the pull secrets exist, and when their tokens expire."""
    for name in _pull_secrets(cluster):
        if cluster.secret(name) is None:
            account = f"service account {cluster.service_account}"
            yield warning(f"pull secret {name}, which {account} names, does not exist", "create it, or name another")
    for registry, (_, password) in logins.items():
        yield from check_token(f"the token in the pull secret for {registry}", password, "renew the pull secret")


def _pull_secrets(cluster: Cluster) -> list[str]:
    return [reference.name for reference in (cluster.account and cluster.account.image_pull_secrets) or []]


def _is_for(key: str, image: Image) -> bool:
    """Return whether kubelet uses the login under a key for an image: a host may have wildcards, a path is a prefix."""
    host, path = _parts(key)
    registries = (DOCKER_HUB, "index.docker.io") if image.registry == DOCKER_HUB else (image.registry,)
    is_host = any(fnmatchcase(name, host) and name.count(".") == host.count(".") for name in registries)
    return is_host and image.repository.startswith(path)


def _parts(key: str) -> tuple[str, str]:
    """Return host and path of a key such as r.io, r.io/team or https://index.docker.io/v1/."""
    host, _, path = re.sub("^https?://", "", key).partition("/")
    return host, re.sub("^v[12]/", "", path)


def _parse_login(entry: dict[str, Any]) -> Login:
    if not entry.get("auth"):
        return entry["username"], entry["password"]
    user, password = base64.b64decode(entry["auth"]).decode().split(":", 1)
    return user, password


def _on_nodes(cluster: Cluster, name: str, finding: Finding) -> Finding:
    """Return the finding, adjusted if nodes have the image already."""
    try:
        nodes = cluster.items(cluster.core.list_node)
    except ApiException:
        return finding
    count = sum(any(name in (image.names or []) for image in node.status.images or []) for node in nodes)
    if count and count == len(nodes):
        return ok(f"image {name} is on every node")
    return warning(f"{finding.text}; {count} of {len(nodes)} nodes have it", finding.remedy) if count else finding
