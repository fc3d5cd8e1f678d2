"""A web server on the loopback interface with scripted failures: downloads that are cut, refused or not resumed."""

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseServer
from typing import TypeVar

Server = TypeVar("Server", bound=BaseServer)


class WebServer(ThreadingHTTPServer):
    """Serves `files` (path -> bytes); each entry of `script` answers one request in place of the server."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.script: list[Answer] = []
        self.asked: list[dict[str, str]] = []  # the headers of every request
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: WebServer

    def do_GET(self) -> None:
        self.server.asked.append(dict(self.headers))
        answer = self.server.script.pop(0) if self.server.script else serve
        answer(self)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def reply(self, code: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            with suppress(ConnectionError):  # the client has what it wants
                self.wfile.write(body)

    def body(self) -> bytes:
        return self.server.files[self.path]


Answer = Callable[[_Handler], None]


def etag(body: bytes) -> str:
    """Return the ETag with which the server serves `body`."""
    return f'"{hashlib.sha256(body).hexdigest()[:8]}"'


def serve(handler: _Handler) -> None:
    """Answer as a correct server does: 404, 304, 206 or 200."""
    if handler.path not in handler.server.files:
        return handler.reply(404)
    body = handler.body()
    tag = etag(body)
    part = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", ""))
    if handler.headers.get("If-None-Match") == tag:
        return handler.reply(304, ETag=tag)
    if part and handler.headers.get("If-Range", tag) == tag:
        first, end = int(part[1]), min(int(part[2] or len(body) - 1) + 1, len(body))
        if first >= end:
            return handler.reply(416, ETag=tag, Content_Range=f"bytes */{len(body)}")
        return handler.reply(206, body[first:end], ETag=tag, Content_Range=f"bytes {first}-{end - 1}/{len(body)}")
    return handler.reply(200, body, ETag=tag)


def whole(handler: _Handler) -> None:
    """Send the whole file, ignoring Range and conditions."""
    handler.reply(200, handler.body(), ETag=etag(handler.body()))


def cut_after(size: int) -> Answer:
    """Announce the whole file and hang up after `size` bytes."""
    return lambda handler: handler.reply(200, handler.body()[:size], len(handler.body()), ETag=etag(handler.body()))


def answer(code: int, body: bytes = b"", **headers: str) -> Answer:
    """Answer with this status, body and headers."""
    return lambda handler: handler.reply(code, body, None, **headers)


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Run the server until the end of the block."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def run_web_server() -> Iterator[WebServer]:
    """Run a server until the end of the block."""
    with serving(WebServer()) as server:
        yield server
