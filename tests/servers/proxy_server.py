"""An HTTP proxy on the loopback interface that records what it is asked, with names of its own, and certificates."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from tests.servers.web_server import serving


class ProxyServer(ThreadingHTTPServer):
    """Forwards requests for `http:`, and opens tunnels (CONNECT) for all else, to the `hosts` that it knows."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hosts: dict[str, int] = {}  # the port of this machine that stands for a host
        self.asked: list[str] = []  # "CONNECT host:port", or "GET http://host/path" and the like
        self.logins: list[str | None] = []  # the header Proxy-Authorization of each request
        self.refusal: int | None = None  # the status with which it answers every request
        self.address = f"127.0.0.1:{self.server_port}"
        self.url = f"http://{self.address}"

    def handle_error(self, *_: object) -> None:
        """Ignore clients that hang up."""


class _Handler(BaseHTTPRequestHandler):
    server: ProxyServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_CONNECT(self) -> None:
        port = self._port(self.path.rpartition(":")[0])
        self.close_connection = True
        if port:
            with closing(socket.create_connection(("127.0.0.1", port))) as upstream:
                self.send_response(200)
                self.end_headers()
                back = threading.Thread(target=_copy, args=(upstream, self.connection))
                back.start()
                _copy(self.connection, upstream)
                back.join()

    def forward(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        port = self._port(parts.hostname or "")
        if not port:
            return
        with closing(HTTPConnection("127.0.0.1", port)) as upstream:
            upstream.request(self.command, parts._replace(scheme="", netloc="").geturl(), body, dict(self.headers))
            answer = upstream.getresponse()
            content = answer.read()
        self.send_response(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", answer.headers["Content-Length"] or str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward

    def _port(self, host: str) -> int | None:
        """Record the request, and return the port that stands for its host, or answer that there is none."""
        self.server.asked.append(f"{self.command} {self.path}")
        self.server.logins.append(self.headers.get("Proxy-Authorization"))
        refusal = self.server.refusal or (0 if host in self.server.hosts else 503)
        if refusal:
            self.send_response(refusal)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        return self.server.hosts[host]

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while block := source.recv(1 << 16):
            target.sendall(block)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def run_proxy_server() -> Iterator[ProxyServer]:
    """Run a proxy until the end of the block."""
    with serving(ProxyServer()) as server:
        yield server


def speak_tls(server: ThreadingHTTPServer, folder: Path, *names: str) -> Path:
    """Let a server speak TLS under these names, and return the file of its certificate."""
    certificate, key = folder / f"{names[0]}.pem", folder / f"{names[0]}.key"
    command = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={names[0]} -days 2"
    subject = "subjectAltName=" + ",".join(f"DNS:{name}" for name in names)
    files = ["-addext", subject, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return certificate
