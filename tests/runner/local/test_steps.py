"""The processes of the steps of a local run."""

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from components.entrypoints.run_step import START
from runner.local import steps
from runner.local.fork_server import ForkServer
from runner.local.run import _step_environment
from runner.local.steps import RunState, StepRunner
from runner.summary import StepState
from runner.terminal import Terminal
from tests.conftest import ROOT
from tests.step_processes import has_processes, step_processes

pytestmark = pytest.mark.slow  # each test starts processes, which import what steps need
linux = pytest.mark.skipif(sys.platform != "linux", reason="steps are forked only on Linux")
NO_INPUT = ["finish", "version", "digest", "{}"]


def wait_until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + 300
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path, "TMPDIR": str(tmp_path)}


@pytest.fixture
def server(variables: dict[str, str]) -> Iterator[ForkServer]:
    with ForkServer(variables) as server:
        yield server


@pytest.fixture
def full_pipe() -> Iterator[int]:
    """A pipe that takes no more, so that a step that writes into it does not end."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write, b" ")
    os.set_blocking(write, True)
    yield write
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("forks", [pytest.param(True, marks=linux), False])
def test_a_failed_step_gives_its_code_and_its_output(
    tmp_path: Path, variables: dict[str, str], server: ForkServer, forks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "FORKS", forks)
    state = RunState(tmp_path, {"finish": StepState(state="skipped", seconds=0.0)})
    runner = StepRunner(state, Terminal(io.StringIO()), variables, server)
    assert runner.run([*START, *NO_INPUT], {}) == 1
    assert state.steps["finish"].state == "failed"
    assert state.failure
    assert state.failure.lines[-1] == "KeyError: 'outputs'"


@pytest.mark.parametrize("forks", [pytest.param(True, marks=linux), False])
def test_a_step_imports_no_code_of_the_present_folder(
    tmp_path: Path, forks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "pictures"
    here.mkdir()
    for name in ("components", "pydantic", "json", "numpy"):
        (here / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})")
    monkeypatch.chdir(here)
    monkeypatch.setattr(steps, "FORKS", forks)
    environment = {**os.environ, **_step_environment(tmp_path, os.environ)}
    state = RunState(tmp_path, {"finish": StepState(state="skipped", seconds=0.0)})
    with ForkServer(environment) as server:
        assert StepRunner(state, Terminal(io.StringIO()), environment, server).run([*START, *NO_INPUT], {}) == 1
    assert state.failure and state.failure.lines[-1] == "KeyError: 'outputs'" and not (tmp_path / "ran").exists()


@linux
def test_a_watch_of_the_store_that_fails_is_noticed(
    tmp_path: Path, variables: dict[str, str], server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost() -> None:
        if threading.current_thread() is not threading.main_thread():
            raise OSError("no lock file")

    monkeypatch.setattr(steps, "WATCH_SECONDS", 0.0)
    state = RunState(tmp_path, {"finish": StepState(state="skipped", seconds=0.0)})
    with pytest.raises(OSError, match="no lock file"):
        StepRunner(state, Terminal(io.StringIO()), variables, server, lost).run([*START, *NO_INPUT], {})


@linux
def test_a_step_without_a_module_says_so(tmp_path: Path, server: ForkServer) -> None:
    with open(tmp_path / "output", "w+") as output:
        step = server.start(["no_such_step", *NO_INPUT[1:]], {}, output.fileno())
        assert step.wait() == 1
        assert "has no attribute 'no_such_step'" in (tmp_path / "output").read_text()


@linux
def test_a_killed_step_is_reported_and_the_next_starts(server: ForkServer, full_pipe: int) -> None:
    killed = server.start(NO_INPUT, {}, full_pipe)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert server.start(NO_INPUT, {}, sys.stderr.fileno()).wait() == 1


@linux
def test_no_step_outlives_the_process_that_forks(tmp_path: Path, server: ForkServer, full_pipe: int) -> None:
    step = server.start(NO_INPUT, {}, full_pipe)
    wait_until(lambda: step_processes(tmp_path, "finish"))
    assert step_processes(tmp_path, "finish") == [step.pid]
    status = Path(f"/proc/{step.pid}/status").read_text()
    os.kill(int(status.partition("PPid:")[2].split()[0]), signal.SIGKILL)
    with pytest.raises(RuntimeError, match="has ended"):
        step.wait()
    wait_until(lambda: not has_processes(tmp_path))
