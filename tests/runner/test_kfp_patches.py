"""The changes to KFP: what they replace still exists, and if not, they fail."""

from collections.abc import Callable
from typing import Any

import kfp
import pytest
from kfp.local import cache, subprocess_task_handler, task_dispatcher
from kfp.local.orchestrator.enhanced_dag_orchestrator import ParallelExecutor

from runner.kfp_patches import ARTIFACT_DEPTH, READ_IN, Client, as_one_process, local_runner

COMMAND = ["sh", "-ec", "\n_KFP_RUNTIME=true python3 -m kfp.dsl.executor_main", "def train(): ..."]


class _Other:
    """A class without anything that the changes rely on."""

    def __init__(self, **settings: Any) -> None:
        pass


def _other(*_: Any, **__: Any) -> Any:
    return None


def _start() -> None:
    with local_runner(lambda command, environment: 0, lambda step, artifacts: None):
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


def test_a_step_replaces_the_shell_that_starts_it() -> None:
    assert as_one_process(COMMAND)[2] == "\n_KFP_RUNTIME=true exec python3 -m kfp.dsl.executor_main"
    assert as_one_process(COMMAND)[3] == COMMAND[3]


def test_a_changed_start_script_is_noticed() -> None:
    with pytest.raises(AssertionError, match="_KFP_RUNTIME=true python3 -m"):
        as_one_process(["python3", "-m", "kfp.dsl.executor_main"])
