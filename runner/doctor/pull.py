"""Whether the cluster's nodes can pull the steps' images, asked of the registry as they would."""

import base64
import json
import re
from collections.abc import Iterator
from typing import NamedTuple

import requests
from kubernetes.client.exceptions import ApiException

from runner.doctor.cluster import Cluster
from runner.doctor.finding import Finding, ok, problem, unknown, warning
from runner.doctor.plan import Run

MANIFESTS = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in (
        "oci.image.index.v1",
        "oci.image.manifest.v1",
        "docker.distribution.manifest.list.v2",
        "docker.distribution.manifest.v2",
    )
)
LOCAL = re.compile(r"(localhost|127\.\d+\.\d+\.\d+)(:\d+)?")  # served without TLS, as Docker has it
DOCKER_HUB = "docker.io"  # whose API has another host, and whose logins are kept under an address
SECONDS = (5, 15)
Login = tuple[str, str]


class Image(NamedTuple):
    """The parts of an image's name."""

    registry: str
    repository: str
    reference: str  # a tag or digest

    @property
    def url(self) -> str:
        scheme = "http" if LOCAL.fullmatch(self.registry) else "https"
        host = "registry-1.docker.io" if self.registry == DOCKER_HUB else self.registry
        return f"{scheme}://{host}/v2/{self.repository}/manifests/{self.reference}"


def check_images(cluster: Cluster, run: Run) -> Iterator[Finding]:
    """Each image of the steps: at its registry, with the service account's pull secrets, or on the nodes already."""
    for name in sorted({pod.spec.containers[0].image for pod in run.pods}):
        image = parse(name)
        if image:
            finding = _ask(image, name, _login(cluster, image.registry))
        else:
            finding = problem(f"image {name} names no registry", "make push REGISTRY=..., which records its digest")
        yield finding if finding.state == "ok" else _on_nodes(cluster, name, finding)


def parse(name: str) -> Image | None:
    """Registry, repository and reference of an image's name; None where it names no registry."""
    registry, slash, rest = name.partition("/")
    if not slash or not ({".", ":"} & set(registry) or registry == "localhost"):
        return None
    if "@" in rest:
        path, _, digest = rest.partition("@")
        return Image(registry, path.partition(":")[0], digest)
    path, _, tag = rest.partition(":")
    return Image(registry, path, tag or "latest")


def _ask(image: Image, name: str, login: Login | None) -> Finding:
    try:
        status = _status(image, login)
    except requests.RequestException as error:
        return unknown(
            f"registry {image.registry} gives no answer here ({type(error).__name__}); the nodes may reach it",
            "look at the first pod's events if it stays in ImagePullBackOff",
        )
    if status == 200:
        return ok(f"image {name} can be pulled")
    if status == 404:
        return problem(f"image {name} is not in its registry", f"make push REGISTRY={image.registry}/...")
    if status in (401, 403) and login is None:
        return problem(
            f"image {name} cannot be pulled without credentials ({status})",
            "kubectl create secret docker-registry, and name it in imagePullSecrets of the service account",
        )
    if status in (401, 403):
        return problem(f"image {name} cannot be pulled with the pull secret ({status})", "renew the pull secret")
    return unknown(f"registry {image.registry} answered {status} for image {name}", "try again later")


def _status(image: Image, login: Login | None) -> int:
    """The registry's answer for the manifest, after the login that it asks for (Docker Registry HTTP API V2)."""
    with requests.Session() as session:
        session.headers["Accept"] = MANIFESTS
        answer = session.head(image.url, timeout=SECONDS)
        challenge = answer.headers.get("WWW-Authenticate", "")
        if answer.status_code != 401:
            return answer.status_code
        if challenge.lower().startswith("bearer"):
            fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
            query = {key: fields[key] for key in ("service", "scope") if key in fields}
            granted = session.get(fields["realm"], params=query, auth=login, timeout=SECONDS)
            if granted.status_code != 200:
                return granted.status_code
            document = granted.json()
            session.headers["Authorization"] = f"Bearer {document.get('token') or document['access_token']}"
        elif login:
            session.auth = login
        return session.head(image.url, timeout=SECONDS).status_code


def _login(cluster: Cluster, registry: str) -> Login | None:
    """User and password for a registry, from the pull secrets of the pods' service account."""
    key = "https://index.docker.io/v1/" if registry == DOCKER_HUB else registry
    for reference in (cluster.account and cluster.account.image_pull_secrets) or []:
        text = (cluster.secret(reference.name) or {}).get(".dockerconfigjson", "{}")
        entry = json.loads(text).get("auths", {}).get(key)
        if entry and "auth" in entry:
            user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
            return user, password
        if entry:
            return entry["username"], entry["password"]
    return None


def _on_nodes(cluster: Cluster, name: str, finding: Finding) -> Finding:
    """What the registry's refusal means where nodes hold the image already."""
    try:
        nodes = cluster.items(cluster.core.list_node)
    except ApiException:
        return finding
    having = sum(any(name in (image.names or []) for image in node.status.images or []) for node in nodes)
    if having and having == len(nodes):
        return ok(f"image {name} is on every node")
    return warning(f"{finding.text}; {having} of {len(nodes)} nodes have it", finding.remedy) if having else finding
