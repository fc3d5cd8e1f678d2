"""The steps of a local run: each a child process whose output is shown, and the state of each for the summary."""

import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from kfp.dsl import Artifact

from components.entrypoints.run_step import START
from runner.failures import Failure, read_failure
from runner.kfp_patches import ARTIFACT_DEPTH
from runner.local.processes import die_with_parent, kill_on_error
from runner.summary import StepState
from runner.terminal import Terminal


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
    """Runs steps as child processes of this one."""

    state: RunState
    terminal: Terminal
    environment: dict[str, str]

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
        child = subprocess.Popen(
            die_with_parent(command, signal.SIGKILL),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**self.environment, **environment, "STEP_IMAGE": ""},  # no image runs here
            start_new_session=True,  # so that it can be ended together with its own children
        )
        with child, kill_on_error(child):
            assert child.stdout
            for line in child.stdout:
                print(line, end="")  # to KFP's log
                if line.strip():
                    printed.append(line.rstrip())
                self.terminal.show(line)
            return child.wait()
