"""Verbs `ui` and `runs open`: open KFP's UI in a browser, through a port of this machine if nothing else leads to it.

With many users it is Istio's gateway that leads to the UI, for only it knows who asks.
"""

import argparse
import socket
import sys
import threading
import webbrowser
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import Any

from kfp.dsl.base_component import BaseComponent

from components.shared.core.errors import UserError
from components.shared.core.printable import say
from runner.answer import Answer
from runner.cluster.api import find_run
from runner.cluster.connection import Connection, connect
from runner.cluster.kube import Target, open_tunnel
from runner.cluster.rest import ApiError

UI_PODS, UI_PORT = "app=ml-pipeline-ui", 3000
GATEWAY_NAMESPACE, GATEWAY_PODS, GATEWAY_PORT = "istio-system", "istio=ingressgateway", 8080
SET_UI = "name the UI's address in KF_PIPELINES_UI_ENDPOINT"


class UiDocument(Answer):
    """The page of KFP's UI that was opened, or could be."""

    FORMAT = "torch2kubeflow/ui"

    link: str


def handle(arguments: argparse.Namespace, *pipelines: BaseComponent) -> int:
    """Open the page and, where a port is forwarded, serve it until Ctrl-C; return 0."""
    connection = connect(arguments)
    item = _run(connection, arguments.run, pipelines) if arguments.verb == "runs" else ()
    if connection.ui:
        _open(arguments, connection.ui_page(connection.ui, *item))
        return 0
    forward = _forward(connection)
    with _listen(arguments.port) as listener, suppress(KeyboardInterrupt):
        address = f"http://localhost:{listener.getsockname()[1]}"
        _open(arguments, connection.ui_page(f"{address}/pipeline" if connection.multi_user else address, *item))
        say("Ctrl-C ends the port-forward", flush=True)
        while True:
            browser, _ = listener.accept()
            threading.Thread(target=_serve, args=(browser, forward), daemon=True).start()
    return 0


def _run(connection: Connection, run_id: str, pipelines: Sequence[BaseComponent]) -> tuple[str, str]:
    return "run", str(find_run(connection, run_id, pipelines).run.run_id)


def _open(arguments: argparse.Namespace, link: str) -> None:
    say(link, flush=True)
    arguments.document = UiDocument(link=link)
    if not arguments.no_browser and not webbrowser.open(link):
        say("note: no browser was found; open the link yourself", file=sys.stderr)


def _forward(connection: Connection) -> Any:
    """Return what connects to the pod that serves the UI. Raises UserError if Kubernetes is not reached."""
    if not connection.kube:
        raise UserError("the address of KFP's UI is not known", f"{SET_UI}, or give --context")
    if connection.multi_user:
        target = Target(GATEWAY_NAMESPACE, GATEWAY_PODS, GATEWAY_PORT, f"many users need its login; {SET_UI}")
    else:
        target = Target(connection.kfp_namespace, UI_PODS, UI_PORT, "give KFP's own namespace with --kfp-namespace")
    return open_tunnel(connection.kube, target)  # before a browser is opened


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise UserError(f"port {port} of this machine is not free ({error.strerror})", "give another --port") from None


def _serve(browser: socket.socket, forward: Any) -> None:
    """Connect a browser to the pod until either hangs up, and say why if the pod is not reached."""
    with suppress(OSError), browser:
        try:
            connected = forward("")._new_conn()
        except ApiError as error:
            say(f"error: {error}", file=sys.stderr)
            return
        with closing(connected) as pod:
            back = threading.Thread(target=_copy, args=(pod, browser), daemon=True)
            back.start()
            _copy(browser, pod)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
