"""A clock that stands still, the verb `schedule`, and a deploy file that is applied."""

from collections.abc import Callable
from pathlib import Path

import pytest

from runner.schedules import audit, recurring, schedule
from tests.runner.schedules.clock import Noon
from tests.runner.schedules.deploy_folder import DeployFolder
from tests.runner.verbs import run_verb


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it be noon."""
    for module in (audit, recurring):
        monkeypatch.setattr(module, "datetime", Noon)


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Run `schedule` with some words and return the lines that it prints."""

    def run(*words: str, code: int = 0) -> list[str]:
        capsys.readouterr()
        assert run_verb(schedule, *words) == code
        return capsys.readouterr().out.splitlines()

    return run


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> DeployFolder:
    return DeployFolder(tmp_path, capsys)
