"""Changes to KFP for which it has no setting, and the private parts of KFP that the runner uses.

Each names what it replaces, as read in KFP 2.17.0, and asserts that this is still there. A failed assertion is a bug of
ours: read the installed KFP, then adapt the patch.
"""

import functools
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import kfp
from kfp.dsl import Artifact, PipelineTask
from kfp.local import (
    cache,
    executor_input_utils,
    graph_utils,
    placeholder_utils,
    status,
    subprocess_task_handler,
    task_dispatcher,
)
from kfp.local.orchestrator import enhanced_dag_orchestrator as loops

from components.entrypoints.run_step import START

READ_IN = "2.17.0"
RunStep = Callable[[list[str], dict[str, str]], int]  # command and environment -> exit code
OnCached = Callable[[str, list[Artifact]], None]  # step and the artifacts that an earlier run made
INPUTS = "{{$}}"  # for which KFP puts in all inputs of a step, and the paths of its outputs
STEP_IMAGE = "STEP_IMAGE"  # variable of a step, which changes with any code

# How many folders an artifact's own folder is below that of all runs: <run>/<pipeline>/<step>/<artifact>.
ARTIFACT_DEPTH = len(Path(executor_input_utils.construct_local_task_root("run", "pipeline", "step")).parts)


class Records(Protocol):
    """What tells whether a step in KFP's cache may be reused, by the path of KFP's record of it."""

    def write(self, record: Path, outputs: Mapping[str, Any]) -> None:
        """Note what a step left, of which KFP has written its record."""

    def is_intact(self, record: Path) -> bool:
        """Return whether the record may be read."""

    def is_reusable(self, record: Path, outputs: Mapping[str, Any]) -> bool:
        """Return whether the outputs in it may be taken for the step's."""


@contextmanager
def local_runner(run_id: str, run_step: RunStep, on_cached: OnCached, records: Records) -> Iterator[None]:
    """Within the block, let KFP's local runner run steps by `run_step` and report those that it has in its cache.

    Steps that ask for the id of their run get `run_id`.
    """
    with _handler(run_step), _cache(on_cached, records), _placeholders(run_id), _loops_in_turn(), _order():
        yield


@contextmanager
def _handler(run_step: RunStep) -> Iterator[None]:
    """Replace KFP's way to run a step, which refuses a component without a source, and leaves the step at Ctrl-C."""
    original = subprocess_task_handler.SubprocessTaskHandler
    _assert_has(task_dispatcher.run_single_task_implementation, "subprocess_task_handler.SubprocessTaskHandler")
    _assert_has(original.__init__, "self.full_command = full_command", "self.env_vars = env_vars")
    _assert_has(original.__init__, "self.validate_not_container_component(full_command)")

    class Handler(original):  # type: ignore[misc, valid-type]
        def validate_not_container_component(self, full_command: list[str]) -> None:
            """Accept our components, which name a port of the image."""

        def run(self) -> status.Status:
            code = run_step(self.full_command, self.env_vars)
            return status.Status.FAILURE if code else status.Status.SUCCESS

    with _replaced(subprocess_task_handler, "SubprocessTaskHandler", Handler):
        yield


@contextmanager
def _cache(on_cached: OnCached, records: Records) -> Iterator[None]:
    """Replace KFP's cache of steps, which only logs which steps it has, by one that reports them.

    KFP's key holds the image, whose tag changes with any code, and the text of the port. Of our own steps only the
    digest of the code that they reach counts. KFP believes what it has written of a step: here `records` must agree.
    """
    original = cache.LocalCache
    _assert_has(cache.get_local_cache, "LocalCache(cache_root=cache_root)")
    _assert_has(original, "component_name: str,", "def get(self, key: str)")
    _assert_has(original, "def put(self, key: str, outputs: Dict[str, Any])", "def _entry_path(self, key: str)")
    _assert_has(original.compute_key, "image: str,", "full_command: List[str],", "env_vars: Optional[Dict[str, str]]")

    class Cache(original):  # type: ignore[misc, valid-type]
        def compute_key(
            self, component_name: str, image: str, full_command: list[str], env_vars: dict[str, str], **inputs: Any
        ) -> str:
            self.step = component_name.removeprefix("comp-")
            if full_command[: len(START)] == START:
                _port, _version, digest, _input = full_command[len(START) :]
                image, full_command = "", [digest]
                env_vars = {name: value for name, value in env_vars.items() if name != STEP_IMAGE}
            return str(super().compute_key(component_name, image, full_command, env_vars=env_vars, **inputs))

        def get(self, key: str) -> dict[str, Any] | None:
            record = Path(self._entry_path(key))
            outputs: dict[str, Any] | None = super().get(key) if records.is_intact(record) else None
            if outputs is None or not records.is_reusable(record, outputs):
                return None
            on_cached(self.step, [output for output in outputs.values() if isinstance(output, Artifact)])
            return outputs

        def put(self, key: str, outputs: dict[str, Any]) -> None:
            super().put(key, outputs)
            records.write(Path(self._entry_path(key)), outputs)

    with _replaced(cache, "LocalCache", Cache):
        yield


@contextmanager
def _placeholders(run_id: str) -> Iterator[None]:
    """Replace what KFP puts in for placeholders: the run's id, which would be a random number, and a step's inputs.

    In the latter KFP would look for further placeholders, and so find them in the names of folders. It takes the path
    of its volume, which we do not use, for one, too.
    """
    original = placeholder_utils.resolve_individual_placeholder
    _assert_has(placeholder_utils.replace_placeholders, "resolved_el = resolve_individual_placeholder(")
    _assert_has(original, "dsl.PIPELINE_JOB_ID_PLACEHOLDER:\n            pipeline_job_id", f"r'{INPUTS}':")

    def resolve(element: str, executor_input_dict: dict[str, Any], **settings: Any) -> str:
        if element == INPUTS:
            return json.dumps(executor_input_dict)
        if "{{$" not in element:
            return element
        return str(original(element, executor_input_dict, **{**settings, "pipeline_job_id": run_id}))

    with _replaced(placeholder_utils, "resolve_individual_placeholder", resolve):
        yield


@contextmanager
def _loops_in_turn() -> Iterator[None]:
    """Replace the threads for the passes of a loop, which would share the cores and which Ctrl-C does not end."""
    _assert_has(loops.ParallelExecutor.execute_parallel_tasks, "concurrent.futures.ThreadPoolExecutor(")
    in_turn = SimpleNamespace(ThreadPoolExecutor=_InTurn, as_completed=futures.as_completed)
    with _replaced(loops, "concurrent", SimpleNamespace(futures=in_turn)):
        yield


@contextmanager
def _order() -> Iterator[None]:
    """Replace the order of steps of which none waits for the other, which would differ from run to run."""
    _assert_has(loops.run_enhanced_dag, "graph_utils.topological_sort_tasks(body_tasks)")
    with _replaced(loops, "graph_utils", SimpleNamespace(topological_sort_tasks=_sorted_tasks)):
        yield


class _InTurn(futures.Executor):
    """Runs each task when it is submitted, in the thread that submits it."""

    def __init__(self, max_workers: int) -> None:
        """Accept and ignore the number of workers."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "futures.Future[Any]":
        future: futures.Future[Any] = futures.Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextmanager
def quick_tasks() -> Iterator[None]:
    """Within the block, a property of a task is set without reading the sources of all callers.

    KFP asks the stack for the name of the setter, for the text of an error. This takes three quarters of the time in
    which pipeline.py makes its graphs.
    """
    original = PipelineTask._ensure_container_spec_exists
    _assert_has(original, "inspect.stack()", "if self.container_spec is None:")

    def check(task: PipelineTask) -> None:
        if task.container_spec is None:
            original(task)

    with _replaced(PipelineTask, "_ensure_container_spec_exists", check):
        yield


def run_order(tasks: Mapping[str, Any]) -> list[str]:
    """Return the names of the tasks of a graph in the order in which KFP's local runner runs them."""
    return list(reversed(_sorted_tasks(tasks)))


def _sorted_tasks(tasks: Mapping[str, Any]) -> list[str]:
    """Return the names of the tasks of a graph, the last one first; where none waits for the other, by name."""
    return list(graph_utils.topological_sort_tasks(dict(sorted(tasks.items()))))


class Client(kfp.Client):  # type: ignore[misc]
    """KFP's client without its requests during construction and without its file ~/.config/kfp/context.json."""

    def __init__(self, **settings: Any) -> None:
        _assert_has(
            kfp.Client.__init__, "self._load_context_setting_or_default()", "self._context_setting['namespace']"
        )
        _assert_has(kfp.Client.get_user_namespace, "self._context_setting['namespace']")
        super().__init__(**settings)

    def _load_context_setting_or_default(self) -> None:
        # An empty name would make the constructor ask the server, with retries that hide the reason.
        self._context_setting = {"namespace": "unknown"}

    def use_namespace(self, namespace: str) -> None:
        """Use `namespace` in every call that gives none."""
        self._context_setting["namespace"] = namespace

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
        """Return what the server reports about itself, from one request: KFP's own method retries for a minute."""
        return self.healthzs.healthz_service_get_healthz()


@contextmanager
def _replaced(owner: Any, name: str, replacement: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _assert_has(owner: Any, *texts: str) -> None:
    """Assert that each text is still in the source of a function or class of KFP."""
    for text in texts:
        assert text in _source(owner), _missing(owner.__qualname__, text)


_source = functools.cache(inspect.getsource)


def _missing(name: str, text: str) -> str:
    return f"{text!r} is not in {name} of KFP {kfp.__version__}, as it was in {READ_IN}"
