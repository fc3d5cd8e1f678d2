"""The steps of a local run: each a process whose output is shown, and the state of each for the summary."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from kfp.dsl import Artifact

from components.entrypoints.run_step import START
from components.shared.core.errors import UserError
from runner.failures import FAILED, Failure, read_failure
from runner.kfp_patches import ARTIFACT_DEPTH
from runner.local.fork_server import ForkServer
from runner.local.processes import Child, kill_on_error
from runner.summary import StepState
from runner.terminal import Terminal

WATCH_SECONDS = 0.2
FORKS = sys.platform == "linux"


@dataclass
class RunState:
    """What happened to the steps of a run: their states and seconds, the cached artifacts and the first failure."""

    folder: Path
    steps: dict[str, StepState]  # by name, in the order of the run; the passes of a loop are one step
    cached: dict[str, Path] = field(default_factory=dict)  # artifacts of earlier runs, by name
    failure: Failure | None = None

    def end_step(
        self, name: str, code: int | None, seconds: float, printed: list[str], lost: UserError | None = None
    ) -> None:
        """Record a step, or a pass of it, that ended with an exit code, or was interrupted (None).

        A step fails if one of its passes does. `lost` is why none can go on, if that is so.
        """
        step = self.steps[name]
        step.seconds = round(step.seconds + seconds, 3)
        if code:
            failure = Failure(name, reported=lost) if lost else read_failure(name, printed)
            self.failure = self.failure or failure  # the exit task runs after a failure too
        step.state = "done" if code == 0 and step.state != "failed" else "failed"

    def reuse_step(self, name: str, artifacts: list[Artifact]) -> None:
        """Record a step that an earlier run did, and its artifacts."""
        if self.steps[name].state == "skipped":
            self.steps[name].state = "cached"
        for path in [Path(artifact.uri) for artifact in artifacts]:
            if path.parents[ARTIFACT_DEPTH] == self.folder.resolve().parent:  # else it is of a pass of a loop
                self.cached[path.name] = path


@dataclass(frozen=True)
class StepRunner:
    """Runs steps as processes: on Linux forked from one that has imported what they need, else each from its start.

    A step is killed as soon as `lost` says why none can go on: without their store they would try for minutes.
    """

    state: RunState
    terminal: Terminal
    environment: dict[str, str]
    server: ForkServer
    lost: Callable[[], UserError | None] = lambda: None

    def run(self, command: list[str], environment: dict[str, str]) -> int:
        """Run one step to its end, and return its exit code."""
        name = command[len(START)].replace("_", "-")
        printed: list[str] = []
        started, code = time.monotonic(), None
        try:
            code = FAILED if self.lost() else self._stream(command, environment, printed)
        finally:
            self.state.end_step(name, code, time.monotonic() - started, printed, self.lost() if code else None)
        return code

    def _stream(self, command: list[str], environment: dict[str, str], printed: list[str]) -> int:
        """Start a step, show its lines as they come and collect them in `printed`; return its exit code."""
        reader, writer = os.pipe()
        with open(reader, errors="replace") as lines:
            try:
                child = self._start(command, {**environment, "STEP_IMAGE": ""}, writer)  # no image runs here
            finally:
                os.close(writer)
            with kill_on_error(child), self._killing_if_lost(child):
                for line in lines:
                    print(line, end="")  # to KFP's log
                    if line.strip():
                        printed.append(line.rstrip())
                    self.terminal.show(line)
                return child.wait()

    @contextmanager
    def _killing_if_lost(self, child: Child) -> Iterator[None]:
        has_ended = threading.Event()

        def watch() -> None:
            while not has_ended.wait(WATCH_SECONDS):
                if self.lost():
                    with suppress(ProcessLookupError):
                        os.killpg(child.pid, signal.SIGKILL)
                    return

        with ThreadPoolExecutor(1) as thread:
            watching = thread.submit(watch)
            try:
                yield
            finally:
                has_ended.set()
            watching.result()  # raises what the thread did

    def _start(self, command: list[str], environment: dict[str, str], output: int) -> Child:
        if FORKS and command[: len(START)] == START:
            return self.server.start(command[len(START) :], environment, output)
        return subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**self.environment, **environment},
            start_new_session=True,  # so that it can be ended together with its own children
        )
