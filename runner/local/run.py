"""Run the compiled pipeline on this machine with KFP's local runner."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO
from unittest import mock

import kfp.components
import kfp.local
from kfp.dsl import Artifact
from kfp.dsl.base_component import BaseComponent
from kfp.local import cache, status, subprocess_task_handler
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

from components.shared.core.files import sha256_json, write_json
from runner import summary
from runner.compile import compile_pipeline, package_of
from runner.failures import Failure, read_failure
from runner.graphs import steps_of
from runner.local import s3_server
from runner.local.processes import bound, hold
from runner.revision import git_revision
from runner.terminal import Terminal

ROOT = Path(__file__).parents[2]
# OpenMP's threads wait without sleeping by default: beside other work on the cores, training takes 6 times as long.
THREADS = {"GOMP_SPINCOUNT": "2000"}
# Artifact -> the name under which a person finds it in the run's folder.
SHORTCUTS = {"sweep": "sweep.html", "report": "report.html", "model": "model", "package": "package"}
SHORTCUTS |= {"promotion": "promotion.html"}


def run(pipeline: BaseComponent, parameters: dict[str, Any], runs: Path, *, embedded: bool, caching: bool) -> int:
    """Compile the pipeline and run it, leave `runs/<run-id>/` behind, and return the exit code.

    With `embedded`, its store is the S3 server that is embedded in the runner. With `caching`, a step that an earlier
    run did with the same inputs and code is not done again.
    """
    runs.mkdir(parents=True, exist_ok=True)
    with hold(runs / ".lock", "wait for its end, or keep this run elsewhere with --runs DIR"):
        if not embedded:
            return _run(pipeline, parameters, runs, os.environ, caching)
        with s3_server.shared(runs) as wait:
            environment = s3_server.step_variables(wait(), os.environ)
            return _run(pipeline, {**parameters, "store": s3_server.STORE}, runs, environment, caching)


def _run(
    pipeline: BaseComponent, parameters: dict[str, Any], runs: Path, environment: Mapping[str, str], caching: bool
) -> int:
    package = compile_pipeline(pipeline, package_of(pipeline))
    folder = _new_run(runs)
    steps: dict[str, dict[str, Any]] = {name: {"state": "skipped", "seconds": 0.0} for name in steps_of(pipeline)}
    record = Record(folder, Terminal(sys.stdout), {**environment, **_step_environment(folder, environment)}, steps)
    started = time.time()
    state = "interrupted"
    try:
        state = "done" if _execute(package, parameters, record, _cache_folder(runs) if caching else None) else "failed"
    finally:
        _tidy(folder)
        failure = record.failure
        document = summary.collect(
            pipeline.name, folder, started, state, parameters, steps, record.cached, failure.error if failure else None
        )
        write_json(folder / "summary.json", document)
        for name in SHORTCUTS.keys() & document["artifacts"].keys():
            _shortcut(folder / SHORTCUTS[name], Path(document["artifacts"][name]))
        _link(runs / "latest", Path(folder.name))
    if failure:
        return _explain(failure, record.log)
    record.terminal.show_table(document, [folder / name for name in [*SHORTCUTS.values(), "summary.json"]])
    return 0


@dataclass
class Record:
    """What happens to the steps of one run: state and seconds of each, and the end of the last one's output."""

    folder: Path
    terminal: Terminal
    environment: dict[str, str]  # of the steps
    steps: dict[str, dict[str, Any]]  # in the order of the run, each once however often it runs
    cached: dict[str, Path] = field(default_factory=dict)  # artifacts of earlier runs, by name
    printed: list[str] = field(default_factory=list)  # by the step that ran last
    failure: Failure | None = None  # the first one

    @property
    def log(self) -> Path:
        """The file that takes everything that KFP and the steps print."""
        return self.folder / "kfp.log"

    def run_step(self, command: list[str], environment: dict[str, str]) -> int:
        """Run one step as a child process, showing its progress; return its exit code."""
        name = command[command.index("--function_to_execute") + 1].replace("_", "-")
        self.printed.clear()
        step, before = self.steps[name], self.steps[name]["state"]
        step["state"] = "failed"  # until it ends well
        started = time.monotonic()
        try:
            code = self._stream(command, environment)
        finally:
            step["seconds"] = round(step["seconds"] + time.monotonic() - started, 3)
        if code:
            self.failure = self.failure or read_failure(name, self.printed)  # the exit task runs after a failure too
        elif before != "failed":  # where one of several times failed, the step has
            step["state"] = "done"
        return code

    def reuse(self, name: str, artifacts: list[Artifact]) -> None:
        """Note a step that an earlier run has done, and what it has made."""
        if self.steps[name]["state"] == "skipped":
            self.steps[name]["state"] = "cached"
        for path in [Path(artifact.uri) for artifact in artifacts]:
            if path.parents[3] == self.folder.resolve().parent:  # a pass of a loop lies deeper
                self.cached[path.name] = path

    def _stream(self, command: list[str], environment: dict[str, str]) -> int:
        child = subprocess.Popen(
            bound([_become(word) for word in command], signal.SIGKILL),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**self.environment, **environment, "STEP_IMAGE": ""},  # there is none here
            start_new_session=True,  # so that it can be ended together with its own children
        )
        with child, _ended_with_us(child):
            assert child.stdout
            for line in child.stdout:
                print(line, end="")  # KFP's log
                if line.strip():
                    self.printed.append(line.rstrip())
                self.terminal.show(line)
            return child.wait()


def _become(word: str) -> str:
    """KFP's shell script that starts a step, changed to become the step: what kills the one kills the other."""
    return word.replace("_KFP_RUNTIME=true python3 -m ", "_KFP_RUNTIME=true exec python3 -m ")


def _execute(package: Path, parameters: dict[str, Any], record: Record, cache_folder: Path | None) -> bool:
    """Run the pipeline; whether it succeeded. KFP's own output goes to the run's log."""
    with open(record.log, "w", buffering=1) as log, _kfp_local(record, cache_folder, log):
        pipeline = kfp.components.load_component_from_file(str(package))
        _drop_retries(pipeline.component_spec.implementation.graph)
        pipeline(**parameters)
    record.terminal.finish()
    return record.failure is None


def _drop_retries(spec: PipelineSpec) -> None:
    """Take away the retries of pods: on this machine a step that failed would only fail again."""
    for component in (spec.root, *spec.components.values()):
        for task in component.dag.tasks.values():
            task.ClearField("retry_policy")


@contextlib.contextmanager
def _kfp_local(record: Record, cache_folder: Path | None, log: TextIO) -> Iterator[None]:
    """KFP's local runner, set up so that `record` runs the steps and knows which are cached.

    KFP's own handler replaces the text `python3` in every parameter and path, and leaves a step running when we are
    interrupted: https://github.com/kubeflow/pipelines, sdk/python/kfp/local/subprocess_task_handler.py.
    """

    class Handler(subprocess_task_handler.SubprocessTaskHandler):  # type: ignore[misc]
        def run(self) -> status.Status:
            code = record.run_step(self.full_command, self.env_vars)
            return status.Status.FAILURE if code else status.Status.SUCCESS

    class Cache(cache.LocalCache):  # type: ignore[misc]
        def compute_key(self, component_name: str, **inputs: Any) -> str:
            self.step = component_name.removeprefix("comp-")
            return str(super().compute_key(component_name=component_name, **inputs))

        def get(self, key: str) -> dict[str, Any] | None:
            outputs: dict[str, Any] | None = super().get(key)
            if outputs is not None:
                record.reuse(self.step, [output for output in outputs.values() if isinstance(output, Artifact)])
            return outputs

    kfp.local.init(
        kfp.local.SubprocessRunner(use_venv=False),
        pipeline_root=str(record.folder.resolve()),
        raise_on_error=False,
        enable_caching=cache_folder is not None,
        cache_root=cache_folder and str(cache_folder),
    )
    with (
        mock.patch.object(subprocess_task_handler, "SubprocessTaskHandler", Handler),
        mock.patch.object(cache, "LocalCache", Cache),
        mock.patch.object(futures, "ThreadPoolExecutor", _InTurn),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(log),
    ):
        warnings.filterwarnings("ignore", message="You may be attemping", category=RuntimeWarning)
        warnings.filterwarnings("ignore", message="Task '.*settings", category=UserWarning)  # of pods
        yield


class _InTurn(futures.Executor):
    """Runs the passes of a loop one after the other, each with all cores, in the thread that Ctrl-C reaches."""

    def __init__(self, max_workers: int) -> None:
        """There is one worker, whatever is asked for."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "futures.Future[Any]":
        future: futures.Future[Any] = futures.Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextlib.contextmanager
def _ended_with_us(child: subprocess.Popen[str]) -> Iterator[None]:
    """End the child and its children when the block is left by an exception: politely first, so that it tidies up."""
    try:
        yield
    except BaseException:
        os.killpg(child.pid, signal.SIGINT)
        try:
            child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
        raise


def _step_environment(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """What a step finds in its pod: the code, this Python as `python3`, a place for temporary files, and the run."""
    temporary = folder.resolve() / "tmp"
    temporary.mkdir(exist_ok=True)
    path = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    run = {"RUN_ID": folder.name, "REVISION": git_revision()}
    return {"PYTHONPATH": str(ROOT), "PATH": path, "TMPDIR": str(temporary), **THREADS, **run}


def _cache_folder(runs: Path) -> Path:
    """Where KFP keeps what steps gave, for this Python and these packages: KFP's key knows neither."""
    environment = sha256_json([sys.version, (ROOT / "requirements.txt").read_text()])
    return runs.resolve() / ".cache" / environment[:12]


def _new_run(runs: Path) -> Path:
    """Make the folder of a new run, named after the time (UTC)."""
    name = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    folder = runs / name
    while folder.exists():
        folder = runs / f"{name}-{int(folder.name[len(name) + 1 :] or 1) + 1}"
    folder.mkdir()
    return folder


def _tidy(folder: Path) -> None:
    """Remove what a killed step may have left half-written, and its temporary files."""
    for leftover in [folder / "tmp", *folder.rglob("*.partial")]:
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)


def _shortcut(place: Path, target: Path) -> None:
    """Make a folder of the run easy to find, and a page too: a copy, since a browser goes by its file's own name."""
    if (place.parent / target).is_dir():
        _link(place, target)
    else:
        shutil.copyfile(place.parent / target, place)


def _link(link: Path, target: Path) -> None:
    fresh = link.with_name(f"{link.name}.{os.getpid()}")
    fresh.symlink_to(target)
    os.replace(fresh, link)


def _explain(failure: Failure, log: Path) -> int:
    """Print on stderr why the run failed, and return the exit code."""
    if failure.reported:
        print(f"error: {failure.step}: {failure.reported}", file=sys.stderr)
    else:
        print("\n".join(failure.lines), file=sys.stderr)
        print(f"error: {failure.step} failed; all of its output is in {log}", file=sys.stderr)
    return failure.exit_code
