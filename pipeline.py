"""The pipelines: resolve, download, preprocess, train, evaluate and, if accepted, export and register.

`training` trains once, `sweep` once for each of several settings, of which the best is evaluated, and `distributed` on
several machines, by a job of Kubeflow Trainer.

python pipeline.py local data=mnist epochs=3     # compile it and run it on this machine
python pipeline.py local --graph sweep           # the same with another graph
python pipeline.py compile                       # write build/*.yaml for the Kubeflow UI
"""

if __name__ == "__main__":  # before KFP is imported and the graphs are made, which help and mistakes need not wait for
    from importlib import import_module

    from runner.cli import main

    main(lambda: import_module("pipeline").GRAPHS)

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from kfp import dsl, kubernetes
from kfp.dsl import PipelineTask
from kfp.dsl.base_component import BaseComponent
from kfp.dsl.pipeline_channel import PipelineArtifactChannel, PipelineParameterChannel

from components import steps
from components.shared.core.code_digest import code_digest, code_version
from components.shared.parameters.form import docstring_of, signature_of
from components.shared.parameters.table import DISTRIBUTED
from components.shared.storage.endpoint import MOUNTED_AUTHORITY
from components.step_table import STEP_LABEL
from runner.kfp_patches import quick_tasks

USER = 65532  # who owns the processes in our images
MINUTE, HOUR = 60, 3600
S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
S3_SETTINGS = ("AWS_ENDPOINT_URL_S3", "AWS_REGION")
READ_THE_SOURCE = ("resolve", "download")
KNOW_THEIR_IMAGE = ("train-distributed", "register")  # for the pods of the job, and for a version's provenance
RECORDED = ("data", "store", "model_name", "options")  # in a run's record, even if resolve failed

Text: TypeAlias = str | PipelineParameterChannel
Inputs: TypeAlias = dict[str, Any]  # of a pipeline
Train: TypeAlias = Callable[[PipelineArtifactChannel, PipelineTask, Inputs], PipelineArtifactChannel]


class Resources(NamedTuple):
    """What a step's pod gets: CPUs and memory, as request and limit, and the seconds after which it is ended."""

    cpu: tuple[Text, Text]
    memory: tuple[Text, Text]
    seconds: int


RESOURCES = {  # of the steps that do not train; those that do have parameters for it
    "resolve": Resources(("100m", "1"), ("256Mi", "1Gi"), 10 * MINUTE),
    "download": Resources(("250m", "2"), ("512Mi", "2Gi"), 6 * HOUR),
    "preprocess": Resources(("1", "4"), ("2Gi", "4Gi"), 6 * HOUR),
    "compare": Resources(("250m", "2"), ("1Gi", "4Gi"), 2 * HOUR),
    "evaluate": Resources(("1", "4"), ("2Gi", "4Gi"), 2 * HOUR),
    "export": Resources(("1", "4"), ("2Gi", "4Gi"), 2 * HOUR),
    "register": Resources(("500m", "2"), ("1Gi", "4Gi"), 2 * HOUR),
    "finish": Resources(("100m", "1"), ("256Mi", "1Gi"), HOUR),
}


def _train(data: PipelineArtifactChannel, resolved: PipelineTask, inputs: Inputs) -> PipelineArtifactChannel:
    """Train once: prepared data -> model."""
    return _add(steps.train, inputs, dataset=data, recipe=resolved.outputs["training"]).outputs["model"]


def _search(data: PipelineArtifactChannel, resolved: PipelineTask, inputs: Inputs) -> PipelineArtifactChannel:
    """Train once for each setting: prepared data -> the best model."""
    # KFP's local runner wants the name `Output`, and passes no other text into a loop.
    with dsl.ParallelFor(resolved.outputs["Output"], name="trials") as one:
        tried = _add(steps.trial, inputs, dataset=data, planned=one)
    compared = _add(steps.compare, inputs, trials=dsl.Collected(tried.outputs["trials"]), store=inputs["store"])
    return compared.outputs["model"]


def _submit(data: PipelineArtifactChannel, resolved: PipelineTask, inputs: Inputs) -> PipelineArtifactChannel:
    """Train once by a job on many nodes, to whose pods the step passes its resources on: prepared data -> model."""
    trained = _add(steps.train_distributed, inputs, dataset=data, recipe=resolved.outputs["training"])
    kubernetes.use_field_path_as_env(trained, "SERVICE_ACCOUNT", "spec.serviceAccountName")  # for the job's pods too
    return trained.outputs["model"]


def _flow(graph: str, inputs: Inputs, train: Train) -> None:
    """Connect the steps of the graph whose model comes from `train`."""
    recorded = {name: inputs[name] for name in RECORDED}
    run = {"run_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER, "run_name": dsl.PIPELINE_JOB_NAME_PLACEHOLDER}
    ended = _add(steps.finish, inputs, graph=graph, **run, **recorded)
    ended.set_caching_options(False)
    if graph == DISTRIBUTED:  # only this image has what deletes a TrainJob
        ended.set_container_image(steps.TORCH_IMAGE)
    with dsl.ExitHandler(ended, name="training"):
        resolved = _add(steps.resolve, inputs, graph=graph, **inputs)
        resolved.set_caching_options(False)
        recipe = resolved.outputs
        raw = _add(steps.download, inputs, data=inputs["data"], version=recipe["version"])
        prepared = _add(steps.preprocess, inputs, raw=raw.outputs["raw"], recipe=recipe["preparation"])
        data = prepared.outputs["dataset"]
        model = train(data, resolved, inputs)
        evaluated = _add(steps.evaluate, inputs, dataset=data, model=model, recipe=recipe["evaluation"])
        tested = {"dataset": data, "model": model, "evaluation": evaluated.outputs["evaluation"]}
        with dsl.If(evaluated.outputs["Output"] == True, name="accepted"):  # noqa: E712
            exported = _add(steps.export, inputs, **tested, threads=recipe["threads"])
            package = exported.outputs["package"]
            _add(steps.register, inputs, **tested, package=package, recipe=recipe["registration"])


def _add(step: BaseComponent, inputs: Inputs, **arguments: Any) -> PipelineTask:
    """Add a step to the graph, and configure its pod by the pipeline's inputs."""
    task = step(**arguments)
    configure_pod(task, inputs)
    return task


def configure_pod(task: PipelineTask, inputs: Inputs) -> None:
    """Configure how a step runs in a cluster: resources, retries, labels, user, S3 access and, if it trains, GPUs.

    Many installations never retry a step that failed, so steps retry by themselves; these retries come on top.
    """
    name = task.component_spec.name
    _set_resources(task, RESOURCES.get(name) or _training_resources(inputs))
    task.set_retry(num_retries=2, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="600s")
    kubernetes.add_pod_label(task, "app.kubernetes.io/part-of", "torch2kubeflow")
    kubernetes.add_pod_label(task, STEP_LABEL, name)
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    kubernetes.set_image_pull_policy(task, "IfNotPresent")
    # Variables, since a step is cached by its inputs.
    kubernetes.use_field_path_as_env(task, "RUN_ID", "metadata.labels['pipeline/runid']")
    if name in KNOW_THEIR_IMAGE:
        task.set_env_variable("STEP_IMAGE", task.container_spec.image)
    # A step refuses to run other code than that from which the pipeline was compiled.
    task.set_env_variable("CODE_VERSION", code_version())
    task.set_env_variable("CODE_DIGEST", code_digest(f"components.{name.replace('-', '_')}"))
    _give_store_access(task, inputs)
    if name in READ_THE_SOURCE:
        _give_source_access(task, inputs)
    if name not in RESOURCES:
        _set_gpus(task, inputs)


def _set_resources(task: PipelineTask, resources: Resources) -> None:
    cpu, memory, seconds = resources
    task.set_cpu_request(cpu[0]).set_cpu_limit(cpu[1])
    task.set_memory_request(memory[0]).set_memory_limit(memory[1])
    # KFP does not pass the parameters of resources into a group by itself.
    task.register_pipeline_channels([c for c in (*cpu, *memory) if isinstance(c, PipelineParameterChannel)])
    kubernetes.set_timeout(task, seconds)


def _training_resources(inputs: Inputs) -> Resources:
    cpu, memory = inputs["train_cpu"], inputs["train_memory"]
    return Resources((cpu, cpu), (memory, memory), 72 * HOUR)


def _set_gpus(task: PipelineTask, inputs: Inputs) -> None:
    """Ask for GPUs and the nodes that have them, and for shared memory of more than the 64 MiB of a pod."""
    gpus, resource = inputs["gpus"], inputs["gpu_resource"]
    task.set_accelerator_type(resource).set_accelerator_limit(gpus)
    task.register_pipeline_channels([gpus, resource])
    kubernetes.add_node_selector_json(task, inputs["node_selector"])
    kubernetes.add_toleration_json(task, inputs["tolerations"])
    kubernetes.empty_dir_mount(task, volume_name="dshm", mount_path="/dev/shm", medium="Memory", size_limit="1Gi")


def _give_store_access(task: PipelineTask, inputs: Inputs) -> None:
    """Set the variables for the store, from the Secret and the ConfigMap."""
    secret, config = inputs["s3_secret"], inputs["s3_config"]
    kubernetes.use_secret_as_env(task, secret, {name: name for name in S3_KEYS}, optional=True)
    kubernetes.use_config_map_as_env(task, config, {name: name for name in S3_SETTINGS}, optional=True)
    kubernetes.use_config_map_as_volume(task, config, mount_path=str(MOUNTED_AUTHORITY.parent), optional=True)


def _give_source_access(task: PipelineTask, inputs: Inputs) -> None:
    """Set the variables for a data source in another S3, prefixed by SOURCE_, from their Secret."""
    names = {name: f"SOURCE_{name}" for name in (*S3_KEYS, *S3_SETTINGS, "AWS_CA_BUNDLE")}
    kubernetes.use_secret_as_env(task, inputs["source_secret"], names, optional=True)


def _pipeline(graph: str, description: str, train: Train) -> BaseComponent:
    """Return the pipeline torch2kubeflow-`graph`, with the inputs that shared/parameters/table.py gives it.

    KFP reads them from the signature and docstring of the function that makes the graph, and then calls it with all of
    them in order.
    """
    declared = signature_of(graph)

    def flow(*values: Any) -> None:
        _flow(graph, dict(zip(declared.parameters, values, strict=True)), train)

    flow.__signature__ = declared  # type: ignore[attr-defined]
    flow.__doc__ = docstring_of(graph, description)
    with quick_tasks():
        pipeline: BaseComponent = dsl.pipeline(name=f"torch2kubeflow-{graph}", description=description)(flow)
    return pipeline


training = _pipeline("training", "From images to an evaluated, exported classifier.", _train)
sweep = _pipeline("sweep", "The best of several trainings, evaluated and exported.", _search)
distributed = _pipeline("distributed", "A classifier trained on many nodes by Kubeflow Trainer.", _submit)
GRAPHS = {"training": training, "sweep": sweep, "distributed": distributed}  # by their names for `--graph`
