"""The Katib experiment, and its trials: pytest tests/entrypoints/test_katib_trial.py

The rules are those of kubeflow/katib, pkg/webhook/v1beta1/experiment/validator; its CRD has no schema.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from string import Template
from typing import Any

import kubernetes_validate
import pytest
import yaml

from components.download import download
from components.entrypoints import katib_trial
from components.preprocess import preprocess
from components.shared.core.errors import UserError
from components.shared.parameters.preparation import PreprocessRecipe
from components.shared.parameters.training import TrainingRecipe
from components.shared.storage.client import open_store
from tests.conftest import ROOT
from tests.data.versions import READING, version_of
from tests.manifests.pod_security import breaches
from tests.parameters.texts import recipe_text
from tests.servers.s3_server import BUCKET, S3Server

EXPERIMENT = yaml.safe_load((ROOT / "manifests" / "katib" / "experiment.yaml").read_text())
SPEC, TEMPLATE = EXPERIMENT["spec"], EXPERIMENT["spec"]["trialTemplate"]
(CONTAINER,) = TEMPLATE["trialSpec"]["spec"]["template"]["spec"]["containers"]
ARGUMENTS = dict(word.partition("=")[::2] for word in CONTAINER["args"])
SEARCHED = {"learning_rate": "0.02", "weight_decay": "0.0", "optimizer": "muon"}
# The default filter of Katib's collector.
FILTER = re.compile(r"([\w|-]+)\s*=\s*((-?\d+)(\.\d+)?)")
FIELDS = {
    "spec": "objective algorithm parallelTrialCount maxTrialCount maxFailedTrialCount resumePolicy parameters "
    "metricsCollectorSpec trialTemplate earlyStopping nasConfig",
    "objective": "type goal objectiveMetricName additionalMetricNames metricStrategies",
    "parameter": "name parameterType feasibleSpace",
    "feasibleSpace": "max min list step distribution",
    "trialTemplate": "retain trialSpec configMap trialParameters primaryPodLabels primaryContainerName "
    "successCondition failureCondition",
    "trialParameter": "name description reference",
}


def _only(thing: dict[str, Any], kind: str) -> None:
    assert thing.keys() <= set(FIELDS[kind].split()), kind


def test_katib_would_admit_the_experiment() -> None:
    assert (EXPERIMENT["apiVersion"], EXPERIMENT["kind"]) == ("kubeflow.org/v1beta1", "Experiment")
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", EXPERIMENT["metadata"]["name"])
    _only(SPEC, "spec")
    _only(SPEC["objective"], "objective")
    assert SPEC["objective"]["type"] in ("maximize", "minimize") and SPEC["objective"]["objectiveMetricName"]
    assert SPEC["algorithm"]["algorithmName"] in ("random", "grid", "tpe", "multivariate-tpe", "bayesianoptimization")
    assert SPEC["resumePolicy"] in ("Never", "LongRunning", "FromVolume")
    assert SPEC["metricsCollectorSpec"] == {"collector": {"kind": "StdOut"}}
    assert 0 < SPEC["parallelTrialCount"] <= SPEC["maxTrialCount"] >= SPEC["maxFailedTrialCount"] >= 0
    for parameter in SPEC["parameters"]:
        _only(parameter, "parameter")
        space = parameter["feasibleSpace"]
        _only(space, "feasibleSpace")
        assert all(isinstance(value, str) for value in space.values() if not isinstance(value, list)), "texts in Go"
        if parameter["parameterType"] in ("double", "int"):
            assert space.keys() >= {"min", "max"} and "list" not in space
            assert space.get("distribution", "uniform") in ("uniform", "logUniform", "normal", "logNormal")
        else:
            assert parameter["parameterType"] in ("categorical", "discrete") and space.keys() == {"list"}


def test_the_template_uses_each_searched_parameter() -> None:
    _only(TEMPLATE, "trialTemplate")
    for parameter in TEMPLATE["trialParameters"]:
        _only(parameter, "trialParameter")
    references = [parameter["reference"] for parameter in TEMPLATE["trialParameters"]]
    assert sorted(references) == sorted(parameter["name"] for parameter in SPEC["parameters"])
    used = re.findall(r"\$\{trialParameters\.(\w+)\}", str(TEMPLATE["trialSpec"]))
    assert sorted(used) == sorted(parameter["name"] for parameter in TEMPLATE["trialParameters"])
    assert TEMPLATE["primaryContainerName"] == CONTAINER["name"]
    assert TEMPLATE["trialSpec"]["kind"] == "Job", "whose conditions Katib knows"


def test_the_job_is_valid_under_restricted_pod_security() -> None:
    job = {**TEMPLATE["trialSpec"], "metadata": {"name": "trial"}}
    assert kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
    assert not breaches(job["spec"]["template"]["spec"])
    assert "metadata" not in job["spec"]["template"], (
        "with our label, a NetworkPolicy would cut it off from Katib's database"
    )


def test_the_arguments_are_the_defaults_of_the_pipeline() -> None:
    defaults = TrainingRecipe().values()
    trained = set(defaults) - {"store", "checkpoint_seconds", "nodes"}
    assert ARGUMENTS.keys() == trained | {"dataset"}
    searched = {parameter["name"]: parameter["feasibleSpace"] for parameter in SPEC["parameters"]}
    for name in trained - searched.keys():
        value = defaults[name]
        assert ARGUMENTS[name] == (str(value).lower() if isinstance(value, bool) else str(value)), name
    for name, space in searched.items():
        kind = type(defaults[name])
        for bound in space.get("list") or [space["min"], space["max"]]:
            TrainingRecipe.of(**{name: kind(bound)})


def test_the_arguments_survive_the_shell_of_katib() -> None:
    for word in [*CONTAINER["command"], *CONTAINER["args"]]:
        plain = re.sub(r"\$\{trialParameters\.\w+\}", "", word)
        assert re.fullmatch(r"[\w./:=-]+", plain), word


@pytest.fixture(scope="module")
def prepared(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of the prepared digits in a store."""
    folder, store = tmp_path_factory.mktemp("digits"), f"s3://{BUCKET}/katib"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        download(
            data="digits", version=version_of("digits"), recipe=READING, needs_labels=True, raw=str(folder / "raw")
        )
        recipe = recipe_text(PreprocessRecipe, test_fraction=0.2, store=store)
        preprocess(raw=str(folder / "raw"), recipe=recipe, prepared_by="", dataset=str(folder / "data"))
    names = [entry.name for entry in open_store(store, server.environment).list("datasets")]
    (recipe,) = {name.split("/")[1] for name in names} - {"shards"}
    return f"{store}/datasets/{recipe}"


def _run(server: S3Server, cache: Path, **changed: str) -> subprocess.CompletedProcess[str]:
    """Run the container's command as Katib's shell would, with the searched parameters and `changed` filled in."""
    given = {parameter["name"]: SEARCHED[parameter["reference"]] for parameter in TEMPLATE["trialParameters"]}
    text = " ".join(f"{name}={value}" for name, value in {**ARGUMENTS, **changed}.items())
    words = Template(text.replace("${trialParameters.", "${")).substitute(given).split()
    command = [sys.executable, *CONTAINER["command"][1:], *words]
    environment = {**os.environ, **server.environment, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cache, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_the_collector_reads_the_accuracy_of_each_epoch(server: S3Server, prepared: str, tmp_path: Path) -> None:
    done = _run(server, tmp_path, dataset=prepared, epochs="2", batch_size="64", threads="1")
    assert (done.returncode, done.stderr) == (0, "")
    metric = SPEC["objective"]["objectiveMetricName"]
    lines = [line for line in done.stdout.splitlines() if metric in line]
    found = [float(value) for line in lines for name, value, *_ in FILTER.findall(line) if name == metric]
    shown = re.findall(r"val accuracy ([\d.]+)% \(", done.stdout)
    assert [f"{100 * value:.2f}" for value in found] == shown and len(found) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": "few"}, "epochs=few has the wrong type"),
        ({"bias": "yes"}, "bias=yes has the wrong type"),
        ({"learning_rate": "-1"}, "learning_rate=-1.0 is not accepted; give a number above 0"),
        ({"colour": "red"}, "unknown: ['colour']"),
        ({"dataset": "s3://bucket/digits"}, "is not a prepared dataset; give s3://bucket/prefix/datasets/<recipe>"),
        ({}, "has no dataset.json"),
    ],
)
def test_an_invalid_parameter_is_refused(
    server: S3Server, monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], message: str
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    given = {"dataset": f"s3://{BUCKET}/katib/datasets/{'0' * 64}", **SEARCHED, **changed}
    with pytest.raises(UserError) as error:
        katib_trial.run([f"{name}={value}" for name, value in {**ARGUMENTS, **given}.items()])
    assert message in str(error.value)


@pytest.mark.slow
def test_an_error_is_one_line_and_the_trial_fails() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "components.entrypoints.katib_trial"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: parameters missing: ['accumulate', ") and done.stderr.count("\n") == 1
