"""Verb `run`: start a run of the pipeline in the cluster and, with `--wait`, wait for its end."""

import argparse
import secrets
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kfp_server_api as api
from kfp.dsl.base_component import BaseComponent

from components.shared.core.log import read_event
from runner.cluster import run_state
from runner.cluster.api import Version, find_or_create_experiment, name_filter
from runner.cluster.connection import Connection, connect
from runner.cluster.logs import HINT, read_log, step_lines
from runner.cluster.rest import ApiError
from runner.cluster.upload import resolve_version
from runner.failures import DONE, FAILED, INTERRUPTED, Failure, read_failure
from runner.parameters import parse_inputs
from runner.summary import SummaryDocument
from runner.terminal import Terminal

POLL_SECONDS = 5.0
PATIENCE = 600.0  # seconds for which a server that does not answer is asked again and again


def handle(arguments: argparse.Namespace, pipeline: BaseComponent) -> int:
    """Start a run and, if asked to, wait for its end; return the exit code, 0 only if it succeeds."""
    connection = connect(arguments)
    version, inputs = resolve_version(
        connection, pipeline, arguments.version, lambda chosen: parse_inputs(chosen, arguments.parameters)
    )
    started = _start(connection, pipeline.name, version, inputs, arguments)
    print(f"started run {started.display_name}: {started.run_id}")
    print(connection.ui_link("run", started.run_id), flush=True)
    if not arguments.wait and not arguments.retries:
        return DONE
    watch = Watch(connection, pipeline, started.run_id, arguments.retries, Terminal(sys.stdout))
    return watch.wait(arguments.runs)


@dataclass
class Watch:
    """Waits for the end of a run and shows what its steps do."""

    connection: Connection
    pipeline: BaseComponent
    run_id: str
    retries: int
    terminal: Terminal
    shown: dict[str, str] = field(default_factory=dict)  # step -> the state last shown

    def wait(self, runs: Path) -> int:
        """Wait, retry a failed run as often as allowed, write the summary, and return the exit code."""
        while True:
            try:
                run = self._wait_for_end()
                failure = self._failure(run)
                if run.state != "FAILED" or self.retries < 1 or failure.is_permanent:
                    return self._close(run, failure, runs)
                self._retry(run)
            except KeyboardInterrupt:
                if not self._terminate():
                    return INTERRUPTED

    def _wait_for_end(self) -> Any:
        """Return the run when it has ended. Raises ApiError if KFP does not answer for ten minutes."""
        answered = time.monotonic()
        while True:
            try:
                run = self.connection.client.get_run(self.run_id)
                answered = time.monotonic()
            except ApiError as error:
                if not error.is_transient or time.monotonic() - answered > PATIENCE:
                    print(f"the run continues; see `python pipeline.py status {self.run_id}`", file=sys.stderr)
                    raise
            else:
                self._show(run)
                if run.state in run_state.FINAL:
                    return run
            time.sleep(POLL_SECONDS)

    def _retry(self, run: Any) -> None:
        self.retries -= 1
        self.terminal.show(f"[{self._failed_step(run) or 'run'}] failed; retried, {self.retries} retries left")
        self.connection.client.runs.run_service_retry_run(run_id=self.run_id)
        self.shown.clear()
        time.sleep(POLL_SECONDS)

    def _show(self, run: Any) -> None:
        """Show the steps whose state has changed."""
        for name, step in run_state.steps(run, self.pipeline).items():
            if step.state in ("skipped", "waiting", self.shown.get(name)):
                continue
            self.shown[name] = step.state
            took = f" in {step.seconds:.0f} s" if step.state in ("done", "failed") else ""
            self.terminal.show(f"[{name}] {step.state}{took}")

    def _terminate(self) -> bool:
        """Ask after Ctrl-C whether to terminate the run, and do so; return whether to wait for its end."""
        self.terminal.finish()
        try:
            answer = input("\nterminate the run in the cluster? [y/N] ") if sys.stdin.isatty() else ""
        except (EOFError, KeyboardInterrupt):
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            print(f"\nthe run continues; see `python pipeline.py status {self.run_id}`")
            return False
        self.retries = 0
        try:
            self.connection.client.terminate_run(self.run_id)
        except ApiError as error:
            if error.status != 400:  # else it has ended in the meantime
                raise
        print("terminating; waiting for the end")
        return True

    def _failure(self, run: Any) -> Failure:
        """Return the failed step, and its error and last lines if its log can be read."""
        step = self._failed_step(run)
        log = (read_log(self.connection, run, step) if run.state == "FAILED" and step else None) or ""
        return read_failure(step, step_lines(log))

    def _error(self, run: Any, failure: Failure) -> str | None:
        """Return in one line why the run ended: what the step reported, else what KFP reports of the run or step."""
        of_task = next(
            (t.error.message for t in run_state.tasks(run) if t.display_name == failure.step and t.error), None
        )
        of_run = run.error.message if run.error and not (run.state == "FAILED" and failure.step) else None
        return failure.error if failure.reported else of_run or of_task or failure.error

    def _close(self, run: Any, failure: Failure, runs: Path) -> int:
        """Write the summary, print how the run ended, and return the exit code."""
        path = runs / self.run_id / "summary.json"
        document = run_state.summarise(run, self.pipeline, self._error(run, failure), self._verdict(run))
        document.write(path)
        self.terminal.finish()
        if run.state == "SUCCEEDED":
            self.terminal.show_table(document, [path])
            return DONE
        return _explain(document, failure, self.connection.ui_link("run", self.run_id))

    def _failed_step(self, run: Any) -> str | None:
        return run_state.failed_step(run, self.pipeline)

    def _verdict(self, run: Any) -> run_state.Verdict | None:
        """Return the verdict that `evaluate` reported; None if it did not run or its log cannot be read."""
        if run_state.steps(run, self.pipeline)["evaluate"].state != "done":
            return None
        lines = (read_log(self.connection, run, "evaluate") or "").splitlines()
        events = [event for line in lines if (event := read_event(line)) and event.get("event") == "verdict"]
        return run_state.Verdict(events[-1]["accuracy"], events[-1]["reasons"]) if events else None


def _start(
    connection: Connection,
    pipeline_name: str,
    version: Version,
    inputs: dict[str, Any],
    arguments: argparse.Namespace,
) -> Any:
    """Create the run under a unique name, by which a run whose creation was not confirmed is found, not made twice."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    name = f"{pipeline_name}-{stamp}-{secrets.token_hex(2)}"
    client = connection.client
    fresh = api.V2beta1Run(
        display_name=name,
        experiment_id=find_or_create_experiment(connection, arguments.experiment),
        pipeline_version_reference=api.V2beta1PipelineVersionReference(
            pipeline_id=version.pipeline_id, pipeline_version_id=version.version_id
        ),
        runtime_config=api.V2beta1RuntimeConfig(parameters=inputs, pipeline_root=arguments.pipeline_root),
    )
    try:
        return client.runs.run_service_create_run(run=fresh)
    except ApiError as error:
        if error.status != 0:
            raise
        for run in client.list_runs(namespace=connection.scope, filter=name_filter(name)).runs or []:
            return run
        raise


def _explain(document: SummaryDocument, failure: Failure, link: str) -> int:
    """Print on stderr why the run did not succeed, and return the exit code."""
    if document.state == "canceled":
        print(f"error: the run was canceled\n{link}", file=sys.stderr)
        return FAILED
    if failure.lines and not failure.reported:
        print("\n".join(failure.lines), file=sys.stderr)
    why = document.error or f"its log cannot be read from here; {HINT}"
    print(f"error: {failure.step or 'the run'} failed: {why}\n{link}", file=sys.stderr)
    return failure.exit_code
