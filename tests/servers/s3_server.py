"""A real S3 server (SeaweedFS) on the loopback interface, and a proxy in front of it with scripted faults."""

import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import urllib3
from minio import Minio

from runner.local import s3_server as embedded
from runner.local.server_ports import free_ports
from tests.servers.web_server import serving

BUCKET = "bucket"
KEY, SECRET = "write-key", "write-secret-5cc1"
READER_KEY, READER_SECRET = "read-key", "read-secret-91e0"
IDENTITIES = {
    "identities": [
        {
            "name": "writer",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        },
        {
            "name": "reader",
            "credentials": [{"accessKey": READER_KEY, "secretKey": READER_SECRET}],
            "actions": [f"Read:{BUCKET}", f"List:{BUCKET}"],
        },
    ]
}
PORTS = [*embedded.PORTS, "s3.port.https"]


class S3Server:
    """SeaweedFS with one bucket; `kill` ends it like a crash, `start` restarts it on the same data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.address = f"127.0.0.1:{self.ports['s3.port']}"
        self.url, self.tls_url = f"http://{self.address}", f"https://127.0.0.1:{self.ports['s3.port.https']}"
        self.certificate = folder / "server.crt"
        (folder / "identities.json").write_text(json.dumps(IDENTITIES))
        (folder / "data").mkdir(exist_ok=True)
        _certify(self.certificate, folder / "server.key")

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables for open_store."""
        return {"AWS_ENDPOINT_URL_S3": self.url, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}

    @property
    def client(self) -> Minio:
        """Return a client that is independent of the code under test."""
        return Minio(self.address, KEY, SECRET, secure=False, region="us-east-1")

    def names(self) -> set[str]:
        """Return the names of all objects."""
        return {str(entry.object_name) for entry in self.client.list_objects(BUCKET, recursive=True)}

    def start(self) -> None:
        """Start the server and wait until it answers."""
        flags = [*embedded.FLAGS, *(f"-{name}={port}" for name, port in self.ports.items())]
        flags += [f"-dir={self.folder / 'data'}", f"-s3.config={self.folder / 'identities.json'}"]
        flags += [f"-s3.cert.file={self.certificate}", f"-s3.key.file={self.folder / 'server.key'}"]
        flags += ["-s3.autoCreateBucket=false", "-volume.max=50"]
        weed = Path(sys.executable).with_name("weed")
        with open(self.folder / "log", "ab") as log:
            start = log.tell()
            self.process = subprocess.Popen([weed, "-logtostderr", "mini", *flags], stdout=log, stderr=log)
        try:
            self._wait(120, start)
        except BaseException:
            self.kill()
            raise

    def _wait(self, seconds: float, start: int) -> None:
        """Wait for answers and the lock ring: until that is set up, two concurrent conditional writes may succeed."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            with suppress(urllib3.exceptions.HTTPError):
                answers = urllib3.request("GET", f"{self.url}/status", timeout=1, retries=False).status == 200
                if answers and b"LockRing: applying" in (self.folder / "log").read_bytes()[start:]:
                    return
            time.sleep(0.1)
        raise TimeoutError((self.folder / "log").read_text()[-2000:])

    def kill(self) -> None:
        """Kill the server's process."""
        self.process.kill()
        self.process.wait()


def _start(folder: Path) -> S3Server:
    """Start a server; if it ends because somebody else has taken one of its ports meanwhile, at others."""
    for attempt in range(3):
        server = S3Server(folder)
        try:
            server.start()
        except TimeoutError:
            if attempt == 2 or b"address already in use" not in (folder / "log").read_bytes():
                raise
        else:
            return server
    raise AssertionError("not reached")


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Run a server until the end of the block."""
    server = _start(folder)
    try:
        server.client.make_bucket(BUCKET)
        yield server
    finally:
        server.kill()


class Proxy(ThreadingHTTPServer):
    """Forwards requests to `upstream`; each entry of `script` handles one request instead."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream = upstream
        self.script: list[Fault] = []
        self.always: Fault | None = None  # handles every request after the script
        self.rate, self.random = 0.0, random.Random(0)  # the share of requests that meet one of FAULTS
        self.dealt: Counter[Fault] = Counter()  # the faults that `rate` caused
        self.asked: list[tuple[str, str, dict[str, str]]] = []  # method, path and headers of every request
        self.lock = threading.Lock()
        self.busy = self.most_busy = 0
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        """Ignore clients that hang up."""

    def next_fault(self) -> "Fault":
        """Return what handles the next request."""
        with self.lock:
            if self.script:
                return self.script.pop(0)
            if self.always:
                return self.always
            if self.random.random() < self.rate:
                fault = self.random.choice(FAULTS)
                self.dealt[fault] += 1
                return fault
            return forward


class Handler(BaseHTTPRequestHandler):
    """A request to the proxy."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Proxy

    def handle_any(self) -> None:
        """Record the request and handle it."""
        server = self.server
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with server.lock:
            server.asked.append((self.command, self.path, dict(self.headers)))
            server.busy += 1
            server.most_busy = max(server.busy, server.most_busy)
        try:
            server.next_fault()(self)
        finally:
            with server.lock:
                server.busy -= 1

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def hang_up(self) -> None:
        """Break the connection."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def upstream(self) -> tuple[HTTPResponse, bytes]:
        """Return the server's response and its body."""
        with closing(HTTPConnection(self.server.upstream)) as connection:
            connection.request(self.command, self.path, self.body or None, dict(self.headers))
            response = connection.getresponse()
            return response, response.read()

    def reply(self, response: HTTPResponse, body: bytes) -> None:
        """Send the head of the server's response."""
        self.send_response_only(response.status)
        for name, value in response.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = response.headers["Content-Length"] if self.command == "HEAD" else len(body)
        self.send_header("Content-Length", str(length or 0))
        self.end_headers()


Fault = Callable[[Handler], None]


def forward(handler: Handler) -> None:
    """Answer as the server does."""
    response, body = handler.upstream()
    handler.reply(response, body)
    handler.wfile.write(body)


def hang_up(handler: Handler) -> None:
    """Break the connection before the request reaches the server."""
    handler.hang_up()


def drop_response(handler: Handler) -> None:
    """Break the connection after the server has handled the request."""
    handler.upstream()
    handler.hang_up()


def truncate(handler: Handler, meanwhile: Callable[[], object] = bool) -> None:
    """Break the connection in the middle of the response's body."""
    response, body = handler.upstream()
    meanwhile()
    handler.reply(response, body)
    handler.wfile.write(body[: len(body) // 2])
    handler.wfile.flush()
    handler.hang_up()


def cut_after_headers(handler: Handler) -> None:
    """Break the connection after the response's headers."""
    handler.reply(*handler.upstream())
    handler.hang_up()


def delay(handler: Handler) -> None:
    """Answer as the server does, but later."""
    time.sleep(0.2)
    forward(handler)


def respond(status: int, body: bytes, content_type: str = "application/xml", **headers: str) -> Fault:
    """Answer in place of the server."""

    def fault(handler: Handler) -> None:
        handler.send_response_only(status)
        handler.send_header("Content-Type", content_type)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    return fault


def answer(status: int, code: str = "", **headers: str) -> Fault:
    """Answer in place of the server, with an error as S3 reports it."""
    body = f"<Error><Code>{code}</Code><Message>by the proxy</Message></Error>".encode() if code else b""
    return respond(status, body, **headers)


def ignore(condition: str) -> Fault:
    """Accept all writes under a condition, as a server does that does not know its header."""

    def fault(handler: Handler) -> None:
        (respond(200, b"", ETag='"1"') if condition in handler.headers else forward)(handler)

    return fault


def lose(name: str) -> Fault:
    """Answer 500 to each read of an object, as a server whose disk has lost it, until it is written again."""
    lost = True

    def fault(handler: Handler) -> None:
        nonlocal lost
        is_it = handler.path.partition("?")[0].endswith(f"/{name}")
        lost = lost and not (is_it and handler.command == "PUT" and not {"If-None-Match"} & {*handler.headers})
        (answer(500, "InternalError") if is_it and lost and handler.command == "GET" else forward)(handler)

    return fault


def hold_after(part: str, freed: threading.Event) -> Fault:
    """Hold all requests after the first write of an object whose path has this part; once freed, cut those held."""
    written = threading.Event()

    def fault(handler: Handler) -> None:
        if written.is_set() and not freed.is_set():
            freed.wait()
            return handler.hang_up()
        forward(handler)
        if handler.command == "PUT" and part in handler.path:
            written.set()

    return fault


FAULTS = (answer(503, "SlowDown"), answer(500, "InternalError"), hang_up, drop_response, truncate, delay)


@contextmanager
def proxy(upstream: str) -> Iterator[Proxy]:
    """Run a proxy until the end of the block."""
    with serving(Proxy(upstream)) as server:
        yield server


def _certify(certificate: Path, key: Path) -> None:
    """Create a self-signed certificate for 127.0.0.1."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([*command, "-out", certificate, "-keyout", key], check=True, capture_output=True)
