"""The deploy file, and the errors in it."""

from pathlib import Path
from typing import Any

import pytest

import pipeline
from components.shared.core.errors import UserError
from runner.parameters import parse_inputs, parse_parameters
from runner.schedules import deploy_file
from tests.runner.schedules.deploy_folder import NIGHTLY, DeployFolder

ROOT = Path(__file__).parents[3]


def test_deploy_file_of_this_repository_is_accepted() -> None:
    deployment = deploy_file.read(ROOT / "deploy.yaml")
    assert deployment.pipeline == pipeline.training.name
    nightly, sunday = (parse_parameters(pipeline.training, spec.words) for spec in deployment.schedules)
    assert sunday == {**nightly, "epochs": 10}


def test_parameters_of_any_kind_have_flat_names(folder: DeployFolder) -> None:
    schedules = {"nightly": {**NIGHTLY, "parameters": {"epochs": 5, "mixup": 0.2}}}
    folder.write(parameters={"data": "digits", "flip": True}, schedules=schedules)
    (nightly,) = deploy_file.read(folder.file).schedules
    own, options = {"data": "digits", "epochs": 5}, {"flip": True, "mixup": 0.2}
    assert parse_parameters(pipeline.training, nightly.words) == {**own, **options}
    assert parse_inputs(pipeline.training, nightly.words) == {**own, "options": options}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"schedule": {}}, "unknown key 'schedule'; give pipeline, namespace, parameters, schedules"),
        ({"schedules": []}, "schedules: [] is not accepted; give a mapping"),
        ({"namespace": 3}, "namespace: 3 is not accepted; give a text"),
        ({"pipeline": "another"}, "pipeline another is not this one; give torch2kubeflow-training"),
        ({"schedules": {"nightly": "0 2 * * *"}}, "schedules.nightly is not a mapping; give when, parameters"),
        ({"schedules": {"nightly": {}}}, "schedules.nightly: when is missing; add it"),
        ({"schedules": {"nightly": {**NIGHTLY, "cron": ""}}}, "schedules.nightly: unknown key 'cron'"),
        ({"schedules": {"nightly": {"when": "0 2 31 2 *"}}}, "schedules.nightly.when: '0 2 31 2 *': day-of-month '31'"),
        ({"schedules": {"nightly": {**NIGHTLY, "enabled": "yes"}}}, "schedules.nightly.enabled: 'yes' is not accepted"),
        ({"schedules": {"nightly": {**NIGHTLY, "max_concurrency": True}}}, "give a whole number from 1 to 10"),
        ({"schedules": {"nightly": {**NIGHTLY, "max_concurrency": 11}}}, "11 is not accepted; give a whole number"),
        (
            {"parameters": {"epoch": 3}, "schedules": {"nightly": NIGHTLY}},
            "schedules.nightly: 'epoch=3' is not a parameter",
        ),
        ({"parameters": {"epochs": 2.5}, "schedules": {"nightly": NIGHTLY}}, "epochs=2.5 has the wrong type"),
        ({"parameters": {"epochs": 0}, "schedules": {"nightly": NIGHTLY}}, "epochs=0 is not accepted; give 1 or more"),
        ({"parameters": {"epochs": None}, "schedules": {"nightly": NIGHTLY}}, "parameter epochs has no value"),
    ],
)
def test_wrong_key_is_named(folder: DeployFolder, keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as error:
        folder.apply(**keys)
    assert str(error.value).startswith(str(folder.file))
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pipeline: a\npipeline: b\n", "pipeline is given twice"),
        ("pipeline: a\nschedules: {n: {when: '@daily'}, n: {when: '@hourly'}}\n", "n is given twice"),
        ("pipeline: [", "is not valid YAML"),
        ("pipeline: 2026-13-45\n", "is not valid YAML: month must be in 1..12"),
        ("pipeline: " + "[" * 1000, "is nested too deep"),
        ("", "is not a mapping"),
        ("namespace: a", "pipeline is missing"),
    ],
    ids=["key-twice", "nested-key-twice", "no-yaml", "no-date", "deep", "empty", "no-pipeline"],
)
def test_malformed_file_is_refused(folder: DeployFolder, text: str, expected: str) -> None:
    folder.file.write_text(text)
    with pytest.raises(UserError) as error:
        deploy_file.read(folder.file)
    assert expected in str(error.value)


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (LAUGHS, "&a0 in line 1: anchors and aliases are not accepted"),
        ("pipeline: a\nparameters: *b\n", "*b in line 2: anchors and aliases are not accepted"),
        (
            "x: &b {epochs: 3}\npipeline: a\nparameters:\n  <<: *b\n",
            "&b in line 1: anchors and aliases are not accepted",
        ),
    ],
    ids=["billion-laughs", "alias", "merge"],
)
def test_anchors_and_aliases_are_refused_in_one_line(folder: DeployFolder, text: str, place: str) -> None:
    folder.file.write_text(text)
    with pytest.raises(UserError) as error:
        deploy_file.read(folder.file)
    line = str(error.value)
    assert line.startswith(f"{folder.file}: {place}") and line.endswith("; write the value where it is used")
    assert "\n" not in line


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"deploy.yaml cannot be read \(No such file or directory\)"):
        deploy_file.read(tmp_path / "deploy.yaml")
