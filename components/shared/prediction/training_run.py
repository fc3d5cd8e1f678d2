"""A training run, started by a step: in a cluster by the REST API of Kubeflow Pipelines, locally by the runner."""

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import requests

from components.shared.core import pod
from components.shared.core.document import Document, JsonObject
from components.shared.core.errors import TransientError, UserError
from components.shared.parameters.deployment import Deployment
from components.shared.parameters.form import OPTIONS
from components.shared.parameters.pods import Pods
from components.shared.storage.retry import TRANSIENT, Retries
from components.shared.storage.web_session import open_session

NEXT_RUN = "NEXT_RUN"  # the variable by which the local runner says where it looks for one
HOST = "http://ml-pipeline.kubeflow.svc:8888"
PIPELINE = "torch2kubeflow-training"
UPLOAD = "run `python pipeline.py upload`"
AUDIENCE = "pipelines.kubeflow.org"  # of the tokens that KFP with many users takes
PROJECTED_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
TOKEN_SECONDS = 600
SECONDS = (10, 60)  # to connect, and between two bytes of an answer
ATTEMPTS = 5
NEWEST = {"sort_by": "created_at desc"}
RIGHTS = "bind the Role torch2kubeflow-retrain: docs/cluster.md, `Retraining`"
KINDS: dict[str, type] = {"STRING": str, "NUMBER_INTEGER": int, "NUMBER_DOUBLE": float}


class Wanted(NamedTuple):
    """A training run to start: its name, which is that of no other, and its parameters by the names people use."""

    name: str
    parameters: dict[str, Any]


class Started(NamedTuple):
    """A training run, and whether it runs already or follows the present one."""

    run: str
    follows: bool = False


class Refused(UserError):
    """An answer of KFP that is an error."""


class NextRunDocument(Document):
    """`next-run.json`: the training run that a step asks the local runner for, after its own run."""

    FORMAT = "torch2kubeflow/next-run"
    REMEDY = "run the pipeline again"

    parameters: JsonObject


def start_run(wanted: Wanted) -> Started:
    """Start a run of the pipeline for training; one on this machine serves nothing. Raises as `start_in_cluster`."""
    if path := os.environ.get(NEXT_RUN):
        own = {name: value for name, value in wanted.parameters.items() if name not in Deployment.model_fields}
        NextRunDocument(parameters=own).write(path)
        return Started(wanted.name, follows=True)
    return start_in_cluster(wanted)


def start_in_cluster(wanted: Wanted) -> Started:
    """Start a run of the newest version of the training pipeline, beside the run of this pod.

    It gets the Secrets and nodes of this one. A run of that name that is there already is not started again. Raises
    UserError if KFP refuses it, and TransientError if it cannot be reached.
    """
    kfp = _Kfp((os.environ.get("KF_PIPELINES_ENDPOINT") or HOST).rstrip("/"))
    if found := kfp.run_named(wanted.name):
        return Started(found)
    version, own = kfp.newest_version(), kfp.own_run()
    config = own.get("runtime_config") or {}
    parameters = {**_of_pods(config.get("parameters") or {}), **wanted.parameters}
    run = {
        "display_name": wanted.name,
        "experiment_id": own.get("experiment_id"),
        "pipeline_version_reference": {name: version[name] for name in ("pipeline_id", "pipeline_version_id")},
        "runtime_config": {
            "parameters": _inputs(version, parameters),
            "pipeline_root": config.get("pipeline_root"),
        },
        "service_account": own.get("service_account"),
    }
    return Started(kfp.create_run(run))


class _Kfp:
    """KFP's API as this pod may use it: with a token of its service account, if KFP has many users."""

    def __init__(self, host: str) -> None:
        self._host, self._session, self._scope = host, open_session(), ""
        self._session.trust_env = False  # else it would send a password of .netrc in place of the token
        if self._call("GET", "healthz").get("multi_user"):
            self._scope = pod.namespace()
            self._session.headers["Authorization"] = f"Bearer {_token()}"

    def run_named(self, name: str) -> str:
        """Return the id of the run of that name; empty if there is none."""
        page = self._call("GET", "runs", {"page_size": "1", **NEWEST, **self._named(name)})
        return next((str(run["run_id"]) for run in page.get("runs") or []), "")

    def newest_version(self) -> dict[str, Any]:
        """Return the newest version of the training pipeline: the namespace's own, or the one that all share."""
        page = self._call("GET", "pipelines", {"page_size": "100", **self._named(PIPELINE)})
        for one in sorted(page.get("pipelines") or [], key=lambda one: one.get("namespace", "") != self._scope):
            path = f"pipelines/{one['pipeline_id']}/versions"
            for version in self._call("GET", path, {"page_size": "1", **NEWEST}).get("pipeline_versions") or []:
                return dict(version)
        raise UserError(f"{PIPELINE} is not uploaded", UPLOAD)

    def own_run(self) -> dict[str, Any]:
        """Return the run of this pod; empty if it is not known."""
        run_id = os.environ.get("RUN_ID")
        return self._call("GET", f"runs/{run_id}") if run_id else {}

    def create_run(self, run: Mapping[str, Any]) -> str:
        """Create a run and return its id; one whose creation is not confirmed is looked for by its name."""
        try:
            return str(self._call("POST", "runs", body=run)["run_id"])
        except TransientError:
            if found := self.run_named(run["display_name"]):
                return found
            raise

    def _named(self, name: str) -> dict[str, str]:
        predicate = {"operation": "EQUALS", "key": "display_name", "string_value": name}
        scope = {"namespace": self._scope} if self._scope else {}
        return {"filter": json.dumps({"predicates": [predicate]}), **scope}

    def _call(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return an answer. What reads is sent again after a failure by chance, and what creates is not."""
        retries = Retries(f"KFP at {self._host}", "run it again", ATTEMPTS if method == "GET" else 1)
        url = f"{self._host}/apis/v2beta1/{path}"
        while True:
            try:
                answer = self._session.request(
                    method, url, params=query, json=body, timeout=SECONDS, allow_redirects=False
                )
            except requests.RequestException:
                retries.failed("could not be reached, or broke the connection")
                continue
            if answer.status_code in TRANSIENT:
                retries.failed(f"answered {answer.status_code}")
                continue
            return self._checked(answer, f"{method} /{path}")

    def _checked(self, answer: requests.Response, request: str) -> dict[str, Any]:
        try:
            found = answer.json()
            message = str(found.get("message", ""))[:300]
        except (ValueError, AttributeError):
            raise UserError(
                f"what answers at {self._host} is not KFP ({answer.status_code})", "check KF_PIPELINES_ENDPOINT"
            ) from None
        if answer.status_code != 200:
            remedy = RIGHTS if answer.status_code in (401, 403) else ""
            raise Refused(f"KFP refuses {request} ({answer.status_code}): {message}", remedy)
        return dict(found)


def _of_pods(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a run that say how pods run, such as the names of Secrets."""
    given = {**inputs, **(inputs.get(OPTIONS) or {})}
    return {name: given[name] for name in Pods.model_fields if name in given}


def _inputs(version: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as the inputs that a version of the pipeline has, and the others as members of `options`.

    Raises UserError if it has no `options` for them, as versions of earlier code.
    """
    spec = version["pipeline_spec"]
    known = spec.get("pipeline_spec", spec)["root"].get("inputDefinitions", {}).get("parameters", {})
    own = {name: _typed(value, known[name]["parameterType"]) for name, value in parameters.items() if name in known}
    others = {name: value for name, value in parameters.items() if name not in known}
    if others and OPTIONS not in known:
        names = ", ".join(others)
        raise UserError(f"version {version['display_name']} of {PIPELINE} does not know {names}", UPLOAD)
    return {**own, OPTIONS: others} if others else own


def _typed(value: Any, kind: str) -> Any:
    return KINDS[kind](value) if kind in KINDS else value


def _token() -> str:
    """Return a token for KFP: the one that Kubernetes mounts for it, or one that it makes for the service account."""
    if PROJECTED_TOKEN.exists():
        return PROJECTED_TOKEN.read_text().strip()
    namespace = pod.namespace()
    path = f"api/v1/namespaces/{namespace}/serviceaccounts/{_account()}/token"
    spec = {"audiences": [AUDIENCE], "expirationSeconds": TOKEN_SECONDS}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    try:
        return str(pod.ask(path, body)["status"]["token"])
    except OSError as error:
        raise UserError(f"Kubernetes gives this pod no token for KFP ({error})", RIGHTS) from None


def _account() -> str:
    """Return the name of the pod's service account, as its token says."""
    payload = pod.read("token").split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return str(claims["kubernetes.io"]["serviceaccount"]["name"])
