"""A web server for the demo: static files, with strict headers, for this machine alone unless told otherwise."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from socket import AF_INET, AF_INET6
from urllib.parse import urlsplit

from components.shared.core.errors import UserError
from runner.demo.folder import POLICY

HEADERS = {
    "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # ask each time whether it has changed: the next demo has the same names
}
LOCAL = ("localhost", "127.0.0.1", "::1")


class DemoServer(ThreadingHTTPServer):
    """Serves a folder at `url`."""

    daemon_threads = True

    def __init__(self, folder: Path, host: str, port: int) -> None:
        address = ip_address(host)
        self.is_local = address.is_loopback
        self.address_family = AF_INET if address.version == 4 else AF_INET6
        super().__init__((host, port), partial(_Handler, directory=str(folder)))
        self.url = f"http://{host if address.version == 4 else f'[{host}]'}:{self.server_port}/"


class _Handler(SimpleHTTPRequestHandler):
    server: DemoServer
    protocol_version = "HTTP/1.1"
    extensions_map = {  # noqa: RUF012 (as its base class has it)
        ".html": "text/html; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".json": "application/json",
        ".svg": "image/svg+xml",
        ".wasm": "application/wasm",
        "": "application/octet-stream",
    }

    def send_head(self):  # type: ignore[no-untyped-def]  # what it returns is typeshed's secret
        """Answer only requests to an address of this machine, if the server is for it alone: see `_is_expected`."""
        if not self._is_expected():
            self.send_error(HTTPStatus.FORBIDDEN, "This server is for this machine alone")
            return None
        return super().send_head()

    def list_directory(self, path: object) -> None:
        """Show no lists of files."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def end_headers(self) -> None:
        """Add the headers of every answer."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing."""

    def _is_expected(self) -> bool:
        """Return whether the request names this machine: a site could let its own name lead here, and read models."""
        return not self.server.is_local or urlsplit(f"//{self.headers.get('Host', '')}").hostname in LOCAL


@contextmanager
def bound_server(folder: Path, host: str, port: int) -> Iterator[DemoServer]:
    """Yield a server that has its port, and serves once its `serve_forever` is called.

    Raises UserError if it cannot have it.
    """
    try:
        server = DemoServer(folder, host, port)
    except ValueError:
        raise UserError(
            f"--host {host} is not an IP address", "give 127.0.0.1, or an address of this machine"
        ) from None
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise UserError(f"--host {host} is no address of this machine", "give one that it has") from None
        raise UserError(f"port {port} of {host} cannot be used ({error.strerror})", "give another --port") from None
    with server:
        yield server
