"""Why a run in the cluster failed: by what its step reported, by what Kubernetes did to it, or by its last line."""

import re
from collections.abc import Iterator
from typing import Any

from components.step_table import STEP_LABEL
from runner.cluster import run_state
from runner.cluster.logs import HINT, read_log
from runner.cluster.watch.nodes import Nodes
from runner.cluster.watch.reasons import AGAIN, Reason, signal_reason, why_killed
from runner.cluster.watch.view import View
from runner.failures import Failure, read_failure

# What others print into a step's log: KFP's launcher (glog), Argo's executor, KFP's own Python.
ADDED = re.compile(r"[IWEF]\d{4} [\d:.]+ |time=|Error: exit status |\[KFP Executor ")
DUMP = re.compile(r"\[KFP Executor .*Got executor_input:")  # a JSON document on the lines below
TRACEBACK = "Traceback (most recent call last):"
UNREADABLE = f"its log cannot be read from here; {HINT}"
KILLED = {"killed": 9, "terminated": 15, "bus error": 7, "segmentation fault": 11, "aborted": 6}
# The words of Go, in which the launcher is written, and a shell's exit codes.
SIGNALED = re.compile(rf"exit status (?P<code>129|1[3-9]\d)\b|signal: (?P<name>{'|'.join(KILLED)})")


def find_failure(view: View, run: Any, step: str | None, nodes: Nodes) -> Failure:
    """Return the failed step with its error, and the end of its output if it crashed.

    What ended `nodes` of a distributed training may have been seen while their pods were there.
    """
    if not step or not run_state.has_failed(run):
        return Failure(step)
    log = read_log(view.connection, run, step) or ""
    failure = read_failure(step, own_lines(log))
    if failure.reported:
        return failure
    reason: Reason | str | None = _killed(view, step) or _signaled(step, log)
    if not reason and not log:
        reason = next(reversed(nodes.killed.values()), None) or _deleted(view, step)
    return Failure(step, () if reason else _crash(failure.lines), killed=str(reason) if reason else None)


def error_of(run: Any, failure: Failure) -> str | None:
    """Return in one line why a run ended: what the step reported, else what KFP reports of the run or step."""
    of_task = next((t.error.message for t in run_state.tasks(run) if t.display_name == failure.step and t.error), None)
    of_run = run.error.message if run.error and not (run_state.has_failed(run) and failure.step) else None
    return failure.error if failure.is_known else of_run or of_task or failure.error


class OwnLines:
    """Tells, line after line, what a step itself printed from empty lines and from KFP's and Argo's."""

    def __init__(self) -> None:
        """Begin a log."""
        self._is_dump = False  # whether KFP's input of the step is being read

    def has(self, line: str) -> bool:
        """Return whether the next line of the log is the step's own."""
        if self._is_dump:
            self._is_dump = line.rstrip() != "}"
            return False
        self._is_dump = bool(DUMP.match(line))
        return bool(line.strip()) and not ADDED.match(line)


def own_lines(log: str) -> Iterator[str]:
    """Yield the lines that a step itself printed."""
    own = OwnLines()
    return (line.rstrip() for line in log.splitlines() if own.has(line))


def _crash(lines: tuple[str, ...]) -> tuple[str, ...]:
    """Return the last traceback; without one, the last line."""
    starts = [number for number, line in enumerate(lines) if line == TRACEBACK]
    return lines[starts[-1] :] if starts else lines[-1:]


def _killed(view: View, step: str) -> Reason | None:
    """Return what Kubernetes did to the last of the step's pods that failed."""
    failed = [pod for pod in view.pods(f"{STEP_LABEL}={step}") if pod.status.phase == "Failed"]
    return why_killed(failed[-1]) if failed else None


def _signaled(step: str, log: str) -> Reason | None:
    """Return what the launcher says of a step that a signal ended, if its pod cannot be seen."""
    for line in filter(ADDED.match, log.splitlines()):
        if found := SIGNALED.search(line):
            return signal_reason(step, int(found["code"]) - 128 if found["code"] else KILLED[found["name"]])
    return None


def _deleted(view: View, step: str) -> Reason | None:
    """Return what Argo says of a pod that is gone and has left no log."""
    tasks = view.tasks() or []
    failed = [task for task in tasks if task.display_name == step and task.state == "FAILED"]
    for task in tasks:
        if task.error and "pod deleted" in task.error.message and any(run_state.within(task, one) for one in failed):
            return Reason("its pod was deleted", AGAIN)
    return None
