"""The steps of a local run: each a process whose output is shown, and the state of each for the summary."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from kfp.dsl import Artifact

from components.entrypoints.run_step import START
from runner.failures import Failure, read_failure
from runner.kfp_patches import ARTIFACT_DEPTH
from runner.local.fork_server import ForkServer
from runner.local.processes import Child, kill_on_error
from runner.summary import StepState
from runner.terminal import Terminal

FORKS = sys.platform == "linux"


@dataclass
class RunState:
    """What happened to the steps of a run: their states and seconds, the cached artifacts and the first failure."""

    folder: Path
    steps: dict[str, StepState]  # by name, in the order of the run; the passes of a loop are one step
    cached: dict[str, Path] = field(default_factory=dict)  # artifacts of earlier runs, by name
    failure: Failure | None = None

    def end_step(self, name: str, code: int | None, seconds: float, printed: list[str]) -> None:
        """Record a step, or a pass of it, that ended with an exit code, or was interrupted (None).

        A step fails if one of its passes does.
        """
        step = self.steps[name]
        step.seconds = round(step.seconds + seconds, 3)
        if code:
            self.failure = self.failure or read_failure(name, printed)  # the exit task runs after a failure too
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
    """Runs steps as processes: on Linux forked from one that has imported what they need, else each from its start."""

    state: RunState
    terminal: Terminal
    environment: dict[str, str]
    server: ForkServer

    def run(self, command: list[str], environment: dict[str, str]) -> int:
        """Run one step to its end, and return its exit code."""
        name = command[len(START)].replace("_", "-")
        printed: list[str] = []
        started, code = time.monotonic(), None
        try:
            code = self._stream(command, environment, printed)
        finally:
            self.state.end_step(name, code, time.monotonic() - started, printed)
        return code

    def _stream(self, command: list[str], environment: dict[str, str], printed: list[str]) -> int:
        """Start a step, show its lines as they come and collect them in `printed`; return its exit code."""
        reader, writer = os.pipe()
        with open(reader, errors="replace") as lines:
            try:
                child = self._start(command, {**environment, "STEP_IMAGE": ""}, writer)  # no image runs here
            finally:
                os.close(writer)
            with kill_on_error(child):
                for line in lines:
                    print(line, end="")  # to KFP's log
                    if line.strip():
                        printed.append(line.rstrip())
                    self.terminal.show(line)
                return child.wait()

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
