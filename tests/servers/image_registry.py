"""An image registry on the loopback interface, which grants tokens as the Docker Registry HTTP API V2 describes."""

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.servers.web_server import serving

CHALLENGE = 'Bearer realm="http://HOST/token",service="r",scope="pull"'
GRANT = '{"token": "granted"}'


def basic_auth(login: str) -> str:
    """Return `user:password` as the Authorization header and pull secrets have it."""
    return base64.b64encode(login.encode()).decode()


def manifest(path: str) -> bytes:
    """Return the manifest of an image, by its path."""
    return f"manifest of {path.removeprefix('/v2/')}".encode()


def digest_of(path: str) -> str:
    """Return the digest of an image's manifest."""
    return f"sha256:{hashlib.sha256(manifest(path)).hexdigest()}"


@contextmanager
def image_registry(
    images: set[str], login: str = "", challenge: str = CHALLENGE, grant: str = GRANT, digest: str = ""
) -> Iterator[str]:
    """Serve `images` (repository/manifests/reference), to `login` alone if one is given; yield the host and port.

    It names the digest of each manifest, or `digest` in its place.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/v2/"):
                return self.do_HEAD()
            if login and self.headers.get("Authorization") != f"Basic {basic_auth(login)}":
                return self.reply(401, b"")
            return self.reply(200, grant.encode())

        def do_HEAD(self) -> None:
            if self.headers.get("Authorization") != "Bearer granted":
                return self.reply(401, b"", WWW_Authenticate=challenge.replace("HOST", self.headers["Host"]))
            if self.path.removeprefix("/v2/") not in images:
                return self.reply(404, b"")
            return self.reply(200, manifest(self.path), Docker_Content_Digest=digest or digest_of(self.path))

        def reply(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"127.0.0.1:{server.server_port}"
