"""The parts of a Kubernetes API server for port-forwards and logs: pods, their logs, and a port over a websocket."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from tests.servers.web_server import serving
from tests.servers.websocket import WebsocketHandler


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


class _Handler(WebsocketHandler):
    server: KubeServer

    def do_GET(self) -> None:
        if self.is_websocket:
            self.server.forwarded += 1
            return self.forward(8888, self.server.target)
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


@contextmanager
def kube_server(target: int) -> Iterator[Any]:
    """Run a server for the block."""
    with serving(KubeServer(target)) as server:
        yield server
