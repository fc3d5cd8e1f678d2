"""Local runs of loops: a small pipeline whose middle step runs once for each item."""

import builtins
import json
import os
import signal
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from runner.local import run as local_run
from tests.runner.local import loop_steps

plan, trial, compare = (loop_steps.component(step) for step in (loop_steps.plan, loop_steps.trial, loop_steps.compare))


@dsl.pipeline(name="torch2kubeflow-sweep")
def small(settings: list[list[str]] = [["item", "a"]]) -> None:  # noqa: B006
    planned = plan(settings=settings)
    with dsl.ParallelFor(planned.output) as item:
        tried = trial(item=item)
    compare(models=dsl.Collected(tried.outputs["model"]))


def run(tmp_path: Path, *items: str, pipeline: BaseComponent = small) -> tuple[int, dict[str, Any]]:
    """Return exit code and summary of a run that caches."""
    given = {"settings": [{"item": item} for item in items]}
    code = local_run.run(pipeline, given, tmp_path / "runs", embedded=False, caching=True)
    return code, json.loads((tmp_path / "runs" / "latest" / "summary.json").read_text())


def states(summary: dict[str, Any]) -> list[str]:
    assert list(summary["steps"]) == ["plan", "trial", "compare"]
    return [one["state"] for one in summary["steps"].values()]


def made(tmp_path: Path, summary: dict[str, Any]) -> list[list[str]]:
    text = (tmp_path / "runs" / "latest" / summary["artifacts"]["model"]).read_text()
    return [line.split() for line in text.splitlines()]


@pytest.mark.slow
def test_the_passes_of_a_loop_run_in_turn(tmp_path: Path) -> None:
    code, summary = run(tmp_path, "a", "b", "c")
    assert (code, states(summary)) == (0, ["done", "done", "done"])
    passes = made(tmp_path, summary)
    assert [line[0] for line in passes] == ["a", "b", "c"]
    assert all(float(before[2]) <= float(after[1]) for before, after in pairwise(passes))
    assert summary["steps"]["trial"]["seconds"] >= 0.6
    assert summary["artifacts"].keys() == {"model"} and "compare" in summary["artifacts"]["model"]


@pytest.mark.slow
def test_only_new_passes_of_a_loop_run(tmp_path: Path) -> None:
    _, first = run(tmp_path, "a", "b")
    processes = [line[3] for line in made(tmp_path, first)]
    code, second = run(tmp_path, "a", "b", "c")
    assert (code, states(second)) == (0, ["done", "done", "done"])
    passes = made(tmp_path, second)
    assert [line[3] for line in passes][:2] == processes
    code, third = run(tmp_path, "a", "b", "c")
    assert (code, states(third)) == (0, ["cached", "cached", "cached"])
    assert made(tmp_path, third) == passes, "the output of compare, and of no pass of the loop"
    code, fourth = run(tmp_path, "b", "a")
    assert (code, states(fourth)) == (0, ["done", "cached", "done"])


@pytest.mark.slow
def test_a_pass_that_fails_fails_the_step_and_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, summary = run(tmp_path, "a", "bad", "c")
    assert (code, states(summary)) == (1, ["done", "failed", "skipped"])
    assert summary["error"].endswith("AssertionError: this one fails")
    assert "error: trial failed" in capsys.readouterr().err


@pytest.mark.slow
def test_kfp_leaves_print_as_it_was(tmp_path: Path) -> None:
    before = builtins.print
    run(tmp_path, "a", "b")
    assert builtins.print is before


@pytest.mark.slow
def test_ctrl_c_ends_a_loop_at_once(tmp_path: Path) -> None:
    log = tmp_path / "runs"

    def interrupt() -> None:
        while not any("asleep" in path.read_text() for path in log.glob("2*/kfp.log")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "hang", "hang-not")
    assert time.monotonic() - started < 300  # of the 600 s of the pass
    summary = json.loads((tmp_path / "runs" / "latest" / "summary.json").read_text())
    assert (summary["state"], states(summary)) == ("interrupted", ["done", "failed", "skipped"])
