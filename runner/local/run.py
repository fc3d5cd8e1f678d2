"""Verb `local`: run the compiled pipeline on this machine with KFP's local runner."""

import argparse
import contextlib
import os
import re
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import kfp.components
import kfp.local
from kfp.dsl.base_component import BaseComponent
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

from components.shared.core.errors import UserError, disk_named
from components.shared.core.files import private_files, sha256_json
from components.shared.core.printable import say
from components.shared.prediction.training_run import NEXT_RUN
from runner.compile import compile_pipeline
from runner.failures import DONE, Failure
from runner.git import git_revision
from runner.graphs import steps_of
from runner.kfp_patches import local_runner
from runner.local import s3_server
from runner.local.cached_steps import CachedSteps
from runner.local.fork_server import ForkServer
from runner.local.next_run import NEXT_RUN_FILE, run_next
from runner.local.processes import lock_file
from runner.local.steps import RunState, StepRunner
from runner.parameters import as_inputs, complete, parse_parameters
from runner.summary import StepState, SummaryDocument, collect
from runner.terminal import Terminal
from runner.verbs.options import make_runs_folder

ROOT = Path(__file__).parents[2]
RUN, FRESH_LINK = re.compile(r"\d{8}-\d{6}(-\d+)?"), re.compile(r"latest\.\d+")  # names in the folder of the runs
# OpenMP's threads wait without sleeping by default: if others use the cores too, training takes 6 times as long.
THREADS = {"GOMP_SPINCOUNT": "2000"}
# Artifact -> the name under which a person finds it in the run's folder.
SHORTCUTS = {"sweep": "sweep.html", "report": "report.html", "model": "model", "package": "package"}
SHORTCUTS |= {"promotion": "promotion.html", "predictions": "predictions", "uncertain": "uncertain.html"}


def handle(arguments: argparse.Namespace, pipeline: BaseComponent) -> int:
    """Run the pipeline with the parameters that are given, and return the exit code."""
    given = parse_parameters(pipeline, arguments.parameters)
    embedded = given.get("store", s3_server.STORE) == s3_server.STORE
    code = run(pipeline, given, arguments.runs, embedded=embedded, caching=not arguments.no_cache)
    if arguments.json:
        arguments.document = SummaryDocument.read(arguments.runs / "latest" / "summary.json")
    return code or run_next(arguments.runs)


@private_files()
def run(pipeline: BaseComponent, given: dict[str, Any], runs: Path, *, embedded: bool, caching: bool) -> int:
    """Compile the pipeline, run it with its results in `runs/<run-id>/`, and return the exit code.

    `given` are the parameters that somebody has set. With `embedded`, the store is the S3 server that is embedded in
    the runner. With `caching`, a step that an earlier run did with the same inputs and code is not done again.
    """
    make_runs_folder(runs)
    in_use = "wait for its end, or choose another folder with --runs DIR"
    with disk_named(runs), lock_file(runs / ".lock", in_use):
        _tidy_killed(runs)
        if not embedded:
            return _run(pipeline, given, runs, os.environ, caching, lambda: None)
        with s3_server.shared(runs) as wait:
            environment = s3_server.step_variables(wait(), os.environ)
            given = {**given, "store": s3_server.STORE}
            return _run(pipeline, given, runs, environment, caching, lambda: s3_server.lost_server(runs))


def _run(
    pipeline: BaseComponent,
    given: dict[str, Any],
    runs: Path,
    environment: Mapping[str, str],
    caching: bool,
    lost: Callable[[], UserError | None],
) -> int:
    folder = _new_run(runs)
    package = compile_pipeline(pipeline, folder / "pipeline.yaml")  # the code may be where nothing can be written
    state = RunState(folder, {name: StepState(state="skipped", seconds=0.0) for name in steps_of(pipeline)})
    terminal = Terminal(sys.stdout)
    variables = {**environment, **_step_environment(folder, environment)}
    started, outcome = time.time(), "interrupted"
    try:
        with ForkServer(variables) as server:
            steps = StepRunner(state, terminal, variables, server, lost)
            _execute(package, as_inputs(pipeline, given), steps, _cache_folder(runs) if caching else None)
        outcome = "failed" if state.failure else "done"
    finally:
        _tidy(folder)
        document = collect(
            pipeline.name,
            folder,
            started,
            outcome,
            complete(pipeline, given),
            state.steps,
            state.cached,
            state.failure.error if state.failure else None,
        )
        _publish(folder, document)
    if state.failure:
        return _explain(state.failure, folder / "kfp.log")
    terminal.show_table(document, [folder / name for name in [*SHORTCUTS.values(), "summary.json"]])
    return DONE


def _execute(package: Path, inputs: dict[str, Any], steps: StepRunner, cache_folder: Path | None) -> None:
    """Run the pipeline; all that KFP and the steps print goes to `kfp.log`."""
    folder = steps.state.folder
    workspace = folder.resolve() / "tmp" / "workspace"
    workspace.mkdir()
    kfp.local.init(
        kfp.local.SubprocessRunner(use_venv=False),
        pipeline_root=str(folder.resolve()),
        workspace_root=str(workspace),  # else it is in /tmp, where nobody tidies up after a run that was killed
        raise_on_error=False,
        enable_caching=cache_folder is not None,
        cache_root=cache_folder and str(cache_folder),
    )
    with (
        open(folder / "kfp.log", "w", buffering=1) as log,
        contextlib.redirect_stdout(log),
        _expected_warnings_ignored(),
        local_runner(folder.name, steps.run, steps.state.reuse_step, CachedSteps(folder.parent)),
    ):
        pipeline = kfp.components.load_component_from_file(str(package))
        _drop_retries(pipeline.component_spec.implementation.graph)
        pipeline(**inputs)
    steps.terminal.finish()


@contextlib.contextmanager
def _expected_warnings_ignored() -> Iterator[None]:
    """Ignore what KFP's local runner warns of: our images, which it does not use, and settings of pods."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You may be attemping", category=RuntimeWarning)
        warnings.filterwarnings("ignore", message="Task '.*settings", category=UserWarning)
        yield


def _drop_retries(spec: PipelineSpec) -> None:
    """Remove the retries of pods: on this machine a step that failed would only fail again."""
    for component in (spec.root, *spec.components.values()):
        for task in component.dag.tasks.values():
            task.ClearField("retry_policy")


def _step_environment(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a step finds in its pod: the code, this Python as `python3`, temporary space, and the run's id."""
    temporary = folder.resolve() / "tmp"
    temporary.mkdir(exist_ok=True)
    path = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    run = {"RUN_ID": folder.name, "REVISION": git_revision(), NEXT_RUN: str(folder.resolve() / NEXT_RUN_FILE)}
    own = {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}  # no code from the folder in which somebody stands
    return {**own, "PATH": path, "TMPDIR": str(temporary), **THREADS, **run}


def _cache_folder(runs: Path) -> Path:
    """Return where KFP caches steps for this Python and these packages, neither of which is in KFP's key."""
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
    """Remove the temporary files, and what a killed step left half-written."""
    for leftover in [folder / "tmp", *folder.rglob("*.partial")]:
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)


def _tidy_killed(runs: Path) -> None:
    """Remove what runs that were killed left half-written; what they had finished stays, for the cache."""
    for path in runs.iterdir():
        if RUN.fullmatch(path.name) and path.is_dir() and not (path / "summary.json").exists():
            _tidy(path)
        elif FRESH_LINK.fullmatch(path.name) and path.is_symlink():
            path.unlink()


def _publish(folder: Path, document: SummaryDocument) -> None:
    """Write the summary and the shortcuts to the artifacts, and let `latest` point to the run."""
    document.write(folder / "summary.json")
    for name in SHORTCUTS.keys() & document.artifacts.keys():
        _add_shortcut(folder / SHORTCUTS[name], Path(document.artifacts[name]))
    _link(folder.parent / "latest", Path(folder.name))


def _add_shortcut(path: Path, target: Path) -> None:
    """Link to a folder, but copy a page: a browser goes by the name of the file itself."""
    if (path.parent / target).is_dir():
        _link(path, target)
    else:
        shutil.copyfile(path.parent / target, path)


def _link(link: Path, target: Path) -> None:
    fresh = link.with_name(f"{link.name}.{os.getpid()}")
    fresh.symlink_to(target)
    os.replace(fresh, link)


def _explain(failure: Failure, log: Path) -> int:
    """Print on stderr why the run failed, and return the exit code."""
    if failure.reported:
        say(f"error: {failure.step}: {failure.reported}", file=sys.stderr)
    else:
        say(*failure.lines, file=sys.stderr)
        say(f"error: {failure.step} failed; all of its output is in {log}", file=sys.stderr)
    return failure.exit_code
