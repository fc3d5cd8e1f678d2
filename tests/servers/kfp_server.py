"""A server of Kubeflow Pipelines' v2beta1 API on the loopback interface, for the real `kfp.Client`.

Its answers and its refusals follow the API server of KFP 2.17 (backend/src/apiserver in kubeflow/pipelines); the models
of `kfp_server_api` build what it sends and check what it receives, field by field. It differs where a test wants it to:
`script` sets the answers to the next requests, `plan` the states of runs, and `page_limit` makes pages short.
"""

import json
import re
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote
from zlib import crc32

import kfp_server_api as api

from tests.servers.kfp_http import NO_ROUTE, Answer, Handler
from tests.servers.kfp_messages import (
    Refusal,
    Request,
    check_parameters,
    denied,
    found_in,
    has_versions,
    jobs_denied,
    matches,
    page_start,
    page_token,
    parse,
    taken,
    uploaded,
)
from tests.servers.web_server import serving

AUDIENCE = "pipelines.kubeflow.org"
UNAUTHENTICATED = "Unauthenticated: Failed to check authorization. User identity is empty in the request header: "
NO_USER = "Unauthenticated: Request header error: there is no user identity header.: " + (
    "Request header error: there is no user identity header."
)
FINAL = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}
OMITTED = "OMITTED"  # a task whose dependencies failed: for Argo's Omitted KFP has no state
UNENDED_RUN, UNENDED_TASK = datetime(1970, 1, 1, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)
UNCACHED = ("resolve", "finish")  # steps for which the launcher records nothing, since they are never cached


@dataclass
class Stage:
    """A run at one reading: its state, and the state of each task by display name.

    A task is a step, a step's driver (`train-driver`), a step's pod (`executor#train`, shown as `executor`), an attempt
    (`executor(0)#train`) or a group, as Argo names them.
    """

    state: str
    tasks: dict[str, str] = field(default_factory=dict)
    seconds: float = 10.0  # of each task


class KfpServer(ThreadingHTTPServer):
    """The server and its state; everything in it may be read and set by a test."""

    daemon_threads = True  # so that a client's idle connection does not block the end

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.multi_user = False
        self.namespaces = {"kubeflow"}  # that the user may use, if there are many users
        self.user = "system:serviceaccount:default:default"
        self.audience = AUDIENCE  # for which a wrong token is
        self.token: str | None = None  # the Bearer token that is asked for
        self.cookie: str | None = None
        self.page_limit = 200
        self.pipelines: dict[str, api.V2beta1Pipeline] = {}
        self.versions: dict[str, api.V2beta1PipelineVersion] = {}
        self.experiments: dict[str, api.V2beta1Experiment] = {}
        self.runs: dict[str, api.V2beta1Run] = {}
        self.recurring_runs: dict[str, api.V2beta1RecurringRun] = {}
        self.logs: dict[str, str] = {}  # pod -> log
        self.plan: list[Stage] = [Stage("SUCCEEDED")]  # of the next run; the last stage stays
        self.plan_of_retry: list[Stage] = [Stage("SUCCEEDED")]
        self.requests: list[Request] = []
        self.breaches: list[str] = []  # what the client sent against the API
        self.lock = threading.Lock()
        self._clock = datetime(2026, 1, 1, tzinfo=UTC)
        self._plans: dict[str, list[Stage]] = {}
        self._stages: dict[str, Stage] = {}
        self._replayed: dict[str, list[api.V2beta1Run]] = {}
        self._faults: list[tuple[str, Answer]] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that hangs up: some tests' clients do."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def script(self, route: str, *answers: Answer) -> None:
        """Answer the next requests whose `METHOD /path` matches the regular expression `route`, one each."""
        self._faults += [(route, answer) for answer in answers]

    def asked(self, route: str) -> list[Request]:
        """Return the requests so far whose `METHOD /path` matches the regular expression `route`."""
        return [request for request in self.requests if re.fullmatch(route, str(request))]

    def add_run(self, **fields: Any) -> api.V2beta1Run:
        """Add a run of earlier, which does not follow `plan`."""
        defaults = {"run_id": str(uuid.uuid4()), "display_name": "run", "created_at": self.now(), "state": "SUCCEEDED"}
        run = api.V2beta1Run(**{**defaults, "storage_state": "AVAILABLE", **fields})
        self.runs[run.run_id] = run
        self._plans[run.run_id] = []
        return run

    def replay(self, graph: str, *readings: Any) -> str:
        """Answer the next readings of a run of a graph with these, as they were recorded; return its id."""
        last = readings[-1]
        pipeline_id, name = last.pipeline_version_reference.pipeline_id, f"torch2kubeflow-{graph}"
        self.pipelines[pipeline_id] = api.V2beta1Pipeline(pipeline_id=pipeline_id, display_name=name, name=name)
        self.runs[last.run_id], self._plans[last.run_id] = last, []
        self._replayed[last.run_id] = list(readings)
        return str(last.run_id)

    @property
    def account(self) -> str:
        """The service account of runs."""
        return "default-editor" if self.multi_user else "pipeline-runner"

    def now(self) -> datetime:
        """Return a time one second later than at the last call."""
        self._clock += timedelta(seconds=1)
        return self._clock

    def answer(self, request: Request) -> Any:
        """Return the answer to a request: a model, a dictionary, or text. Raises Refusal for an error."""
        self._admit(request)
        for method, pattern, serve in ROUTES:
            found = re.fullmatch(pattern, request.path)
            if found and method == request.method:
                return serve(self, request, *(unquote(part) for part in found.groups()))
        raise Refusal(404, NO_ROUTE)

    def next_fault(self, request: Request) -> Answer | None:
        for index, (route, answer) in enumerate(self._faults):
            if re.fullmatch(route, str(request)):
                del self._faults[index]
                return answer
        return None

    def _admit(self, request: Request) -> None:
        if self.multi_user and request.path == "/healthz":
            return
        sent = request.headers.get("authorization")
        if self.token is not None and sent != f"Bearer {self.token}":
            raise Refusal(401, self._not_listed(request, f"{UNAUTHENTICATED}{self._unauthenticated(sent)}"))
        if self.cookie is not None and request.headers.get("cookie") != self.cookie:
            raise Refusal(401, self._not_listed(request, f"{UNAUTHENTICATED}{NO_USER}"))

    def _unauthenticated(self, sent: str | None) -> str:
        if not sent:
            return NO_USER
        audiences = f', token audiences ["{self.audience}"] is invalid for the target audiences ["{AUDIENCE}"]'
        review = f"Error [invalid bearer token{audiences if self.audience != AUDIENCE else ''}]"
        failure = f"Authentication failure: Unauthenticated: Review.Status.Authenticated is false. {review}"
        return f"[{NO_USER}, {failure}: Failed to authenticate token review]"

    def _not_listed(self, request: Request, why: str) -> str:
        """Return the message of a refusal; that of a list of runs is a longer one."""
        namespace = request.query.get("namespace", "")
        if str(request) != "GET /runs":
            return why
        access = f"Failed to access run . Check if you have access to namespace {namespace}: " if namespace else ""
        check = f"Check if you have permission to access namespace {namespace}: "
        return f"Failed to list runs: Failed to list runs due to authorization error. {check}{access}{why}"

    def _namespace(self, namespace: str | None, *, upload: bool = False) -> str | None:
        if not self.multi_user:
            return None
        if not namespace:
            raise Refusal(400, "Invalid input error: Namespace cannot be empty in multi-user mode", upload=upload)
        if namespace not in self.namespaces:
            # The upload's own handler answers 400 when the others answer 403.
            raise Refusal(400 if upload else 403, f"User is not authorized in namespace {namespace!r}", upload=upload)
        return namespace

    def health(self, _request: Request) -> Any:
        built = {"commit_sha": "unknown", "tag_name": "unknown"}  # which the client's model lacks
        return {**built, "multi_user": self.multi_user, "pipeline_store": "database"}

    # Pipelines and their versions

    def list_pipelines(self, request: Request) -> Any:
        namespace = request.query.get("namespace") or None
        found = [p for p in self.pipelines.values() if not self.multi_user or p.namespace in (namespace, None)]
        page, following, total = self._page(found, request)
        return api.V2beta1ListPipelinesResponse(pipelines=page, next_page_token=following, total_size=total)

    def get_pipeline(self, _request: Request, pipeline_id: str) -> Any:
        return found_in(self.pipelines, pipeline_id, "Pipeline")

    def delete_pipeline(self, request: Request, pipeline_id: str) -> Any:
        found_in(self.pipelines, pipeline_id, "Pipeline")
        mine = [v.pipeline_version_id for v in self.versions.values() if v.pipeline_id == pipeline_id]
        if mine and request.query.get("cascade") != "true":
            raise Refusal(400, has_versions(pipeline_id, mine[0]))
        for version in mine:
            del self.versions[version]
        del self.pipelines[pipeline_id]
        return {}

    def create_pipeline(self, request: Request) -> Any:
        pipeline = parse(request.json, "V2beta1Pipeline")
        pipeline.display_name = pipeline.name = pipeline.display_name or pipeline.name
        pipeline.namespace = self._namespace(pipeline.namespace)
        if self._pipeline_named(pipeline.name, pipeline.namespace):
            raise Refusal(409, taken("pipeline", pipeline.name))
        return self._add_pipeline(pipeline)

    def upload(self, request: Request) -> Any:
        name, spec = request.query.get("name") or "pipeline.yaml", uploaded(request)
        namespace = self._namespace(request.query.get("namespace"), upload=True)
        if self._pipeline_named(name, namespace):
            raise Refusal(409, "Failed to create a pipeline and a pipeline version", upload=True)
        pipeline = self._add_pipeline(
            api.V2beta1Pipeline(
                display_name=name, name=name, description=request.query.get("description"), namespace=namespace
            )
        )
        self._add_version(pipeline.pipeline_id, name, request, spec)
        return pipeline

    def upload_version(self, request: Request) -> Any:
        pipeline_id, name = request.query.get("pipelineid", ""), request.query.get("name") or "pipeline.yaml"
        spec = uploaded(request)
        if pipeline_id not in self.pipelines or self._version_named(pipeline_id, name):
            status = 409 if pipeline_id in self.pipelines else 400
            raise Refusal(status, "Failed to create a pipeline version", upload=True)
        return self._add_version(pipeline_id, name, request, spec)

    def list_versions(self, request: Request, pipeline_id: str) -> Any:
        found = [v for v in self.versions.values() if v.pipeline_id == pipeline_id]
        page, following, total = self._page(found, request)
        return api.V2beta1ListPipelineVersionsResponse(
            pipeline_versions=page, next_page_token=following, total_size=total
        )

    def get_version(self, _request: Request, pipeline_id: str, version_id: str) -> Any:
        found_in(self.pipelines, pipeline_id, "Pipeline")
        return found_in(self.versions, version_id, "PipelineVersion")

    def delete_version(self, request: Request, pipeline_id: str, version_id: str) -> Any:
        self.get_version(request, pipeline_id, version_id)
        del self.versions[version_id]
        return {}

    def _pipeline_named(self, name: str, namespace: str | None) -> bool:
        return any(p.display_name == name and p.namespace == namespace for p in self.pipelines.values())

    def _add_pipeline(self, pipeline: api.V2beta1Pipeline) -> api.V2beta1Pipeline:
        pipeline.pipeline_id, pipeline.created_at = str(uuid.uuid4()), self.now()
        self.pipelines[pipeline.pipeline_id] = pipeline
        return pipeline

    def _version_named(self, pipeline_id: str, name: str) -> bool:
        return any(v.pipeline_id == pipeline_id and v.display_name == name for v in self.versions.values())

    def _add_version(self, pipeline_id: str, name: str, request: Request, spec: Any) -> api.V2beta1PipelineVersion:
        version = api.V2beta1PipelineVersion(
            pipeline_id=pipeline_id,
            pipeline_version_id=str(uuid.uuid4()),
            display_name=name,
            name=name,
            description=request.query.get("description"),
            created_at=self.now(),
            pipeline_spec=spec,
        )
        self.versions[version.pipeline_version_id] = version
        return version

    # Experiments

    def list_experiments(self, request: Request) -> Any:
        namespace = self._namespace(request.query.get("namespace"))
        found = [e for e in self.experiments.values() if e.namespace == namespace]
        page, following, total = self._page(found, request)
        return api.V2beta1ListExperimentsResponse(experiments=page, next_page_token=following, total_size=total)

    def create_experiment(self, request: Request) -> Any:
        experiment = parse(request.json, "V2beta1Experiment")
        experiment.namespace = self._namespace(experiment.namespace)
        same = [e for e in self.experiments.values() if e.namespace == experiment.namespace]
        if any(e.display_name == experiment.display_name for e in same):
            raise Refusal(409, taken("experiment", experiment.display_name))
        experiment.experiment_id = str(uuid.uuid4())
        experiment.created_at = self.now()
        experiment.storage_state = "AVAILABLE"
        self.experiments[experiment.experiment_id] = experiment
        return experiment

    def get_experiment(self, _request: Request, experiment_id: str) -> Any:
        return found_in(self.experiments, experiment_id, "Experiment")

    # Runs

    def list_runs(self, request: Request) -> Any:
        experiment = request.query.get("experiment_id")
        namespace = None if experiment else self._namespace_of_list(request)
        found = [
            run
            for run in self.runs.values()
            if (not experiment or run.experiment_id == experiment)
            and (namespace is None or self._namespace_of(run) == namespace)
        ]
        page, following, total = self._page(found, request)
        return api.V2beta1ListRunsResponse(runs=page, next_page_token=following, total_size=total)

    def _namespace_of_list(self, request: Request) -> str | None:
        namespace = request.query.get("namespace")
        if self.multi_user and not namespace:
            why = "Invalid input error: A run cannot have an empty namespace in multi-user mode"
            raise Refusal(400, self._not_listed(request, why))
        if self.multi_user and namespace not in self.namespaces:
            raise Refusal(403, self._not_listed(request, denied(self.user, namespace, "runs")))
        return self._namespace(namespace)

    def create_run(self, request: Request) -> Any:
        run = parse(request.json, "V2beta1Run")
        if not run.display_name:
            raise Refusal(400, "Run name cannot be empty")
        self._check(run)
        answer = copy(self.start_run(run, str(uuid.uuid4())))
        self._advance(run)  # it goes on before it is read for the first time
        return answer

    def start_run(self, run: api.V2beta1Run, run_id: str) -> api.V2beta1Run:
        """Add a run that follows `plan`, from when it is next read."""
        run.run_id, run.service_account = run_id, run.service_account or self.account
        run.created_at = run.scheduled_at = self.now()
        run.storage_state, run.state, run.finished_at = "AVAILABLE", "PENDING", UNENDED_RUN
        run.state_history = [api.V2beta1RuntimeStatus(update_time=run.created_at, state="PENDING")]
        self.runs[run_id], self._plans[run_id] = run, list(self.plan)
        return run

    def get_run(self, _request: Request, run_id: str) -> Any:
        if replayed := self._replayed.get(run_id):
            self.runs[run_id] = replayed.pop(0) if len(replayed) > 1 else replayed[0]
        run = found_in(self.runs, run_id, "Run", f"Failed to get a run: Failed to fetch run {run_id}: ")
        self._advance(run)
        return run

    def retry_run(self, _request: Request, run_id: str) -> Any:
        run = found_in(self.runs, run_id, "Run")
        if run.state not in ("FAILED", "CANCELED"):
            why = "BadRequestError: Workflow must be Failed/Error to retry: workflow cannot be retried"
            raise Refusal(409, f"Failed to retry a run: Failed to retry run {run_id}: {why}", code=10)
        self._plans[run_id] = list(self.plan_of_retry)
        run.state, run.finished_at = "RUNNING", None
        return {}

    def terminate_run(self, _request: Request, run_id: str) -> Any:
        run = found_in(self.runs, run_id, "Run")
        if run.state in FINAL:
            why = f"Invalid input error: Failed to terminate a run {run_id}. Row not found"
            raise Refusal(400, f"Failed to terminate a run: Failed to terminate run {run_id}: {why}")
        tasks = self._stages[run_id].tasks
        ended = {name: {"RUNNING": "FAILED", "PENDING": OMITTED}.get(state, state) for name, state in tasks.items()}
        self._plans[run_id] = [Stage("CANCELING", tasks), Stage("FAILED", ended)]  # CANCELED only in its history
        return {}

    def archive_run(self, _request: Request, run_id: str) -> Any:
        found_in(self.runs, run_id, "Run").storage_state = "ARCHIVED"
        return {}

    def unarchive_run(self, _request: Request, run_id: str) -> Any:
        found_in(self.runs, run_id, "Run").storage_state = "AVAILABLE"
        return {}

    def delete_run(self, _request: Request, run_id: str) -> Any:
        found_in(self.runs, run_id, "Run")
        del self.runs[run_id]
        return {}

    def log(self, _request: Request, run_id: str, pod: str) -> Any:
        found_in(self.runs, run_id, "Run")
        if pod not in self.logs:
            # The body is an error, and yet the status is 200 and the type text/plain, as recorded of KFP 2.17.
            why = f"BadRequestError: Failed to read logs for run {run_id}: NoSuchKey: The specified key does not exist."
            return json.dumps({"error_message": why, "error_details": why})
        return self.logs[pod]

    def _advance(self, run: api.V2beta1Run) -> None:
        """Take the run to the next stage of its plan."""
        plan = self._plans[run.run_id]
        if not plan:
            return
        stage = plan.pop(0) if len(plan) > 1 else plan[0]
        self._stages[run.run_id] = stage
        if run.state != stage.state:
            history = [*(run.state_history or []), api.V2beta1RuntimeStatus(update_time=self.now(), state=stage.state)]
            run.state, run.state_history = stage.state, history
        start, tasks, names = run.created_at, [], list(stage.tasks)
        for number, (name, state) in enumerate(stage.tasks.items()):
            end = start + timedelta(seconds=stage.seconds)
            tasks += _listed(run, name, state, start, end, stage)
            # A step lasts as long as its pod, which is named right after it.
            start = start if "#" in "".join(names[number + 1 : number + 2]) else end
        tasks.sort(key=lambda task: task.task_id)  # in no order
        run.run_details = api.V2beta1RunDetails(task_details=tasks) if tasks else None
        run.finished_at = start if stage.state in FINAL else UNENDED_RUN

    def _namespace_of(self, item: Any) -> str | None:
        experiment = self.experiments.get(item.experiment_id)
        return experiment.namespace if experiment else None

    def _check(self, item: Any) -> None:
        """Check the experiment, pipeline and parameters of a run or recurring run. Raises Refusal."""
        if item.experiment_id is not None:
            found_in(self.experiments, item.experiment_id, "Experiment")
        parameters = (item.runtime_config and item.runtime_config.parameters) or {}
        check_parameters(self._spec_of(item), parameters)

    def _spec_of(self, item: Any) -> Any:
        reference = item.pipeline_version_reference
        if reference is None:
            if item.pipeline_spec is None:
                raise Refusal(400, "Failed to fetch a template with an empty pipeline spec manifest")
            return item.pipeline_spec
        found_in(self.pipelines, reference.pipeline_id, "Pipeline")
        if reference.pipeline_version_id:
            return found_in(self.versions, reference.pipeline_version_id, "PipelineVersion").pipeline_spec
        newest = [v for v in self.versions.values() if v.pipeline_id == reference.pipeline_id]
        if not newest:
            raise Refusal(404, f"Pipeline {reference.pipeline_id} has no versions")
        return max(newest, key=lambda version: version.created_at).pipeline_spec

    # Recurring runs

    def list_recurring_runs(self, request: Request) -> Any:
        experiment = request.query.get("experiment_id")
        namespace = request.query.get("namespace")
        if namespace and self.multi_user and namespace not in self.namespaces:
            raise Refusal(403, jobs_denied(self.user, namespace))
        namespace = None if experiment else self._namespace(namespace)
        found = [
            item
            for item in self.recurring_runs.values()
            if (not experiment or item.experiment_id == experiment)
            and (namespace is None or item.namespace == namespace)
        ]
        page, following, total = self._page(found, request)
        return api.V2beta1ListRecurringRunsResponse(recurring_runs=page, next_page_token=following, total_size=total)

    def create_recurring_run(self, request: Request) -> Any:
        item = parse(request.json, "V2beta1RecurringRun")
        if not item.display_name:
            raise Refusal(400, "Recurring run's name cannot be empty")
        if not 1 <= (given := int(item.max_concurrency or 0)) <= 10:
            why = f"Max concurrency of a recurring run must be at least 1 and at most 10. Received {given}"
            conversion = "Failed to create a recurring run due to conversion error: Invalid input error"
            raise Refusal(400, f"{conversion}: {why}")
        cron = item.trigger and item.trigger.cron_schedule and item.trigger.cron_schedule.cron
        # The server takes five fields as well, and misreads them: it counts from the seconds.
        if cron and not cron.startswith("@") and len(cron.split()) not in (5, 6):
            raise Refusal(400, "Schedule cron is not a supported format")
        self._check(item)
        item.recurring_run_id = str(uuid.uuid4())
        item.namespace = self._namespace_of(item) if self.multi_user else "kubeflow"
        item.service_account = item.service_account or self.account
        item.created_at = item.updated_at = self.now()
        item.status = "ENABLED" if item.mode == "ENABLE" else "DISABLED"
        item.max_concurrency = str(item.max_concurrency)
        self.recurring_runs[item.recurring_run_id] = item
        return item

    def get_recurring_run(self, _request: Request, recurring_run_id: str) -> Any:
        return found_in(self.recurring_runs, recurring_run_id, "Job")

    def delete_recurring_run(self, _request: Request, recurring_run_id: str) -> Any:
        where = (
            f"Failed to delete a recurring run: Failed to delete recurring run {recurring_run_id}. Check if exists: "
        )
        found_in(self.recurring_runs, recurring_run_id, "Job", where)
        del self.recurring_runs[recurring_run_id]
        return {}

    def enable_recurring_run(self, _request: Request, recurring_run_id: str) -> Any:
        item = found_in(self.recurring_runs, recurring_run_id, "Job")
        item.mode, item.status, item.updated_at = "ENABLE", "ENABLED", self.now()
        return {}

    def disable_recurring_run(self, _request: Request, recurring_run_id: str) -> Any:
        item = found_in(self.recurring_runs, recurring_run_id, "Job")
        item.mode, item.status, item.updated_at = "DISABLE", "DISABLED", self.now()
        return {}

    # Lists

    def _page(self, items: list[Any], request: Request) -> tuple[list[Any] | None, str | None, int]:
        """Return one page of the items that pass the filter, sorted as asked; the next page's token; the total."""
        found = [item for item in items if matches(item, request.query.get("filter"))]
        key, _, order = (request.query.get("sort_by") or "created_at").partition(" ")
        found.sort(key=lambda item: getattr(item, key), reverse=order == "desc")
        start = page_start(request.query.get("page_token"))
        size = min(int(request.query.get("page_size") or 20), self.page_limit)
        following = page_token(start + size) if start + size < len(found) else None
        return found[start : start + size] or None, following, len(found)


@contextmanager
def kfp_server() -> Iterator[KfpServer]:
    """Run a server for the block, and check that nothing was sent that the API does not know."""
    with serving(KfpServer()) as server:
        yield server
        assert not server.breaches


def node_id(name: str) -> str:
    """Return Argo's name of the node of a task; its pod has the template's name in the middle."""
    return f"flow-{crc32(name.encode())}"


def pod_name(name: str) -> str:
    """Return the pod of the task `executor#STEP`, whose log a test sets."""
    return f"flow-metadata-0-2-retry-system-container-impl-{crc32(name.encode())}"


def _listed(run: Any, name: str, state: str, start: datetime, end: datetime, stage: Stage) -> list[Any]:
    """Return what KFP lists of a task: it, and of a step's pod also the first attempt and the launcher's entry.

    A pod ends 3 s before Argo sees it; the launcher, which starts a second later, says so a second earlier.
    """
    kind, _, step = name.partition("#")
    is_attempt = kind.endswith(")")
    seen = end - timedelta(seconds=3) if is_attempt else end
    children = [api.PipelineTaskDetailChildTask(pod_name=node) for node in _children(name, stage)]
    listed = [_task(run, name, start, seen, display_name=kind, state=state, child_tasks=children)]
    if kind == "executor" and state != "SKIPPED" and not any(one.startswith("executor(") for one in stage.tasks):
        listed += _listed(run, f"executor(0)#{step}", state, start, end, stage)
    if is_attempt and state == "SUCCEEDED" and step not in UNCACHED:
        second = timedelta(seconds=1)
        listed.append(_task(run, f"launcher of {name}", start + second, seen - second, execution_id="7"))
    return listed


def _task(run: Any, name: str, start: datetime, end: datetime, **fields: Any) -> api.V2beta1PipelineTaskDetail:
    state = fields.pop("state", None)
    return api.V2beta1PipelineTaskDetail(
        run_id=run.run_id,
        task_id=str(uuid.uuid5(uuid.NAMESPACE_OID, run.run_id + name)),
        create_time=run.created_at,
        start_time=start,
        end_time={"RUNNING": UNENDED_TASK, "PENDING": UNENDED_TASK, OMITTED: start}.get(state, end),
        state=None if state == OMITTED else state,
        **fields,
    )


def _children(name: str, stage: Stage) -> list[str]:
    """Return the nodes below a task: a step's executor, a retried executor's attempts."""
    kind, _, step = name.partition("#")
    if not step:
        return [node_id(f"executor#{name}")]
    return [node_id(other) for other in stage.tasks if other.startswith(f"{kind}(") and other.endswith(f"#{step}")]


ROUTES: list[tuple[str, str, Callable[..., Any]]] = [
    ("GET", "/healthz", KfpServer.health),
    ("GET", "/pipelines", KfpServer.list_pipelines),
    ("POST", "/pipelines", KfpServer.create_pipeline),
    ("POST", "/pipelines/upload", KfpServer.upload),
    ("POST", "/pipelines/upload_version", KfpServer.upload_version),
    ("GET", "/pipelines/([^/]+)", KfpServer.get_pipeline),
    ("DELETE", "/pipelines/([^/]+)", KfpServer.delete_pipeline),
    ("GET", "/pipelines/([^/]+)/versions", KfpServer.list_versions),
    ("GET", "/pipelines/([^/]+)/versions/([^/]+)", KfpServer.get_version),
    ("DELETE", "/pipelines/([^/]+)/versions/([^/]+)", KfpServer.delete_version),
    ("GET", "/experiments", KfpServer.list_experiments),
    ("POST", "/experiments", KfpServer.create_experiment),
    ("GET", "/experiments/([^/]+)", KfpServer.get_experiment),
    ("GET", "/runs", KfpServer.list_runs),
    ("POST", "/runs", KfpServer.create_run),
    ("GET", "/runs/([^/:]+)", KfpServer.get_run),
    ("POST", "/runs/([^/:]+):retry", KfpServer.retry_run),
    ("POST", "/runs/([^/:]+):terminate", KfpServer.terminate_run),
    ("POST", "/runs/([^/:]+):archive", KfpServer.archive_run),
    ("POST", "/runs/([^/:]+):unarchive", KfpServer.unarchive_run),
    ("DELETE", "/runs/([^/:]+)", KfpServer.delete_run),
    ("GET", "/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log", KfpServer.log),
    ("GET", "/recurringruns", KfpServer.list_recurring_runs),
    ("POST", "/recurringruns", KfpServer.create_recurring_run),
    ("GET", "/recurringruns/([^/:]+)", KfpServer.get_recurring_run),
    ("DELETE", "/recurringruns/([^/:]+)", KfpServer.delete_recurring_run),
    ("POST", "/recurringruns/([^/:]+):enable", KfpServer.enable_recurring_run),
    ("POST", "/recurringruns/([^/:]+):disable", KfpServer.disable_recurring_run),
]
