"""The size of the object in which Argo keeps a run, estimated from the compiled pipeline.

Past 1 MiB Argo compresses the nodes of a Workflow, and KFP stops following the run. The model is what a real KFP 2.17
and Argo 4.0 wrote: a step has six nodes, all of which repeat the patch of its pod, and two of which hold its component,
task, container and settings for Kubernetes; each graph of tasks has two that hold its component and task; and the spec
holds all of that once more. Sizes are in bytes.
"""

import json
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kfp.dsl.base_component import BaseComponent

from components.shared.parameters.common import PartRecipe
from components.shared.parameters.evaluation import EvaluateRecipe, ExportRecipe
from components.shared.parameters.preparation import PreprocessRecipe, ReadingRecipe
from components.shared.parameters.recipe import Recipe
from components.shared.parameters.registration import RegisterRecipe
from components.shared.parameters.sweep import SweepRecipe
from components.shared.parameters.table import BIGDATA, PREDICTION, SWEEP
from components.shared.parameters.training import TrainingRecipe
from components.shared.prediction.pods.chosen import CollectRecipe, ShareRecipe
from components.shared.training.search.planned import plan
from runner.compile import documents_of
from runner.graphs import graph_of
from runner.parameters import as_inputs, complete

LIMIT = 2**20
RECIPES: dict[str, type[Recipe]] = {  # by the outputs of step resolve
    "reading": ReadingRecipe,
    "preparation": PreprocessRecipe,
    "training": TrainingRecipe,
    "evaluation": EvaluateRecipe,
    "export": ExportRecipe,
    "registration": RegisterRecipe,
}
# Nodes without the long texts in them, as measured: driver, step and executor each have a Retry and a Pod or DAG.
DRIVER_NODES = 1448 + 1510
STEP_NODES = DRIVER_NODES + 1218 + 1343 + 1331 + 1356
CACHED_NODES = DRIVER_NODES + 1246 + 1388 + 525  # whose executor is skipped
GRAPH_NODES = DRIVER_NODES + 652 + 748
PASS_NODES = GRAPH_NODES + 652 + 748  # a pass of a loop
WORKFLOW = 11_000  # metadata, status, and the templates that every run has
TASK_TEMPLATE = 1_560  # of a task in the spec, without the text of the task
PARAMETER = 90  # of the spec, without its value
DIGEST = "sha256:" + 64 * "0"
RUN_ID = "00000000-0000-0000-0000-000000000000"
SESSION = {
    "Provider": "minio",
    "Params": {
        "accessKeyKey": "accesskey",
        "disableSSL": "true",
        "endpoint": "seaweedfs.kubeflow:9000",
        "fromEnv": "false",
        "maxRetries": "5",
        "region": "minio",
        "secretKeyKey": "secretkey",
        "secretName": "mlpipeline-minio-artifact",
    },
}
LAUNCHER_FLAGS = {
    "pod_name": "$(KFP_POD_NAME)",
    "pod_uid": "$(KFP_POD_UID)",
    "ml_pipeline_server_address": "ml-pipeline.kubeflow.svc.cluster.local",
    "ml_pipeline_server_port": "8887",
    "mlmd_server_address": "metadata-grpc-service.kubeflow.svc.cluster.local",
    "mlmd_server_port": "8080",
    "publish_logs": "true",
}

Document = dict[str, Any]
Values = Mapping[str, Any]


class Part(NamedTuple):
    """What one step or graph of tasks adds: to the nodes, and to the spec."""

    name: str
    nodes: int
    spec: int


def parts_of_run(pipeline: BaseComponent, given: Mapping[str, Any]) -> list[Part]:
    """Return the parts of a run with the given parameters in which every step runs."""
    values = complete(pipeline, given)
    is_prediction = graph_of(pipeline) == PREDICTION
    first, outputs, passes = _prediction(values) if is_prediction else _training(values, graph_of(pipeline))
    outputs = {f"{first}.{name}": text for name, text in {**outputs, "version": 64 * "v"}.items()}
    return estimate(documents_of(pipeline), as_inputs(pipeline, given), outputs, passes)


def _training(values: Values, graph: str) -> tuple[str, dict[str, str], list[str]]:
    """Return the first step of a graph that trains, the recipes that it returns, and the items of its loop."""
    training = TrainingRecipe.taken_from(values)
    pods = plan(SweepRecipe.taken_from(values), training, values["image_size"]) if graph == SWEEP else []
    items = [pod.text() for pod in pods]
    if graph == BIGDATA:
        items = values["parts"] * [PartRecipe.of(part=values["parts"] - 1, parts=values["parts"]).text()]
    return "resolve", {name: recipe.taken_from(values).text() for name, recipe in RECIPES.items()}, items


def _prediction(values: Values) -> tuple[str, dict[str, str], list[str]]:
    """Return the same of the graph `prediction`; which model it will be, and of what digest, is not known yet."""
    name = values["model"] if "://" in values["model"] else f"{values['model_name'] or 20 * 'm'}/100"
    model = {"model": name, "package_digest": 64 * "0", "store": values["store"]}
    share = ShareRecipe.of(**model, threads=values["threads"], pod=values["parts"] - 1, pods=values["parts"])
    collection = CollectRecipe.taken_from({**values, **model})
    recipes = {"reading": ReadingRecipe.taken_from(values).text(), "collection": collection.text()}
    return "resolve-prediction", recipes, values["parts"] * [share.text()]


def total(parts: Iterable[Part]) -> int:
    """Return the bytes of all parts."""
    return sum(part.nodes + part.spec for part in parts)


def estimate(
    documents: list[Any], inputs: Values, outputs: Values, passes: Sequence[str] = (), cached: Container[str] = ()
) -> list[Part]:
    """Return the parts of the object of a run, the first of which is the run's own.

    `documents` are the compiled pipeline and its settings for Kubernetes, `inputs` the run's, `outputs` the parameters
    that steps return, as `step.output`, `passes` the items of its loop, and `cached` the steps that do not run.
    """
    return list(_Estimate(documents, inputs, outputs, passes, cached).parts())


class _Estimate:
    def __init__(
        self, documents: list[Any], inputs: Values, outputs: Values, passes: Sequence[str], cached: Container[str]
    ) -> None:
        self.pipeline, self.platforms = documents[0], documents[1]["platforms"]["kubernetes"]["deploymentSpec"]
        self.name = self.pipeline["pipelineInfo"]["name"]
        defaults = self.pipeline["root"]["inputDefinitions"]["parameters"]
        self.inputs = {name: spec.get("defaultValue") for name, spec in defaults.items()} | dict(inputs)
        self.outputs, self.passes, self.cached = outputs, passes, cached

    def parts(self) -> Iterator[Part]:
        given = _quoted(_text({"parameterValues": self.inputs}))
        root = _quoted(_text(self.pipeline["root"]))
        yield Part("run", DRIVER_NODES + GRAPH_NODES + 2 * (root + given), WORKFLOW + root + given)
        yield from self._tasks(self.pipeline["root"])

    def _tasks(self, graph: Document) -> Iterator[Part]:
        for name, task in graph["dag"]["tasks"].items():
            component = self.pipeline["components"][task["componentRef"]["name"]]
            own, text = _quoted(_text(component)), _quoted(_text(task))
            if "dag" not in component:
                yield self._step(name, task, component)
                continue
            if "parameterIterator" in task:
                nodes = 2 * GRAPH_NODES + len(self.passes) * (PASS_NODES + 2 * (own + text)) + 2 * (own + text)
            else:
                nodes = GRAPH_NODES + 2 * (own + text)
            yield Part(name, nodes, PARAMETER + own + TASK_TEMPLATE + text)
            yield from self._tasks(component)

    def _step(self, name: str, task: Document, component: Document) -> Part:
        label = component["executorLabel"]
        container = self.pipeline["deploymentSpec"]["executors"][label]["container"]
        settings = self.platforms["executors"][label]
        image = f"registry.example.org/team/{re.split('[:@]', container['image'])[0]}@{DIGEST}"
        container = {**container, "image": image, "env": _with_image(container.get("env", []), image)}
        texts = sum(_quoted(_text(part)) for part in (component, task, container, settings))
        items = self.passes if self._is_in_loop(task) else [""]
        nodes = len(items) * ((CACHED_NODES if name in self.cached else STEP_NODES) + 2 * texts)
        if name not in self.cached:
            patches = (self._patch(name, task, component, container, settings, item) for item in items)
            nodes += 6 * sum(_quoted(_text(patch)) for patch in patches)
        return Part(name, nodes, texts + 3 * PARAMETER + TASK_TEMPLATE)

    def _is_in_loop(self, task: Document) -> bool:
        return "-loop-item" in _text(task)

    def _patch(
        self, name: str, task: Document, component: Document, container: Document, settings: Document, item: str
    ) -> Document:
        """Return what KFP's driver gives to the pod of a step."""
        given = _text(self._executor_input(name, task, component, item))
        launch = ["/kfp-launcher/launch", "--pipeline_name", self.name, "--run_id", RUN_ID, "--execution_id", "100"]
        launch += ["--executor_input", given, "--component_spec", _text(component)]
        launch += [word for flag, value in LAUNCHER_FLAGS.items() for word in (f"--{flag}", value)]
        resources = {"cpu": "100m", "memory": "256Mi"}
        requests = {"requests": resources} if "resourceCpuRequest" in container["resources"] else {}
        volumes = settings.get("configMapAsVolume", [])
        return {
            "volumes": [{"name": 20 * "v", "configMap": {"name": 20 * "v", "optional": True}} for _ in volumes],
            "containers": [
                {
                    "name": "main",
                    "image": container["image"],
                    "command": [*launch, "--publish_logs", "true", "--"],
                    "args": [*container["command"], *container["args"]],
                    "env": [*container["env"], *_variables(settings)],
                    "resources": {"limits": resources, **requests},
                    "volumeMounts": [{"name": 20 * "v", "mountPath": "/etc/torch2kubeflow"} for _ in volumes],
                    **_pull_policy(settings),
                    "securityContext": {"capabilities": {"drop": ["ALL"]}, **settings.get("securityContext", {})},
                }
            ],
            "activeDeadlineSeconds": settings.get("activeDeadlineSeconds", ""),
        }

    def _executor_input(self, name: str, task: Document, component: Document, item: str) -> Document:
        inputs = component.get("inputDefinitions", {})
        produced = component.get("outputDefinitions", {})
        stored = {"display_name": "dataset", "store_session_info": _text(SESSION)}
        values = {
            key: self._value(task["inputs"]["parameters"][key], item)
            for key in inputs.get("parameters", {})
            if key in task["inputs"].get("parameters", {})
        }
        if "taskConfigPassthroughs" in component:
            values["task_config"] = self._task_config(component["executorLabel"])
        taken = {
            key: {"artifacts": [{"name": "100", "type": {}, "uri": self._uri(name, key), "metadata": stored}]}
            for key in inputs.get("artifacts", {})
        }
        kinds = {**produced.get("artifacts", {}), "executor-logs": {"artifactType": {"schemaTitle": "system.Artifact"}}}
        made = {
            key: {"artifacts": [{"name": key, "type": kind["artifactType"], "uri": self._uri(name, key)}]}
            for key, kind in kinds.items()
        }
        files = {key: {"outputFile": f"/tmp/kfp/outputs/{key}"} for key in produced.get("parameters", {})}
        return {
            "inputs": {"artifacts": taken, "parameterValues": values},
            "outputs": {"parameters": files, "artifacts": made, "outputFile": self._uri(name, "output_metadata.json")},
        }

    def _task_config(self, label: str) -> Document:
        """Return what the driver passes on of a pod's settings to the step, which gives it to other pods."""
        settings = self.platforms["executors"][label]
        return {
            "affinity": None,
            "env": list(_variables(settings)),
            "resources": {"limits": {"cpu": "2", "memory": "4Gi"}, "requests": {"cpu": "2", "memory": "4Gi"}},
            "volumes": [{"name": "v", "configMap": {"name": 20 * "v", "optional": True}}, {"name": "dshm"}],
            "volumeMounts": [{"name": 20 * "v", "mountPath": "/etc/torch2kubeflow"}, {"name": "dshm"}],
        }

    def _uri(self, step: str, name: str) -> str:
        return f"minio://mlpipeline/v2/artifacts/{self.name}/{RUN_ID}/{step}/{RUN_ID}/{name}"

    def _value(self, source: Document, item: str) -> Any:
        """Return the value of a task's input: a constant, an input of the run, an output of a step, or the item."""
        if "runtimeValue" in source:
            return source["runtimeValue"].get("constant", "")
        if "taskOutputParameter" in source:
            output = source["taskOutputParameter"]
            return self.outputs.get(f"{output['producerTask']}.{output['outputParameterKey']}", "")
        name = source.get("componentInputParameter", "").removeprefix("pipelinechannel--")
        if name.endswith("-loop-item"):
            return item
        return self.inputs.get(name, self.outputs.get(".".join(name.rsplit("-", 1)), ""))


def _pull_policy(settings: Document) -> Document:
    return {name: settings[name] for name in ("imagePullPolicy",) if name in settings}


def _with_image(variables: list[Any], image: str) -> list[Any]:
    return [{**one, "value": image} if one["name"] == "STEP_IMAGE" else one for one in variables]


def _variables(settings: Document) -> Iterator[Document]:
    """Yield the variables of a pod from Secrets, the ConfigMap and fields, as Kubernetes writes them."""
    for kind, key, reference in (
        ("secretAsEnv", "secretKey", "secretKeyRef"),
        ("configMapAsEnv", "configMapKey", "configMapKeyRef"),
    ):
        for source in settings.get(kind, []):
            for pair in source["keyToEnv"]:
                chosen = {"name": 20 * "s", "key": pair[key], "optional": True}
                yield {"name": pair["envVar"], "valueFrom": {reference: chosen}}
    for field in settings.get("fieldPathAsEnv", []):
        yield {"name": field["name"], "valueFrom": {"fieldRef": {"fieldPath": field["fieldPath"]}}}


def _text(value: Any) -> str:
    """Return JSON as Go writes it, which escapes what HTML would."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _quoted(text: str) -> int:
    """Return the bytes of a text as a string in JSON."""
    return len(json.dumps(text, ensure_ascii=False).encode())
