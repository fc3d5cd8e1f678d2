"""HTTP of the server in kfp_server.py, and the answers that a test can let it give instead of its own."""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from tests.servers.kfp_messages import Refusal, Request, to_json

TEXT = "text/plain; charset=utf-8"
NO_ROUTE = "Not Found"
PREFIX = "/apis/v2beta1"
CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 429: 8, 500: 13, 503: 14}  # of gRPC, by HTTP status


class Server(Protocol):
    """The server that answers the requests."""

    lock: threading.Lock
    requests: list[Request]
    breaches: list[str]

    def answer(self, request: Request) -> Any:
        """Return the answer to a request. Raises Refusal."""

    def next_fault(self, request: Request) -> "Answer | None":
        """Return the scripted answer to a request, if there is one."""


class Handler(BaseHTTPRequestHandler):
    server: Server  # type: ignore[assignment]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer takes 40 ms

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        request = Request(
            method=self.command,
            path=parts.path.removeprefix(PREFIX),
            query=dict(parse_qsl(parts.query)),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.rfile.read(int(self.headers.get("Content-Length") or 0)),
        )
        with self.server.lock:
            self.server.requests.append(request)
            fault = self.server.next_fault(request)
        if fault:
            return fault(self, request)
        return self.serve(request)

    do_POST = do_DELETE = do_GET

    def serve(self, request: Request) -> None:
        """Answer as a healthy server does."""
        with self.server.lock:
            try:
                answer = self.server.answer(request)
                body = answer.encode() if isinstance(answer, str) else json.dumps(to_json(answer)).encode()
            except Refusal as refusal:
                return refuse(self, refusal)
            except AssertionError as breach:
                self.server.breaches.append(f"{request}: {breach}")
                return refuse(self, Refusal(400, str(breach)))
        return self.reply(200, body, TEXT if isinstance(answer, str) else "application/json")

    def reply(self, status: int, body: bytes, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


Answer = Callable[[Handler, Request], None]


def error(status: int, message: str = "scripted", **headers: str) -> Answer:
    """Refuse as the API does."""
    return lambda handler, _request: refuse(handler, Refusal(status, message), **headers)


def page(status: int, text: str = "<html>Sign in</html>", kind: str = "text/html", **headers: str) -> Answer:
    """Answer with a text, as a web server, a login page or a proxy does."""
    return lambda handler, _request: handler.reply(status, text.encode(), kind, **headers)


def cut(handler: Handler, _request: Request) -> None:
    """Hang up without an answer."""
    handler.close_connection = True


def cut_body(handler: Handler, _request: Request) -> None:
    """Hang up in the middle of an answer."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"run')
    handler.close_connection = True


def slow(seconds: float) -> Answer:
    """Answer correctly, but late."""

    def answer(handler: Handler, request: Request) -> None:
        time.sleep(seconds)
        handler.serve(request)

    return answer


def lost(handler: Handler, request: Request) -> None:
    """Do what is asked, and hang up before the answer."""
    with handler.server.lock:
        handler.server.answer(request)
    handler.close_connection = True


def refuse(handler: Handler, refusal: Refusal, **headers: str) -> None:
    """Answer with an error: as the gateway does, or as the handlers besides it (uploads and logs)."""
    if refusal.upload:
        document: dict[str, Any] = {"error_message": refusal.message, "error_details": refusal.message}
    else:
        document = {"code": refusal.code or CODES.get(refusal.status, 2), "message": refusal.message}
        document |= {} if refusal.message == NO_ROUTE else {"details": []}
    # The handler of uploads sets the type of an answer when it has read the form.
    kind = TEXT if refusal.upload and refusal.status == 400 else "application/json"
    handler.reply(refusal.status, json.dumps(document).encode(), kind, **headers)
