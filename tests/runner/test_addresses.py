"""The verbs refuse logins in addresses before they do anything, and print no signatures."""

import json
from pathlib import Path

import pytest
import yaml

from runner.cli import main
from runner.control import rerun
from runner.schedules import schedule
from tests.runner import verbs
from tests.runner.schedules.deploy_folder import DeployFolder
from tests.runner.verbs import run_verb
from tests.servers.kfp_server import KfpServer

KEY = "se/cr+et"
LOGIN, SIGNED = f"data=s3://AKIA:{KEY}@bucket/pets", f"https://example.org/pets.zip?sig={KEY}"


def exit_code(*words: str) -> object:
    with pytest.raises(SystemExit) as stop:
        main(lambda: {"training": verbs.pipeline}, words)
    return stop.value.code


@pytest.mark.parametrize(
    "words",
    [
        ["local", "--runs", "{runs}"],
        ["local", "--runs", "{runs}", "--json"],
        ["run"],
        ["run", "--wait", "--runs", "{runs}"],
        ["schedule", "add", "nightly", "0 2 * * *"],
        ["doctor"],
        ["apply", "-f", "{file}"],
        ["rerun", "latest"],
    ],
    ids=" ".join,
)
def test_a_login_is_refused_before_anything_is_done(
    kfp_api: KfpServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    if words[0] == "rerun":
        assert exit_code("run", "data=digits") == 0
        capsys.readouterr()
    uploaded, file = len(kfp_api.versions), tmp_path / "deploy.yaml"
    nightly = {"when": "0 2 * * *", "parameters": dict([LOGIN.split("=")])}
    file.write_text(yaml.safe_dump({"pipeline": "torch2kubeflow-training", "schedules": {"nightly": nightly}}))
    named = [word.format(runs=tmp_path / "runs", file=file) for word in words]
    assert exit_code(*named, *[LOGIN] * (words[0] != "apply")) == 2
    out, err = capsys.readouterr()
    assert "data=s3://... holds a login" in err and KEY not in out + err
    assert (len(kfp_api.versions), len(kfp_api.runs), len(kfp_api.recurring_runs)) == (uploaded, uploaded, 0)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "words",
    [[f"dta={SIGNED}"], [SIGNED], ["epochs=1", "--data", SIGNED], [f"data={SIGNED}"] * 2, [f"epochs={SIGNED}"]],
    ids=["misspelt", "without a name", "an option", "twice", "of another"],
)
def test_a_mistake_beside_a_signature_does_not_show_it(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert exit_code("local", *words) == 2
    out, err = capsys.readouterr()
    assert "example.org/pets.zip?..." in err and KEY not in out + err


def test_changes_of_a_signed_address_do_not_show_it(
    kfp_api: KfpServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("run", f"data={SIGNED}", "--wait", "--runs", str(tmp_path / "runs")) == 0
    assert run_verb(rerun, "latest", f"data={SIGNED}2", "--wait", "--runs", str(tmp_path / "runs")) == 0
    assert all(KEY in run.runtime_config.parameters["data"] for run in kfp_api.runs.values())
    summaries = [json.loads(path.read_bytes()) for path in (tmp_path / "runs").glob("*/summary.json")]
    assert [one["parameters"]["data"] for one in summaries] == ["https://example.org/pets.zip?..."] * 2
    run_verb(schedule, "add", "nightly", "0 2 * * *", f"data={SIGNED}")
    printed = "".join(capsys.readouterr())
    assert "data https://example.org/pets.zip?... -> https://example.org/pets.zip?..." in printed and KEY not in printed
    plan = {"when": "0 2 * * *", "parameters": {"data": f"{SIGNED}2"}}
    (changed,) = DeployFolder(tmp_path, capsys).items(schedules={"nightly": plan})
    assert changed.startswith("nightly: replaced") and "data https://example.org/pets.zip?... -> " in changed
    assert KEY not in changed
