"""Check that the cluster's nodes can pull the steps' images, by asking the registry as a node would."""

import base64
import json
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import requests
from kubernetes.client.exceptions import ApiException

from components.shared.core.errors import UserError
from components.shared.storage.web_session import ProxyFailed
from runner.doctor.cluster import Cluster
from runner.doctor.finding import Finding, ok, problem, unknown, warning
from runner.doctor.kfp import check_token
from runner.doctor.preflight import Preflight
from runner.images.registry import DOCKER_HUB, Image, Login, ask, parse

EVENTS = "see the first pod's events if it stays in ImagePullBackOff"


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


def _names(preflight: Preflight) -> list[str]:
    return sorted({pod.spec.containers[0].image for pod in preflight.pods})


def _no_registry(name: str) -> Finding:
    return problem(f"image {name} names no registry", "make push REGISTRY=..., which records its digest")


def _ask(image: Image, name: str, login: Login | None, denied: Callable[[str, str], Finding] = problem) -> Finding:
    """Return what the registry's answer means; `denied` makes the finding if it asks for a login and we have none."""
    try:
        status = ask(image, login).status_code
    except UserError as error:
        return problem(f"image {name}: {error.message}", error.remedy)
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
