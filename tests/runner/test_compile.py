"""The compiled pipelines as a cluster reads them, parsed with KFP's own messages."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

import pipeline
from components.shared.core.code_digest import code_digest, code_version
from components.shared.parameters.form import OPTIONS, defaults_of, inputs_of
from components.shared.parameters.table import PREDICTION, model_of
from components.step_table import MODULES, STEPS
from runner.compile import compile_pipeline, documents_of, read_package

ROOT = Path(__file__).parents[2]
TRAINING = {step.name for step in STEPS if step.trains}
IMAGES = {step.name: step.image for step in STEPS}
MAX_INPUTS = 22  # of a pipeline: KFP's form shows them all, in alphabetical order
RECIPES = {  # step and input -> the output of step resolve that it gets, if both are in the same group
    ("download", "recipe"): "reading",
    ("preprocess", "recipe"): "preparation",
    ("partition", "recipe"): "preparation",
    ("train", "recipe"): "training",
    ("train-distributed", "recipe"): "training",
    ("evaluate", "recipe"): "evaluation",
    ("export", "recipe"): "export",
    ("register", "recipe"): "registration",
    ("collect", "recipe"): "collection",
}
READ_THE_SOURCE = ("resolve", "resolve-prediction", "download", "preprocess", "partition", "prepare")
FIRST = {PREDICTION: "resolve-prediction"}  # the step by which a graph begins; that of the others is `resolve`


@pytest.fixture(scope="module", params=pipeline.GRAPHS)
def graph(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def documents(graph: str, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    path = compile_pipeline(pipeline.GRAPHS[graph], tmp_path_factory.mktemp("compiled") / "pipeline.yaml")
    return read_package(path)


@pytest.fixture(scope="module")
def spec(documents: list[dict[str, Any]]) -> Any:
    return json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())


@pytest.fixture(scope="module")
def containers(documents: list[dict[str, Any]]) -> dict[str, Any]:
    executors = documents[0]["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-"): executor["container"] for name, executor in executors.items()}


@pytest.fixture(scope="module")
def pods(documents: list[dict[str, Any]]) -> dict[str, Any]:
    executors = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {
        name.removeprefix("exec-"): json_format.MessageToDict(
            json_format.ParseDict(executor, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
        )
        for name, executor in executors.items()
    }


def _tasks(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Yield the name of each task at any depth, the task, and the component whose graph contains it."""
    for component in (document["root"], *document["components"].values()):
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            yield name, task, component


def test_a_pipeline_has_its_documents_without_a_file(graph: str, documents: list[dict[str, Any]]) -> None:
    assert documents_of(pipeline.GRAPHS[graph]) == documents


@pytest.mark.slow
def test_compiling_is_byte_identical(tmp_path: Path) -> None:
    texts = set()
    for seed in ("0", "1"):
        command = [sys.executable, "pipeline.py", "compile", "--output", str(tmp_path / f"{seed}.yaml")]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env={"PYTHONHASHSEED": seed, "PATH": ""})
        texts.add((tmp_path / f"{seed}.yaml").read_bytes())
    assert len(texts) == 1


def test_every_parameter_has_a_default_and_a_description(spec: Any, graph: str) -> None:
    parameters = spec.root.input_definitions.parameters
    assert set(parameters) == set(pipeline.GRAPHS[graph].component_spec.inputs)
    assert set(parameters) == {*inputs_of(graph), OPTIONS}
    defaults = defaults_of(graph)
    for name, parameter in parameters.items():
        assert parameter.HasField("default_value"), name
        assert json_format.MessageToDict(parameter.default_value) == defaults[name], name
        assert len(parameter.description) > 10, name


def test_few_parameters_are_inputs_and_the_others_are_options(spec: Any, graph: str) -> None:
    parameters = spec.root.input_definitions.parameters
    assert len(parameters) <= MAX_INPUTS
    assert graph == PREDICTION or len(model_of(graph).model_fields) / 2 > MAX_INPUTS
    options = parameters[OPTIONS]
    assert options.parameter_type == pipeline_spec_pb2.ParameterType.STRUCT
    assert options.HasField("default_value") and json_format.MessageToDict(options.default_value) == {}
    assert "docs/parameters.md" in options.description


def test_an_input_is_described_as_its_parameter(spec: Any, graph: str) -> None:
    fields = model_of(graph).model_fields
    for name, parameter in spec.root.input_definitions.parameters.items():
        assert name == OPTIONS or parameter.description == fields[name].description, name


def test_resolve_gets_every_input_and_its_graph(documents: list[dict[str, Any]], graph: str) -> None:
    (resolve,) = [task for name, task, _ in _tasks(documents[0]) if name == FIRST.get(graph, "resolve")]
    given = {name: value for name, value in resolve["inputs"]["parameters"].items() if name != "graph"}
    expected = {name: {"componentInputParameter": f"pipelinechannel--{name}"} for name in defaults_of(graph)}
    assert given == expected
    named = None if graph == PREDICTION else {"runtimeValue": {"constant": graph}}
    assert resolve["inputs"]["parameters"].get("graph") == named


def test_a_step_gets_the_recipe_that_resolve_made_for_it(documents: list[dict[str, Any]], graph: str) -> None:
    recipes = {
        (name, given): value["taskOutputParameter"]
        for name, task, _ in _tasks(documents[0])
        for given, value in task.get("inputs", {}).get("parameters", {}).items()
        if given in ("recipe", "training") and "taskOutputParameter" in value
    }
    for (name, given), source in recipes.items():
        assert source == {"producerTask": FIRST.get(graph, "resolve"), "outputParameterKey": RECIPES[name, given]}
    steps = {name for name, given in recipes if given == "recipe"}
    assert steps >= ({"download"} if graph == PREDICTION else {"evaluate", "export", "register"})


def test_every_step_has_an_image_that_never_changes(graph: str, containers: dict[str, Any]) -> None:
    for step, container in containers.items():
        deletes_jobs = (graph, step) == ("distributed", "finish")
        kind = "torch" if deletes_jobs else IMAGES[step]
        assert re.search(rf"torch2kubeflow/{kind}(:[0-9a-f]{{12}}|@sha256:[0-9a-f]{{64}})$", container["image"]), step
        assert "pip install" not in " ".join(container["command"])


def test_inputs_of_a_task_are_inputs_of_its_group(documents: list[dict[str, Any]], graph: str) -> None:
    seen = 0
    for name, task, around in _tasks(documents[0]):
        known = set(around.get("inputDefinitions", {}).get("parameters", {}))
        for value in task.get("inputs", {}).get("parameters", {}).values():
            asked = {value["componentInputParameter"]} if "componentInputParameter" in value else set()
            asked |= set(re.findall(r"inputs\.parameters\['([^']+)'\]", str(value.get("runtimeValue"))))
            assert asked <= known, name
            seen += len(asked)
    assert seen > (20 if graph == PREDICTION else 50)


def test_resources_and_secrets_are_inputs_of_the_group(
    documents: list[dict[str, Any]], pods: dict[str, Any], containers: dict[str, Any]
) -> None:
    for name, task, around in _tasks(documents[0]):
        step = task["componentRef"]["name"].removeprefix("comp-")
        if step in pods:
            named = set(re.findall(r"'componentInputParameter': '([^']+)'", str(pods[step])))
            named |= set(re.findall(r"inputs\.parameters\['([^']+)'\]", str(containers[step].get("resources"))))
            assert named and named <= set(around["inputDefinitions"]["parameters"]), name


def test_every_pod_has_limits_labels_and_an_unprivileged_user(pods: dict[str, Any], containers: dict[str, Any]) -> None:
    assert set(pods) == set(containers)
    for step in pods:
        resources = containers[step]["resources"]
        assert resources["resourceCpuLimit"] and resources["resourceMemoryLimit"], step
        requests = {"resourceCpuRequest", "resourceMemoryRequest"} & resources.keys()
        assert len(requests) == (0 if step in TRAINING else 2), "what trains is requested up to its limit"
        pod = pods[step]
        assert int(pod["activeDeadlineSeconds"]) >= 600
        assert pod["podMetadata"]["labels"] == {
            "app.kubernetes.io/part-of": "torch2kubeflow",
            "app.kubernetes.io/component": step,
        }
        assert pod["securityContext"] == {"runAsUser": "65532", "runAsGroup": "65532", "runAsNonRoot": True}


def test_only_training_asks_for_gpus_and_their_nodes(
    graph: str, pods: dict[str, Any], containers: dict[str, Any]
) -> None:
    trains = [step.name for step in STEPS if step.trains and step.is_in(graph)]
    asking = {step for step in pods if "accelerator" in containers[step]["resources"]}
    assert asking == {step for step in pods if {"nodeSelector", "tolerations", "emptyDirMounts"} & pods[step].keys()}
    assert asking == set(trains) and len(trains) == (graph != PREDICTION)
    for train in trains:
        _check_gpus(pods[train], containers[train])


def _check_gpus(pod: dict[str, Any], container: dict[str, Any]) -> None:
    assert container["resources"]["accelerator"] == {
        "resourceType": "{{$.inputs.parameters['pipelinechannel--gpu_resource']}}",
        "resourceCount": "{{$.inputs.parameters['pipelinechannel--gpus']}}",
    }
    (shared_memory,) = pod["emptyDirMounts"]
    assert (shared_memory["mountPath"], shared_memory["medium"]) == ("/dev/shm", "Memory")


def test_parameters_of_resources_are_text(spec: Any, graph: str) -> None:
    parameters = spec.root.input_definitions.parameters
    trains = ("gpus", "gpu_resource", "train_cpu", "train_memory")
    for name in ("s3_secret", "s3_config", "source_secret", *(() if graph == PREDICTION else trains)):
        assert parameters[name].parameter_type == pipeline_spec_pb2.ParameterType.STRING, name


def test_s3_keys_are_optional_references_only(pods: dict[str, Any]) -> None:
    for step in pods:
        own, *others = pods[step]["secretAsEnv"]
        (config,) = pods[step]["configMapAsEnv"]
        assert own["optional"] and config["optional"], step
        assert {key["envVar"] for key in own["keyToEnv"]} >= {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
        assert {key["envVar"] for key in config["keyToEnv"]} == {"AWS_ENDPOINT_URL_S3", "AWS_REGION"}
        (files,) = pods[step]["configMapAsVolume"]
        assert files["optional"] and files["mountPath"] == "/etc/torch2kubeflow"
        assert bool(others) == (step in READ_THE_SOURCE), f"{step}: the keys of the source, where it is read"
        for source in others:
            assert source["optional"] and len(source["keyToEnv"]) == 6
            assert all(key["envVar"] == f"SOURCE_{key['secretKey']}" for key in source["keyToEnv"])


def test_every_step_is_started_with_the_code_that_it_must_have(containers: dict[str, Any]) -> None:
    for step, container in containers.items():
        port = step.replace("-", "_")
        assert container["args"] == [port, code_version(), code_digest(MODULES[port]), "{{$}}"]


def test_run_and_image_are_variables_where_they_are_recorded(pods: dict[str, Any], containers: dict[str, Any]) -> None:
    for step in pods:
        run, *more = pods[step].get("fieldPathAsEnv", [{}])
        if step not in ("train-distributed", "register", "collect"):
            assert not run and "env" not in containers[step]
            continue
        assert run == {"name": "RUN_ID", "fieldPath": "metadata.labels['pipeline/runid']"}
        assert bool(more) == (step == "train-distributed")
        image = [{"name": "STEP_IMAGE", "value": containers[step]["image"]}]
        assert containers[step].get("env", []) == (image if step != "collect" else [])


def test_only_what_looks_at_the_world_outside_is_never_cached(
    graph: str, documents: list[dict[str, Any]], containers: dict[str, Any]
) -> None:
    cached = {name: task.get("cachingOptions", {}).get("enableCache", False) for name, task, _ in _tasks(documents[0])}
    last = "collect" if graph == PREDICTION else "register"
    in_store = {"partition", "prepare", "settle"} & containers.keys()
    assert {name for name in containers if not cached[name]} == {FIRST.get(graph, "resolve"), last, "finish", *in_store}
    (download,) = [task for name, task, _ in _tasks(documents[0]) if name in ("download", "partition")]
    version = download["inputs"]["parameters"]["version"]["taskOutputParameter"]
    assert version == {"producerTask": FIRST.get(graph, "resolve"), "outputParameterKey": "version"}


def test_no_cached_step_has_the_run_as_an_input(documents: list[dict[str, Any]]) -> None:
    for name, task, _ in _tasks(documents[0]):
        if name != "finish":
            assert "pipeline_job" not in str(task.get("inputs")), name


def test_every_step_is_retried_with_growing_waits(documents: list[dict[str, Any]], pods: dict[str, Any]) -> None:
    for name, task, _ in _tasks(documents[0]):
        if name in pods:
            policy = task["retryPolicy"]
            assert (policy["maxRetryCount"], policy["backoffFactor"]) == (2, 2.0), name


def test_finish_runs_whatever_happened(documents: list[dict[str, Any]]) -> None:
    finish = documents[0]["root"]["dag"]["tasks"]["finish"]
    assert finish["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert finish["inputs"]["parameters"]["status"] == {"taskFinalStatus": {"producerTask": "exit-handler-1"}}


def test_evaluate_and_export_wait_for_the_same_steps(documents: list[dict[str, Any]], graph: str) -> None:
    if graph == PREDICTION:
        return
    waits = {name: set(task.get("dependentTasks", [])) for name, task, _ in _tasks(documents[0])}
    assert waits["evaluate"] == waits["export"] and waits["register"] > {"evaluate", "export"}
    assert not [name for name, task, _ in _tasks(documents[0]) if "condition" in task.get("triggerPolicy", {})]


def test_a_sweep_has_a_trial_pod_for_each_planned_text() -> None:
    spec = json_format.MessageToDict(pipeline.sweep.pipeline_spec)
    tasks = {name: task for name, task, _ in _tasks(spec)}
    loop = tasks["for-loop-2"]
    assert loop["parameterIterator"]["items"] == {"inputParameter": "pipelinechannel--resolve-Output"}
    assert loop["inputs"]["parameters"]["pipelinechannel--resolve-Output"]["taskOutputParameter"] == {
        "producerTask": "resolve",
        "outputParameterKey": "Output",
    }
    planned = tasks["trial"]["inputs"]["parameters"]["planned"]
    assert planned == {"componentInputParameter": loop["parameterIterator"]["itemInput"]}
    trials = tasks["compare"]["inputs"]["artifacts"]["trials"]["taskOutputArtifact"]
    assert trials == {"producerTask": "for-loop-2", "outputArtifactKey": "pipelinechannel--trial-trials"}
    for step in ("evaluate", "export", "register"):
        assert "pipelinechannel--trial" not in str(tasks[step]), "only the best model is evaluated"


def test_a_prediction_has_a_pod_for_each_part() -> None:
    spec = json_format.MessageToDict(pipeline.prediction.pipeline_spec)
    tasks = {name: task for name, task, _ in _tasks(spec)}
    loop = tasks["for-loop-2"]
    assert loop["parameterIterator"]["items"] == {"inputParameter": "pipelinechannel--resolve-prediction-Output"}
    assert tasks["predict"]["inputs"]["parameters"] == {
        "planned": {"componentInputParameter": loop["parameterIterator"]["itemInput"]}
    }
    shares = tasks["collect"]["inputs"]["artifacts"]["shares"]["taskOutputArtifact"]
    assert shares == {"producerTask": "for-loop-2", "outputArtifactKey": "pipelinechannel--predict-share"}
    labels = {name: task["inputs"]["parameters"].get("needs_labels") for name, task in tasks.items()}
    assert labels["download"] == {"runtimeValue": {"constant": False}}


def test_a_step_passes_its_resources_to_the_job_that_it_submits() -> None:
    spec = json_format.MessageToDict(pipeline.distributed.pipeline_spec)
    handed_on = spec["components"]["comp-train-distributed"]["taskConfigPassthroughs"]
    assert {one["field"]: one.get("applyToTask", False) for one in handed_on} == {
        "RESOURCES": False,
        "KUBERNETES_NODE_SELECTOR": False,
        "KUBERNETES_TOLERATIONS": False,
        "ENV": True,
        "KUBERNETES_VOLUMES": True,
    }
