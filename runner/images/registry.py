"""A registry of container images, asked as a node asks it: by the Docker Registry HTTP API V2."""

import re
from typing import NamedTuple
from urllib.parse import urlsplit

import requests

from components.shared.core.errors import UserError
from components.shared.storage.web_session import open_session

SECONDS = (5, 15)  # to connect, to answer
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


def ask(image: Image, login: Login | None = None, method: str = "HEAD") -> requests.Response:
    """Return the answer about the image's manifest, after the login that the registry asks for.

    Raises UserError if that would send the login, or a token, without encryption, and requests.RequestException if
    there is no usable answer.
    """
    with open_session() as session:
        session.headers["Accept"] = MANIFESTS
        answer = session.request(method, image.url, timeout=SECONDS, allow_redirects=False)
        challenge = answer.headers.get("WWW-Authenticate", "")
        if answer.status_code != 401:
            return answer
        if challenge.lower().startswith("bearer"):
            granted = _grant(session, image, challenge, login)
            if granted.status_code != 200:
                return granted
            session.headers["Authorization"] = f"Bearer {_token(granted)}"
        elif login:
            session.auth = login
        return session.request(method, image.url, timeout=SECONDS, allow_redirects=False)


def _grant(session: requests.Session, image: Image, challenge: str, login: Login | None) -> requests.Response:
    """Return the answer of the server from which the registry wants a token."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    if "realm" not in fields:
        raise requests.exceptions.InvalidHeader("WWW-Authenticate without a realm")
    _check_realm(image, fields["realm"])
    query = {key: fields[key] for key in ("service", "scope") if key in fields}
    return session.get(fields["realm"], params=query, auth=login, timeout=SECONDS)


def _check_realm(image: Image, realm: str) -> None:
    """Raise UserError if a login must not be sent to where a registry grants tokens: only a local one needs no TLS."""
    parts = urlsplit(realm)
    is_local = LOCAL.fullmatch(image.registry) and LOCAL.fullmatch(parts.hostname or "")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_local):
        raise UserError(
            f"registry {image.registry} grants tokens at {realm}, without encryption: no login was sent",
            "let its owner name an https:// address",
        )


def _token(granted: requests.Response) -> str:
    document = granted.json()
    token = isinstance(document, dict) and (document.get("token") or document.get("access_token"))
    if not token:
        raise requests.exceptions.InvalidJSONError("no token")
    return str(token)
