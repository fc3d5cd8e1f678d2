"""The documents that verbs print with --json: one each, and of a type that docs/schemas/ describes."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import pipeline
from components.shared.core.printable import printable
from docs.generate import DOCUMENTS
from runner.answer import Answer
from runner.cli import main
from runner.cluster.watch import watch
from runner.registry.models import ModelsDocument
from runner.summary import SummaryDocument
from runner.verbs.parser import VERBS
from tests.conftest import ROOT, Runner
from tests.servers.kfp_server import KfpServer, Stage

DEPLOY = """\
pipeline: torch2kubeflow-training
schedules:
  nightly: {when: "0 2 * * *"}
"""
ELSEWHERE = {
    "local",
    "doctor",
    "models",
    "verify",
    "lineage",
    "s3",
    "deploy",
    "serve",
    "predict",
    "demo",
}  # verbs whose own tests call for the document


def _answer(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    """What a verb prints on stdout, checked against the schema of its format."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(lambda: pipeline.GRAPHS, [*words, "--json"])
    shown = capsys.readouterr()
    assert stop.value.code == code, shown.err
    document = json.loads(shown.out)
    schema = json.loads((ROOT / f"docs/schemas/{document['format'].rpartition('/')[2]}.json").read_text())
    jsonschema.validate(document, schema)
    return document


@pytest.mark.slow
def test_verbs_of_the_cluster_answer_with_documents(
    kfp_api: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watch, "POLL_SECONDS", 0)
    (tmp_path / "deploy.yaml").write_text(DEPLOY)
    kfp_api.plan = [Stage("FAILED", {"train": "FAILED"})]
    runs = ("--runs", str(tmp_path))
    called = [
        ["compile", "--output", str(tmp_path / "one.yaml")],
        ["upload"],
        ["run", "epochs=5"],
        ["status"],
        ["status", "latest"],
        ["retry", "latest"],
        ["rerun", "latest", "epochs=7", "--wait", *runs],
        ["stop", "latest"],
        ["schedule", "add", "often", "every 6h"],
        ["schedule", "list"],
        ["schedule", "pause", "often"],
        ["schedule", "resume", "often"],
        ["schedule", "remove", "often"],
        ["apply", "-f", str(tmp_path / "deploy.yaml")],
        ["schedule", "audit"],
        ["archive", "latest"],
        ["delete", "latest"],
        ["runs", "open", "latest", "--no-browser"],
        ["ui", "--no-browser"],
        ["logs", "latest"],
    ]
    codes = {("rerun", "latest"): 1, ("schedule", "audit"): 1, ("logs", "latest"): 2}
    formats = {}
    for words in called:
        document = _answer(capsys, *words, code=codes.get((words[0], words[1] if len(words) > 1 else ""), 0))
        formats[" ".join(words[:2])] = document["format"].rpartition("/")[2]
    assert formats["status"] == "runs" and formats["status latest"] == "status"
    assert formats["rerun latest"] == "summary" and formats["run epochs=5"] == "start"
    assert formats["schedule list"] == formats["schedule audit"] == "schedules"
    assert formats["ui --no-browser"] == formats["runs open"] == "ui"
    assert formats["logs latest"] == "error", "no log can be read"
    assert {words[0] for words in called} | ELSEWHERE == {verb.name for verb in VERBS}


def test_a_document_holds_texts_of_others_without_controls(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nasty = "a\x1b[2J\r\n\x9b\u202eb\x7f 猫"

    def handle(arguments: Any) -> int:
        arguments.document = ModelsDocument(store=nasty, models=[])
        return 0

    monkeypatch.setattr("runner.registry.models.handle", handle)
    with pytest.raises(SystemExit):
        main(dict, ["models", "--json"])
    shown = capsys.readouterr().out
    assert json.loads(shown)["store"] == nasty and "猫" in shown
    assert shown == "\n".join(printable(line) for line in shown.split("\n"))


def test_schedules_tell_when_they_run_next(kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    _answer(capsys, "schedule", "add", "nightly", "0 2 * * *")
    ((schedule,),) = [_answer(capsys, "schedule", "list")["schedules"]]
    assert (schedule["name"], schedule["schedule"], schedule["enabled"]) == ("nightly", "0 2 * * *", True)
    assert schedule["next"].endswith("T02:00:00Z") and schedule["last"] is None


@pytest.mark.slow
def test_a_local_run_answers_with_its_summary(run_here: Runner) -> None:
    done = run_here("data=digits", "epochs=1", "min_accuracy=1", "--json")
    assert done.returncode == 0, done.stderr
    summary = SummaryDocument.parse(done.stdout.encode(), "stdout")
    assert (summary.state, summary.steps["train"].state) == ("done", "done")
    assert "test accuracy" in done.stderr


def test_documents_are_described_and_all_different() -> None:
    answers = [document for document in DOCUMENTS if issubclass(document, Answer)]
    assert len(answers) >= 20
    assert len({document.FORMAT for document in DOCUMENTS}) == len(DOCUMENTS)
    assert all(document.__doc__ for document in answers)
