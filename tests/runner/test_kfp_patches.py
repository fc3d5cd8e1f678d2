"""The changes to KFP: what they replace still exists, and if not, they fail."""

import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kfp
import pytest
from kfp import dsl
from kfp.dsl import pipeline_task
from kfp.local import cache, placeholder_utils, subprocess_task_handler, task_dispatcher
from kfp.local.orchestrator.enhanced_dag_orchestrator import ParallelExecutor
from kfp.local.status import Status

from components import steps
from components.shared.core.code_digest import code_digest, code_version
from components.step_table import STEPS, Step
from runner.kfp_patches import ARTIFACT_DEPTH, READ_IN, Client, local_runner, quick_tasks, run_order
from runner.local.cached_steps import CachedSteps

IMAGE = "python"  # KFP warns of others


class _Other:
    """A class without anything that the changes rely on."""

    def __init__(self, **settings: Any) -> None:
        pass


def _other(*_: Any, **__: Any) -> Any:
    return None


def _start() -> None:
    with local_runner("run", lambda command, environment: 0, lambda step, artifacts: None, CachedSteps(Path())):
        pass


def test_kfp_is_as_it_was_read() -> None:
    assert kfp.__version__ == READ_IN, "read the new version, then change READ_IN"
    before = subprocess_task_handler.SubprocessTaskHandler, cache.LocalCache
    _start()
    assert (subprocess_task_handler.SubprocessTaskHandler, cache.LocalCache) == before
    assert ARTIFACT_DEPTH == 3


@pytest.mark.parametrize(
    ("owner", "name", "other"),
    [
        (task_dispatcher, "run_single_task_implementation", _other),
        (subprocess_task_handler, "SubprocessTaskHandler", _Other),
        (cache, "get_local_cache", _other),
        (cache, "LocalCache", _Other),
        (placeholder_utils, "replace_placeholders", _other),
        (placeholder_utils, "resolve_individual_placeholder", _other),
        (ParallelExecutor, "execute_parallel_tasks", _other),
    ],
)
def test_a_changed_local_runner_is_noticed(
    owner: Any, name: str, other: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, other)
    with pytest.raises(AssertionError, match=f"of KFP {READ_IN}, as it was in {READ_IN}"):
        _start()


@pytest.mark.parametrize("name", ["__init__", "get_user_namespace"])
def test_a_changed_client_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kfp.Client, name, _other)
    with pytest.raises(AssertionError, match="_context_setting"):
        Client(host="http://127.0.0.1:1")


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_step_is_started_without_a_shell(step: Step) -> None:
    """So a signal to the process reaches the step, and python3 is found on the path that the runner sets."""
    container = getattr(steps, step.port).component_spec.implementation.container
    assert container.command == ["python3", "-m", "components.entrypoints.run_step"]
    assert container.args == [step.port, code_version(), code_digest(step.module), "{{$}}"]


def test_a_step_that_names_its_port_is_accepted_and_run() -> None:
    command = ["python3", "-m", "components.entrypoints.run_step", "train", "1", "2", '{"python3": "python3"}']
    runner = kfp.local.SubprocessRunner(use_venv=False)
    seen = []

    def run_step(command: list[str], environment: dict[str, str]) -> int:
        seen.append((command, environment))
        return 3

    with pytest.raises(RuntimeError, match="only supports running Lightweight Python Components"):
        subprocess_task_handler.SubprocessTaskHandler(IMAGE, command, "", runner)
    with local_runner("run", run_step, lambda step, artifacts: None, CachedSteps(Path())):
        handler = subprocess_task_handler.SubprocessTaskHandler(IMAGE, command, "", runner, {"A": "1"})
        assert handler.run() == Status.FAILURE
    assert seen == [(command, {"A": "1"})], "nothing in it is replaced"


def test_a_task_is_set_up_without_reading_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    def stack() -> None:
        raise AssertionError("the stack was read")

    monkeypatch.setattr(pipeline_task.inspect, "stack", stack)
    with quick_tasks():

        @dsl.pipeline
        def flow() -> None:
            steps.download(data="digits", version="1", recipe="", needs_labels=True).set_cpu_limit("1")


def test_a_task_without_a_container_is_refused_as_before() -> None:
    @dsl.pipeline
    def inner() -> None:
        steps.download(data="digits", version="1", recipe="", needs_labels=True)

    with quick_tasks(), pytest.raises(ValueError, match="can only be used on single-step components"):

        @dsl.pipeline
        def outer() -> None:
            inner().set_cpu_limit("1")


@pytest.fixture
def cached(tmp_path: Path) -> Iterator[tuple[cache.LocalCache, list[str], Path]]:
    """The cache of the local runner with a step that left a folder, the steps that it reported, and the folder."""
    folder, reported = tmp_path / "model", list[str]()
    (folder / "more").mkdir(parents=True)
    for name in ("model.json", "more/weights"):
        (folder / name).write_text("1")
    artifact = dsl.Model(name="model", uri=str(folder))
    records = CachedSteps(tmp_path)
    with local_runner("run", lambda command, environment: 0, lambda step, artifacts: reported.append(step), records):
        made = cache.LocalCache(str(tmp_path / "cache"))
        made.step = "train"
        made.put("key", {"model": artifact, "models": [artifact], "figure": 0.5})
        yield made, reported, folder


def test_a_step_whose_files_are_as_it_left_them_is_cached(
    cached: tuple[cache.LocalCache, list[str], Path],
) -> None:
    made, reported, folder = cached
    found = made.get("key")
    assert (found["figure"], found["model"].uri, reported) == (0.5, str(folder), ["train"])


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "more/weights").unlink(),
        lambda folder: (folder / "more/weights").write_text(""),
        lambda folder: (folder / "model.json").write_text("2"),
        lambda folder: (folder / "new").write_text("1"),
        lambda folder: shutil.rmtree(folder),
        lambda folder: [path.unlink() for path in (folder.parent / "cache").glob("*.files")],
    ],
    ids=["gone", "emptied", "written", "added", "removed", "unknown"],
)
def test_a_step_whose_files_changed_is_done_again(
    cached: tuple[cache.LocalCache, list[str], Path], change: Callable[[Path], Any]
) -> None:
    made, reported, folder = cached
    time.sleep(0.02)  # the clock of a file system may tick a hundred times a second
    change(folder)
    assert made.get("key") is None and not reported


def _name_elsewhere(record: Path) -> None:
    """Let a record name a folder that is not in that of the runs, and seal it again."""
    record.write_text(record.read_text().replace(str(record.parents[1] / "model"), "/etc"))
    etc = {"model": dsl.Model(name="model", uri="/etc"), "figure": 0.5}
    CachedSteps(record.parents[1]).write(record, etc)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda record: record.write_bytes(record.read_bytes()[:-3]), "is not as it was written"),
        (lambda record: record.write_text("[]"), "is not as it was written"),
        (lambda record: record.write_bytes(b"\xff"), "is not as it was written"),
        (lambda record: record.with_suffix(".files").write_text("{"), "is not a JSON document"),
        (lambda record: record.with_suffix(".files").write_text("{}"), "has the format None"),
        (_name_elsewhere, "names /etc, which is not in "),
    ],
    ids=["cut", "list", "no-text", "damaged", "other-format", "elsewhere"],
)
def test_a_damaged_record_of_a_step_is_none_and_said(
    cached: tuple[cache.LocalCache, list[str], Path],
    damage: Callable[[Path], Any],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made, reported, folder = cached
    damage(folder.parent / "cache" / "key.json")
    assert made.get("key") is None and not reported
    told = capsys.readouterr().err
    assert told.startswith("note: a step is done again: /") and said in told and told.count("\n") == 1


def test_tasks_that_wait_for_none_of_each_other_run_by_name() -> None:
    waits = {"c": [], "a": ["c"], "e": ["c"], "b": ["a", "e"]}
    tasks = [(name, SimpleNamespace(dependent_tasks=before)) for name, before in waits.items()]
    assert {tuple(run_order(dict(some))) for some in itertools.permutations(tasks)} == {("c", "a", "e", "b")}
