"""The connection of a verb to Kubeflow Pipelines: by its address, from a pod, or through the Kubernetes API."""

import argparse
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import kubernetes
from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials
from urllib3.connection import HTTPConnection

from runner.cluster.gateway import HOST
from runner.cluster.kube import API_PORT, kfp_api, kube_client, tunnel
from runner.cluster.options import Options, is_in_pod, resolve, runs_namespace
from runner.cluster.rest import ApiError, NotKfp, Rest
from runner.kfp_patches import Client

LOCAL_UI = "http://localhost:8080"  # of `python pipeline.py ui`
PAGES = {"run": "runs", "pipeline": "pipelines", "recurring_run": "recurringrun"}


@dataclass(frozen=True)
class Connection:
    """A connection to Kubeflow Pipelines that has been tried."""

    client: Client
    namespace: str  # of the pods of runs
    multi_user: bool
    ui: str | None  # None behind a port-forward, which ends with this process
    kfp_namespace: str
    kube: kubernetes.client.CoreV1Api | None  # the cluster itself, if it may be asked
    rest: Rest
    renews: bool  # whether new credentials may take the place of expired ones while this process runs

    def may_pass(self, error: ApiError) -> bool:
        """Return whether the request that failed may succeed later."""
        return error.is_transient or (self.renews and error.status == 401)

    @property
    def scope(self) -> str | None:
        """The namespace as KFP's API wants it: None if there is one user."""
        return self.namespace if self.multi_user else None

    def ui_link(self, kind: str, path: str) -> str:
        """Return the page in KFP's UI of a run, recurring_run or pipeline, and how to reach it if nothing serves it."""
        link = self.ui_page(self.ui or (f"{LOCAL_UI}/pipeline" if self.multi_user else LOCAL_UI), kind, path)
        return link if self.ui else f"{link} (after `python pipeline.py ui`)"

    def ui_page(self, ui: str, kind: str = "", path: str = "") -> str:
        """Return a page of the UI at `ui`: of an item (`id`, or `id/version/id` for a version), by default its first.

        If KFP has many users it names the namespace, and is the dashboard's, as far as the dashboard has it.
        """
        page = f"#/{PAGES[kind]}/details/{path}" if kind else "#/runs"
        address = ui.rstrip("/")
        if not self.multi_user:
            return f"{address}/{page}"
        if address.endswith("/pipeline") and not address.endswith("/_/pipeline"):
            address = f"{address.removesuffix('/pipeline')}/_/pipeline"
        return f"{address}/?ns={self.namespace}{page}"

    def paginate(self, items: str, method: Callable[..., Any], **arguments: Any) -> Iterator[Any]:
        """Yield all `items` that a list method of the client returns, page after page."""
        token = ""
        while True:
            page = method(page_token=token, page_size=100, **arguments)
            yield from getattr(page, items) or []
            token = page.next_page_token
            if not token:
                return

    def read_text(self, path: str) -> str | None:
        """Return text that KFP serves besides its API, such as a log; None if there is none."""
        return self.rest.read_text(self.client.runs.api_client.configuration.host + path, _headers(self.client))


def connect(arguments: argparse.Namespace, namespace: str | None = None) -> Connection:
    """Reach Kubeflow Pipelines as the options and the environment say, for runs in `namespace` if it is given.

    Raises UserError if it cannot be reached.
    """
    options = resolve(arguments)
    kube, through = None, None
    if arguments.context or not options.host:
        kube = kubernetes.client.CoreV1Api(kube_client(arguments.context))
    if not options.host and not is_in_pod(arguments.context):
        through = tunnel(kube, kfp_api(arguments.kfp_namespace))
    client, rest = _client(options, f"http://ml-pipeline.{arguments.kfp_namespace}.svc:{API_PORT}", through)
    multi_user = _has_many_users(client, rest, options.host)
    namespace = namespace or runs_namespace(arguments, multi_user)
    client.use_namespace(namespace if multi_user else "")
    return Connection(
        client=client,
        namespace=namespace,
        multi_user=multi_user,
        ui=options.ui,
        kfp_namespace=arguments.kfp_namespace,
        kube=kube,
        rest=rest,
        renews=bool(options.token_file or options.cookie_file or through),
    )


def _has_many_users(client: Client, rest: Rest, host: str | None) -> bool:
    """Return what KFP says about itself. Raises ApiError if it does not answer, with the address at which it does."""
    try:
        return bool(client.get_kfp_healthz().multi_user)
    except ApiError as error:
        if not isinstance(error, NotKfp) and error.status != 404:  # KFP itself always has this path
            raise
        origin = urlsplit(host or "")._replace(path="", query="", fragment="").geturl()
        for address in (f"{origin}/pipeline", origin) if host else ():
            if address != str(host).rstrip("/") and rest.is_kfp(address, _headers(client)):
                raise ApiError(error.status, error.message, f"give --host {address}, where KFP answers") from None
        raise ApiError(error.status, error.message, error.remedy or HOST) from None


def _headers(client: Client) -> dict[str, str]:
    """Return the headers of each request, with what logs in."""
    api = client.runs.api_client
    headers = {**api.default_headers, **({"Cookie": api.cookie} if api.cookie else {})}
    api.update_params_for_auth(headers, [], ["Bearer"])
    return headers


def _client(options: Options, service: str, through: type[HTTPConnection] | None) -> tuple[Client, Rest]:
    token_file = options.token_file
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about servers older than 2.0
        client = Client(
            host=options.host or service,
            cookies=options.cookie,
            existing_token=options.token,
            credentials=ServiceAccountTokenVolumeCredentials(str(token_file)) if token_file else None,
            ssl_ca_cert=options.authority and str(options.authority),
        )
    api = client.runs.api_client  # one for all services
    api.rest_client = Rest(api.configuration, options.cookie, through, options.cookie_file)
    return client, api.rest_client
