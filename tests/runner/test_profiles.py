"""A KFP with many users: every verb asks for the namespace of a Profile, and stays in it."""

import argparse
from pathlib import Path

import pytest

import pipeline
from runner.cli import main
from runner.verbs.parser import VERBS as EVERY_VERB
from tests.servers.kfp_server import KfpServer, Stage

TEAM = "team-a"
DEPLOY = "pipeline: torch2kubeflow-training\nschedules:\n  nightly: {when: '0 2 * * *'}\n"
VERBS = [
    ["upload"],
    ["run"],
    ["status"],
    ["status", "latest"],
    ["logs", "latest"],
    ["stop", "latest"],
    ["rerun", "latest"],
    ["retry", "latest"],
    ["runs", "open", "latest", "--no-browser"],
    ["ui", "--no-browser"],
    ["schedule", "add", "often", "every 6h"],
    ["schedule", "list"],
    ["schedule", "audit"],
    ["schedule", "pause", "often"],
    ["schedule", "resume", "often"],
    ["schedule", "remove", "often"],
    ["apply", "-f", "deploy.yaml"],
    ["archive", "--older-than", "0"],
    ["delete", "--older-than", "0"],
    ["delete", "--versions", "--older-than", "0"],
]


def test_every_verb_that_reaches_kfp_is_among_these() -> None:
    """What doctor says of a Profile is tested with its checks."""
    reaching = set()
    for verb in EVERY_VERB:
        parser = argparse.ArgumentParser(add_help=False)
        verb.declare(parser)
        actions = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
        parsers = [parser, *(action for one in actions for action in one.choices.values())]
        if any("--token-file" in one.option_strings for parser in parsers for one in parser._actions):
            reaching.add(verb.name)
    assert {words[0] for words in VERBS} == reaching - {"doctor"}


@pytest.fixture
def many_users(kfp_api: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KfpServer:
    """A KFP with many users, of whom this one may use `team-a`; its refusals are recorded ones."""
    kfp_api.multi_user, kfp_api.namespaces = True, {TEAM}
    kfp_api.plan = [Stage("FAILED", {"train": "FAILED"})]
    (tmp_path / "deploy.yaml").write_text(DEPLOY)
    monkeypatch.chdir(tmp_path)
    return kfp_api


def _code(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(lambda: pipeline.GRAPHS, words)
    return int(stop.value.code or 0)


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_without_a_profile_one_line_says_what_is_missing(
    many_users: KfpServer, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _code(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: this KFP has many users") and "--namespace" in line
    assert [str(request) for request in many_users.requests] == ["GET /healthz"]


@pytest.mark.slow
def test_in_a_profile_every_verb_stays_in_it(many_users: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    for words in VERBS:
        code = _code(*words, "--namespace", TEAM)
        shown = capsys.readouterr()
        # No log can be read, the run had failed before it could be stopped, and the test's clock is months behind.
        assert code == (2 if words[0] == "logs" else 1 if "audit" in words else 0), (words, shown.err)
        links = [word for word in shown.out.split() if "/#/" in word or "?ns=" in word]
        assert all(f"?ns={TEAM}#" in link for link in links), (words, shown.out)
    lists = [request for request in many_users.requests if request.method == "GET" and "namespace" in request.query]
    assert lists and {request.query["namespace"] for request in lists} == {TEAM}
    assert {one.namespace for one in (*many_users.experiments.values(), *many_users.pipelines.values())} == {TEAM}


def test_another_users_profile_is_refused_in_one_line(
    many_users: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _code("status", "--namespace", "team-b") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "team-b" in line and "403" in line
