"""The parts of a Kubernetes API server for port-forwards and logs: pods, their logs, and a port over a websocket."""

import base64
import hashlib
import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from tests.servers.web_server import serving

PORT = struct.pack("<H", 8888)
BINARY, CLOSE = 2, 8


class Pod(NamedTuple):
    """A pod with a log."""

    name: str
    labels: str  # the selector that finds it
    log: str
    node: str = ""  # Argo's name of it
    phase: str = "Running"


class KubeServer(ThreadingHTTPServer):
    """Forwards port 8888 of pod `ml-pipeline-1` to `target`."""

    daemon_threads = True

    def __init__(self, target: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = target
        self.phase = "Running"
        self.status = 200  # of the list of pods
        self.forwarded = 0
        self.pods: list[Pod] = []  # in the order of their creation

    def write_kubeconfig(self, path: Path) -> None:
        """Write a kubeconfig with the context `here`."""
        config = {
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{self.server_port}"}}],
            "users": [{"name": "me", "user": {}}],
        }
        path.write_text(json.dumps(config))


class _Handler(BaseHTTPRequestHandler):
    server: KubeServer

    def do_GET(self) -> None:
        if self.headers.get("Upgrade") == "websocket":
            return self._forward()
        path, query = urlsplit(self.path).path, dict(parse_qsl(urlsplit(self.path).query))
        if path.endswith("/log"):
            assert query["container"] == "main"
            body = next(pod.log for pod in self.server.pods if pod.name == path.split("/")[-2]).encode()
        else:
            body = json.dumps({"kind": "PodList", "apiVersion": "v1", "items": self._pods(query)}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        return None

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _pods(self, query: dict[str, str]) -> list[dict[str, Any]]:
        forwarding = Pod("ml-pipeline-1", "app=ml-pipeline", "", phase=self.server.phase)
        return [
            {
                "metadata": {
                    "name": pod.name,
                    "creationTimestamp": f"2026-01-01T00:00:{second:02}Z",
                    "annotations": {"workflows.argoproj.io/node-name": pod.node},
                },
                "status": {"phase": pod.phase},
            }
            for second, pod in enumerate([forwarding, *self.server.pods])
            if pod.labels == query["labelSelector"]
        ][::-1]

    def _forward(self) -> None:
        self.server.forwarded += 1
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
        self.end_headers()
        for channel in (b"\0", b"\1"):  # data, errors
            self._send(channel + PORT)
        with socket.create_connection(("127.0.0.1", self.server.target)) as pod:
            back = threading.Thread(target=self._send_back, args=(pod,), daemon=True)
            back.start()
            while data := self._receive():
                pod.sendall(data[1:])
            pod.shutdown(socket.SHUT_RDWR)
            back.join()

    def _send_back(self, pod: socket.socket) -> None:
        while data := pod.recv(4096):
            self._send(b"\0" + data)
        self._send(b"", CLOSE)

    def _send(self, data: bytes, kind: int = BINARY) -> None:
        length = bytes([len(data)]) if len(data) < 126 else struct.pack(">BH", 126, len(data))
        self.wfile.write(bytes([0x80 | kind]) + length + data)

    def _receive(self) -> bytes:
        """Return the next frame's data; nothing at the end."""
        head = self.rfile.read(2)
        if len(head) < 2 or head[0] & 0x0F == CLOSE:
            return b""
        length = head[1] & 0x7F
        if length >= 126:
            form = ">H" if length == 126 else ">Q"
            (length,) = struct.unpack(form, self.rfile.read(struct.calcsize(form)))
        mask, data = self.rfile.read(4), self.rfile.read(length)
        return bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))


@contextmanager
def kube_server(target: int) -> Iterator[Any]:
    """Run a server for the block."""
    with serving(KubeServer(target)) as server:
        yield server
