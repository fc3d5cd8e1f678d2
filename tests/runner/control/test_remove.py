"""Verbs `archive` and `delete`."""

import io
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from components.shared.core.errors import UserError
from runner.cluster import run, upload
from runner.control import remove
from runner.schedules import schedule
from runner.verbs.parser import parse
from tests.runner.verbs import changed_pipeline, pipeline, run_verb
from tests.servers.kfp_server import KfpServer, Stage


def _do(*words: str) -> remove.RemoveDocument:
    arguments = parse([*words, "--json"])
    assert remove.handle(arguments, pipeline) == 0
    document = remove.RemoveDocument.parse(arguments.document.to_json(), "stdout")
    return document


@pytest.fixture
def runs(kfp_api: KfpServer) -> list[Any]:
    """Four runs of the pipeline, one of them active, and one of another; the first is new, the others are old."""
    for _ in range(3):
        run_verb(run)
    kfp_api.plan = [Stage("RUNNING")]
    run_verb(run)
    new, *old = found = list(kfp_api.runs.values())
    for one in old:
        one.created_at = datetime.now(UTC) - timedelta(days=31)
    new.created_at = datetime.now(UTC) - timedelta(days=29)
    kfp_api.add_run(display_name="another pipeline's", created_at=datetime.now(UTC) - timedelta(days=99))
    return found


def test_archived_runs_are_brought_back(kfp_api: KfpServer, runs: list[Any]) -> None:
    ids = [one.run_id for one in runs]
    assert _do("archive", ids[0], ids[1]).ids == ids[:2]
    assert [one.storage_state for one in runs] == ["ARCHIVED", "ARCHIVED", "AVAILABLE", "AVAILABLE"]
    assert _do("archive", "--older-than", "30").ids == [ids[2]], "neither the active one nor an archived one"
    document = _do("archive", "--undo", ids[0])
    assert (document.action, document.ids, runs[0].storage_state) == ("unarchive", ids[:1], "AVAILABLE")


def test_old_runs_are_deleted_but_active_ones(
    kfp_api: KfpServer, runs: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    document = _do("delete", "--older-than", "30")
    assert (document.ids, document.kind) == ([runs[1].run_id, runs[2].run_id], "run")
    assert document.kept == [f"run {runs[3].display_name} stays: it is running; `python pipeline.py stop` ends it"]
    assert [one.display_name for one in kfp_api.runs.values()] == [
        runs[0].display_name,
        runs[3].display_name,
        "another pipeline's",
    ]
    assert "what stays: their artifacts" in capsys.readouterr().out
    assert _do("delete", "--older-than", "30").ids == []


def test_an_active_run_that_is_named_is_refused_before_anything(kfp_api: KfpServer, runs: list[Any]) -> None:
    with pytest.raises(UserError, match=r"it is running; .* ends it; leave it out; nothing was done"):
        _do("delete", runs[0].run_id, runs[3].run_id)
    with pytest.raises(UserError, match="no run has the id 7"):
        _do("delete", runs[0].run_id, "7")
    assert len(kfp_api.runs) == 5


@pytest.mark.parametrize("words", [["delete"], ["archive", "7", "--older-than", "3"], ["delete", "--versions"]])
def test_names_or_an_age_must_be_given(kfp_api: KfpServer, words: list[str]) -> None:
    with pytest.raises(UserError, match=r"needs to know which (run|version)s; name them, or give --older-than DAYS"):
        _do(*words)


def test_old_versions_are_deleted_but_those_in_use(kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    run_verb(upload)
    run_verb(schedule, "add", "nightly", "@daily")
    run_verb(upload, pipeline=changed_pipeline)
    pinned, spare = kfp_api.versions.values()
    kfp_api.versions["new"] = type(pinned)(**{**pinned.to_dict(), "pipeline_version_id": "new", "display_name": "new"})
    kfp_api.versions["new"].created_at = spare.created_at + timedelta(seconds=9)
    document = _do("delete", "--versions", "--older-than", "1")
    assert (document.kind, document.ids) == ("version", [spare.pipeline_version_id])
    of = "of torch2kubeflow-training"
    assert document.kept == [
        f"version new {of} stays: it is the newest",
        f"version {pinned.display_name} {of} stays: recurring run nightly runs it",
    ]
    with pytest.raises(UserError, match="recurring run nightly runs it; leave it out; nothing was done"):
        _do("delete", "--versions", pinned.display_name)
    with pytest.raises(UserError, match="no version is called old; "):
        _do("delete", "--versions", "old")
    assert len(kfp_api.versions) == 2


@pytest.mark.parametrize(("answer", "words", "left"), [("n\n", [], 5), ("y\n", [], 3), ("", ["--yes"], 3)])
def test_on_a_terminal_it_asks_first(
    kfp_api: KfpServer,
    runs: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    words: list[str],
    left: int,
) -> None:
    keyboard = io.StringIO(answer)
    monkeypatch.setattr(keyboard, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", keyboard)
    _do("delete", "--older-than", "30", *words)
    assert len(kfp_api.runs) == left
    asked = f"delete 2 runs ({runs[1].display_name}, {runs[2].display_name})? [y/N] "
    assert capsys.readouterr().err == ("" if words else asked)
