"""Wait for the end of a run in the cluster, and show what its steps do meanwhile."""

import sys
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from kfp.dsl.base_component import BaseComponent

from components.shared.core.files import private_files
from components.shared.core.printable import say
from components.step_table import STEP_LABEL
from runner.cluster import run_state
from runner.cluster.connection import Connection
from runner.cluster.rest import ApiError
from runner.cluster.watch.failure import UNREADABLE, error_of, find_failure
from runner.cluster.watch.lag import Lag
from runner.cluster.watch.pods import Pods, container_seconds, correct_by_pods, may_be_stale
from runner.cluster.watch.verdict import find_verdict
from runner.cluster.watch.view import LIVE, View
from runner.failures import CANCELED, DONE, FAILED, INTERRUPTED, Failure
from runner.summary import SummaryDocument
from runner.terminal import Terminal, ask

POLL_SECONDS = 5.0
PATIENCE = 600.0  # seconds for which a server that does not answer is asked again and again
KEEP_IN_FILE = "give --token-file or --cookie-file, which are read again: a variable cannot be renewed meanwhile"


@dataclass
class Watch:
    """Waits for the end of a run and shows what its steps do."""

    connection: Connection
    pipeline: BaseComponent
    run_id: str
    retries: int
    terminal: Terminal
    shown: dict[str, str] = field(default_factory=dict)  # step -> the state last shown
    lag: Lag = field(default_factory=Lag)
    measured: dict[str, float] = field(default_factory=dict)  # step -> the seconds of its containers by Kubernetes

    @cached_property
    def view(self) -> View:
        """What Kubernetes tells of the run."""
        return View(self.connection, self.run_id, lambda text: self.terminal.show(f"[note] {text}"))

    @cached_property
    def pods(self) -> Pods:
        """The run's pods, as they are shown."""
        return Pods(self.view, self.terminal)

    def wait(self, runs: Path) -> int:
        """Wait, retry a failed run as often as allowed, write the summary, and return the exit code."""
        while True:
            try:
                run = self._wait_for_end()
                failure = find_failure(self.view, run, self._failed_step(run), self.pods.nodes)
                if not run_state.has_failed(run) or self.retries < 1 or failure.is_permanent:
                    return self._close(run, failure, runs)
                self._retry(run)
            except KeyboardInterrupt:
                if not self._terminate():
                    return INTERRUPTED

    def _wait_for_end(self) -> Any:
        """Return the run when it has ended. Raises ApiError if KFP does not answer for ten minutes."""
        answered, refused = time.monotonic(), False
        while True:
            try:
                run = self.connection.client.get_run(self.run_id)
                answered, refused = time.monotonic(), False
            except ApiError as error:
                if not self.connection.may_pass(error) or time.monotonic() - answered > PATIENCE:
                    self.terminal.finish()
                    say(f"the run continues; see `python pipeline.py status {self.run_id}`", file=sys.stderr)
                    if error.status == 401 and not self.connection.renews:
                        raise ApiError(401, error.message, KEEP_IN_FILE) from None
                    raise
                if error.status == 401 and not refused:
                    self.terminal.finish()
                    say(f"{error}; waiting for them while the run continues", file=sys.stderr)
                refused = error.status == 401
            else:
                if self._look(run) and run.state in run_state.FINAL:
                    return run
            time.sleep(POLL_SECONDS)

    def _look(self, run: Any) -> bool:
        """Show what is new of a run; return False, and show no steps, while KFP's tasks may only be late."""
        pods = [] if run.state in run_state.FINAL else self.view.pods(LIVE)
        is_wrong = may_be_stale(run, self.pipeline, pods)
        may_end = self.lag.may_end(is_wrong)
        is_late = is_wrong and not self.view.correct(run, quietly=may_end) and may_end
        if not is_late:
            self._show(run, pods)
        self.pods.show(pods, {} if is_late else run_state.steps(run, self.pipeline))
        return not is_late

    def _retry(self, run: Any) -> None:
        self.retries -= 1
        self.terminal.show(f"[{self._failed_step(run) or 'run'}] failed; retried, {self.retries} retries left")
        self.connection.client.runs.run_service_retry_run(run_id=self.run_id)
        self.shown.clear()
        time.sleep(POLL_SECONDS)

    def _show(self, run: Any, pods: list[Any]) -> None:
        """Show the steps whose state has changed."""
        steps = run_state.steps(run, self.pipeline)
        correct_by_pods(steps, pods)
        for name, step in steps.items():
            if step.state in ("skipped", "waiting", self.shown.get(name)):
                continue
            self.shown[name] = step.state
            if step.state in ("done", "failed") and (own := container_seconds(self.view.pods(f"{STEP_LABEL}={name}"))):
                self.measured[name] = step.seconds = own
            took = f" in {step.seconds:.0f} s" if step.state in ("done", "failed") else ""
            self.terminal.show(f"[{name}] {step.state}{took}")

    def _terminate(self) -> bool:
        """Ask after Ctrl-C whether to terminate the run, and do so; return whether to wait for its end."""
        self.terminal.finish()
        try:
            is_agreed = ask("\nterminate the run in the cluster?")
        except KeyboardInterrupt:
            is_agreed = False
        if not is_agreed:
            say("", f"the run continues; see `python pipeline.py status {self.run_id}`")
            return False
        self.retries = 0
        try:
            self.connection.client.terminate_run(self.run_id)
        except ApiError as error:
            if error.status != 400:  # else it has ended in the meantime
                raise
        say("terminating; waiting for the end")
        return True

    def _close(self, run: Any, failure: Failure, runs: Path) -> int:
        """Write the summary, print how the run ended, and return the exit code."""
        path = runs / self.run_id / "summary.json"
        self.view.correct_record(run)
        verdict = find_verdict(self.view, run, self.pipeline)
        document = run_state.summarise(run, self.pipeline, error_of(run, failure), verdict)
        for name, seconds in self.measured.items():
            document.steps[name].seconds = seconds
        with private_files():
            document.write(path)
        self.terminal.finish()
        if run.state == "SUCCEEDED":
            self.terminal.show_table(document, [path], verdict.from_run)
            return DONE
        return _explain(document, failure, self.connection.ui_link("run", self.run_id))

    def _failed_step(self, run: Any) -> str | None:
        return run_state.failed_step(run, self.pipeline)


def _explain(document: SummaryDocument, failure: Failure, link: str) -> int:
    """Print on stderr why the run did not succeed, and return the exit code."""
    if document.state == "canceled":
        say("error: the run was canceled", link, file=sys.stderr)
        return CANCELED
    if failure.lines and not failure.is_known:
        say(*failure.lines, file=sys.stderr)
    say(f"error: {failure.step or 'the run'} failed: {document.error or UNREADABLE}", link, file=sys.stderr)
    return failure.exit_code if document.state == "failed" else FAILED
