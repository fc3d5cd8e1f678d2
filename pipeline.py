"""The pipelines: resolve, download, preprocess, train, evaluate and, if accepted, export and register.

`training` trains once, `sweep` once for each of several settings, of which the best is evaluated, and `distributed` on
several machines, by a job of Kubeflow Trainer.

python pipeline.py local data=mnist epochs=3     # compile it and run it on this machine
python pipeline.py local --graph sweep           # the same with another graph
python pipeline.py compile                       # write build/*.yaml for the Kubeflow UI
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from kfp import dsl, kubernetes
from kfp.dsl import PipelineTask
from kfp.dsl.base_component import BaseComponent
from kfp.dsl.pipeline_channel import PipelineArtifactChannel, PipelineParameterChannel

from components import steps
from components.shared.core.code_digest import code_digest, code_version
from components.shared.parameters import DISTRIBUTED
from components.step_table import STEP_LABEL

USER = 65532  # who owns the processes in our images
MINUTE, HOUR = 60, 3600
S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
S3_SETTINGS = ("AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_CA_BUNDLE")
S3_FILES = "/etc/torch2kubeflow"  # where the ConfigMap is mounted too, for a private authority in its key ca.crt

Text: TypeAlias = str | PipelineParameterChannel
Parameters: TypeAlias = dict[str, Any]
Train: TypeAlias = Callable[[PipelineArtifactChannel, Parameters], PipelineArtifactChannel]  # prepared data -> model


class Resources(NamedTuple):
    """What a step's pod gets: CPUs and memory, as request and limit, and the seconds after which it is ended."""

    cpu: tuple[Text, Text]
    memory: tuple[Text, Text]
    seconds: int


RESOURCES = {  # of the steps that do not train; those that do have parameters for it
    "resolve": Resources(("100m", "1"), ("256Mi", "1Gi"), 10 * MINUTE),
    "download": Resources(("250m", "2"), ("512Mi", "2Gi"), 6 * HOUR),
    "preprocess": Resources(("1", "4"), ("2Gi", "4Gi"), 6 * HOUR),
    "plan": Resources(("100m", "1"), ("256Mi", "1Gi"), 10 * MINUTE),
    "compare": Resources(("250m", "2"), ("1Gi", "4Gi"), 2 * HOUR),
    "evaluate": Resources(("1", "4"), ("2Gi", "4Gi"), 2 * HOUR),
    "export": Resources(("1", "4"), ("2Gi", "4Gi"), 2 * HOUR),
    "register": Resources(("500m", "2"), ("1Gi", "4Gi"), 2 * HOUR),
    "finish": Resources(("100m", "1"), ("256Mi", "1Gi"), HOUR),
}


def shared_parameters(
    data: str = "mnist",
    image_size: int = 32,
    val_fraction: float = 0.1,
    test_fraction: float = 0.15,
    max_bad_images: int = 0,
    network: str = "lenet5",
    activation: str = "default",
    pooling: str = "default",
    bias: bool = True,
    pretrained: str = "",
    frozen_stages: int = 0,
    optimizer: str = "muon",
    schedule: str = "one_cycle",
    learning_rate: float = 0.02,
    weight_decay: float = 0.0,
    batch_size: str = "256",
    accumulate: int = 1,
    clip_norm: float = 0.0,
    epochs: int = 3,
    label_smoothing: float = 0.05,
    rotation: float = 0.0,
    shift: float = 1.0,
    scale: float = 0.0,
    shear: float = 0.0,
    flip: bool = False,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    ema_decay: float = 0.99,
    patience: int = 0,
    precision: str = "auto",
    torch_compile: bool = False,
    deterministic: bool = True,
    min_accuracy: float = 0.98,
    min_recall: float = 0.95,
    seed: int = 0,
    threads: int = 0,
    store: str = "",
    model_name: str = "",
    significance: float = 0.05,
    checkpoint_seconds: int = 30,
    handover_mib: int = 1024,
    nodes: int = 1,
    gpus: str = "0",
    gpu_resource: str = "nvidia.com/gpu",
    node_selector: dict[str, str] = {},  # noqa: B006 (KFP's defaults are values)
    tolerations: list[dict[str, str]] = [],  # noqa: B006
    train_cpu: str = "2",
    train_memory: str = "4Gi",
    s3_secret: str = "torch2kubeflow-s3",
    s3_config: str = "torch2kubeflow-s3",
    source_secret: str = "torch2kubeflow-source",
) -> None:
    """The parameters of every pipeline, with their defaults.

    Args:
        data: mnist, fashion-mnist, kmnist, cifar10, digits, or a https://, s3:// or file:// URI.
        image_size: Height and width in pixels to which images are scaled (LeNet-5 reads 32).
        val_fraction: Share of the training images held out for validation, if the source has no val split.
        test_fraction: Share of the images held out for the test, if the source has no test split.
        max_bad_images: Number of broken pictures to skip and list; one more fails the step.
        network: lenet5, lenet5_1998, resnet18, mobilenet_v2 or another of docs/networks.md, or timm:NAME.
        activation: default (the network's own), sigmoid, tanh, relu, leaky_relu or leaky_clipped (slope 0.01 off 0..1).
        pooling: default (the network's own), max, avg or rms (root mean square) in place of max pooling.
        bias: Whether convolutions and linear layers have a bias.
        pretrained: Weights to start from: a folder, a .safetensors file or s3://..., with #sha256=... to check them.
        frozen_stages: Number of stages of the network, from the first, whose weights are not trained.
        optimizer: muon, sgd (with Nesterov momentum) or adamw.
        schedule: one_cycle (a short warm-up of the learning rate, then a linear decay) or cosine.
        learning_rate: Peak of the learning rate.
        weight_decay: Decoupled weight decay of the weight matrices; biases are not decayed.
        batch_size: Images in a training batch, over all GPUs; auto takes the largest power of two that fits.
        accumulate: Number of batches whose gradients are accumulated for one step.
        clip_norm: Norm to which larger gradients are scaled down; 0 does not clip.
        epochs: Passes over the training split.
        label_smoothing: Share of the target spread over all classes; lenet5_1998 has its own loss and ignores it.
        rotation: Random rotation of training images, in degrees to either side.
        shift: Random shift, in pixels to each side.
        scale: Random scaling, as a share to either side (0.1 is 90 % to 110 %).
        shear: Random shear, as the tangent of the angle to either side.
        flip: Whether half of the training images are mirrored.
        mixup: Alpha of mixup, which blends each training image with another; 0 turns it off.
        cutmix: Alpha of CutMix, which pastes a piece of another image into each; 0 turns it off.
        ema_decay: Decay per step of the averaged weights, which are evaluated and saved; 0 saves the raw ones.
        patience: Epochs without a better validation accuracy before training stops; 0 never stops early.
        precision: float32, bfloat16, or auto, which is bfloat16 on GPUs and float32 on CPUs.
        torch_compile: Whether PyTorch compiles the network: a minute longer to start, faster on GPUs; needs gcc.
        deterministic: Whether equal runs give bit-identical weights on GPUs too, which costs some speed there.
        min_accuracy: Test accuracy below which the model is not accepted.
        min_recall: Recall of the weakest class below which the model is not accepted.
        seed: Seed of the split, the initial weights, the order of the images and the augmentation.
        threads: CPU threads of PyTorch; 0 takes what the CPU quota allows. The number slightly changes the weights.
        store: s3://bucket/prefix for what outlives a run: prepared data, checkpoints, models; empty stores nothing.
        model_name: Name under which an accepted model is registered in the store; empty takes the data set's name.
        significance: P-value of McNemar's test below which a better model replaces the champion.
        checkpoint_seconds: Seconds between two checkpoints of the training, which go to the store.
        handover_mib: Size of a prepared data set, in MiB, above which steps read it from the store shard by shard.
        nodes: Machines that train together, each with `gpus` GPUs; more than 1 need the graph `distributed`.
        gpus: GPUs for training; 0 trains on the CPU.
        gpu_resource: Kubernetes' name of the GPU resource, such as nvidia.com/gpu or amd.com/gpu.
        node_selector: Labels of the nodes to train on, such as {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}.
        tolerations: Taints that the training pod tolerates, such as [{"key": "nvidia.com/gpu", "operator": "Exists"}].
        train_cpu: CPUs of the training pod, in a cluster.
        train_memory: Memory of the training pod, in a cluster.
        s3_secret: Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; without it, the pod's own identity is used.
        s3_config: ConfigMap with AWS_ENDPOINT_URL_S3, AWS_REGION, AWS_CA_BUNDLE and ca.crt, those that are needed.
        source_secret: Secret with the same names, for a data source in another S3.
    """


def sweep_parameters(
    settings: list[dict[str, Any]] = [{"learning_rate": 0.01}, {"learning_rate": 0.02}, {"learning_rate": 0.04}],  # noqa: B006
    stopping: str = "none",
    reduction: int = 3,
    first_rung: int = 1,
) -> None:
    """The parameters of `sweep` besides the shared ones.

    Args:
        settings: One object for each trial, with the parameters of the training that differ in it.
        stopping: none, or asha, which stops a trial that has fallen behind the others; it needs a store.
        reduction: With asha, 1 in this many trials continues at a rung; the next is after this many times the epochs.
        first_rung: With asha, the number of epochs after which trials are first compared.
    """


def _train(data: PipelineArtifactChannel, parameters: Parameters) -> PipelineArtifactChannel:
    """Train once: prepared data -> model."""
    return _add(steps.train, parameters, dataset=data).outputs["model"]


def _search(data: PipelineArtifactChannel, parameters: Parameters) -> PipelineArtifactChannel:
    """Train once for each setting: prepared data -> the best model."""
    planned = _add(steps.plan, parameters, dataset=data)
    with dsl.ParallelFor(planned.output, name="trials") as one:
        tried = _add(steps.trial, parameters, dataset=data, planned=one)
    compared = _add(steps.compare, parameters, models=dsl.Collected(tried.outputs["model"]))
    return compared.outputs["model"]


def _submit(data: PipelineArtifactChannel, parameters: Parameters) -> PipelineArtifactChannel:
    """Train once by a job on many nodes, to whose pods the step passes its resources on: prepared data -> model."""
    trained = _add(steps.train_distributed, parameters, dataset=data)
    kubernetes.use_field_path_as_env(trained, "SERVICE_ACCOUNT", "spec.serviceAccountName")  # for the job's pods too
    return trained.outputs["model"]


def _flow(graph: str, parameters: Parameters, train: Train) -> None:
    """Connect the steps of the graph whose model comes from `train`."""
    ended = _add(
        steps.finish,
        parameters,
        graph=graph,
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        run_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
    )
    ended.set_caching_options(False)
    if graph == DISTRIBUTED:  # only this image has what deletes a TrainJob
        ended.set_container_image(steps.TORCH_IMAGE).set_env_variable("STEP_IMAGE", steps.TORCH_IMAGE)
    with dsl.ExitHandler(ended, name="training"):
        resolved = _add(steps.resolve, parameters, graph=graph)
        resolved.set_caching_options(False)
        raw = _add(steps.download, parameters, version=resolved.output)
        if graph == DISTRIBUTED:  # other nodes read the data from the store, whatever its size
            parameters = {**parameters, "handover_mib": 0}
        prepared = _add(steps.preprocess, parameters, raw=raw.outputs["raw"])
        data = prepared.outputs["dataset"]
        model = train(data, parameters)
        evaluated = _add(steps.evaluate, parameters, dataset=data, model=model)
        tested = {"dataset": data, "model": model, "evaluation": evaluated.outputs["evaluation"]}
        with dsl.If(evaluated.outputs["Output"] == True, name="accepted"):  # noqa: E712
            exported = _add(steps.export, parameters, **tested)
            _add(steps.register, parameters, **tested, package=exported.outputs["package"])


def _add(step: BaseComponent, parameters: Parameters, **inputs: Any) -> PipelineTask:
    """Add a step to the graph, with its `inputs` and the parameters that it accepts, and configure its pod."""
    task = step(**inputs, **_accepted_by(step, parameters))
    configure_pod(task, parameters)
    return task


def _accepted_by(step: BaseComponent, parameters: Parameters) -> Parameters:
    """Return those of the parameters that are inputs of a step."""
    return {name: parameters[name] for name in step.component_spec.inputs if name in parameters}


def configure_pod(task: PipelineTask, parameters: Parameters) -> None:
    """Configure how a step runs in a cluster: resources, retries, labels, user, S3 access and, if it trains, GPUs.

    Many installations never retry a step that failed, so steps retry by themselves; these retries come on top.
    """
    name = task.component_spec.name
    _set_resources(task, RESOURCES.get(name) or _training_resources(parameters))
    task.set_retry(num_retries=2, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="600s")
    kubernetes.add_pod_label(task, "app.kubernetes.io/part-of", "torch2kubeflow")
    kubernetes.add_pod_label(task, STEP_LABEL, name)
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    kubernetes.set_image_pull_policy(task, "IfNotPresent")
    # Variables, since a step is cached by its inputs.
    kubernetes.use_field_path_as_env(task, "RUN_ID", "metadata.labels['pipeline/runid']")
    task.set_env_variable("STEP_IMAGE", task.container_spec.image)
    # A step refuses to run other code than that from which the pipeline was compiled.
    task.set_env_variable("CODE_VERSION", code_version())
    task.set_env_variable("CODE_DIGEST", code_digest(f"components.{name.replace('-', '_')}"))
    _give_s3_access(task, parameters)
    if name not in RESOURCES:
        _set_gpus(task, parameters)


def _set_resources(task: PipelineTask, resources: Resources) -> None:
    cpu, memory, seconds = resources
    task.set_cpu_request(cpu[0]).set_cpu_limit(cpu[1])
    task.set_memory_request(memory[0]).set_memory_limit(memory[1])
    # KFP does not pass the parameters of resources into a group by itself.
    task.register_pipeline_channels([c for c in (*cpu, *memory) if isinstance(c, PipelineParameterChannel)])
    kubernetes.set_timeout(task, seconds)


def _training_resources(parameters: Parameters) -> Resources:
    cpu, memory = parameters["train_cpu"], parameters["train_memory"]
    return Resources((cpu, cpu), (memory, memory), 72 * HOUR)


def _set_gpus(task: PipelineTask, parameters: Parameters) -> None:
    """Ask for GPUs and the nodes that have them, and for shared memory of more than the 64 MiB of a pod."""
    gpus, resource = parameters["gpus"], parameters["gpu_resource"]
    task.set_accelerator_type(resource).set_accelerator_limit(gpus)
    task.register_pipeline_channels([gpus, resource])
    kubernetes.add_node_selector_json(task, parameters["node_selector"])
    kubernetes.add_toleration_json(task, parameters["tolerations"])
    kubernetes.empty_dir_mount(task, volume_name="dshm", mount_path="/dev/shm", medium="Memory", size_limit="1Gi")


def _give_s3_access(task: PipelineTask, parameters: Parameters) -> None:
    """Set the variables for the store and, prefixed by SOURCE_, for the data, from the Secrets and the ConfigMap."""
    secret, config, source = (parameters[name] for name in ("s3_secret", "s3_config", "source_secret"))
    kubernetes.use_secret_as_env(task, secret, {name: name for name in S3_KEYS}, optional=True)
    kubernetes.use_config_map_as_env(task, config, {name: name for name in S3_SETTINGS}, optional=True)
    kubernetes.use_config_map_as_volume(task, config, mount_path=S3_FILES, optional=True)
    names = S3_KEYS + S3_SETTINGS
    kubernetes.use_secret_as_env(task, source, {name: f"SOURCE_{name}" for name in names}, optional=True)


def _pipeline(
    name: str,
    description: str,
    train: Train,
    *declared: Callable[..., None],
) -> BaseComponent:
    """Return the pipeline torch2kubeflow-`name`, with the parameters of the functions `declared`, described as there.

    The graphs share most parameters. KFP reads them from the signature and docstring of the function that makes the
    graph, so both are composed here; it then calls that function with all parameters in order.
    """
    parameters = [one for part in declared for one in inspect.signature(part).parameters.values()]

    def graph(*values: Any) -> None:
        _flow(name, dict(zip([one.name for one in parameters], values, strict=True)), train)

    graph.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    described = [str(inspect.getdoc(part)).partition("Args:")[2] for part in declared]
    graph.__doc__ = f"{description}\n\nArgs:{''.join(described)}"
    pipeline: BaseComponent = dsl.pipeline(name=f"torch2kubeflow-{name}", description=description)(graph)
    return pipeline


training = _pipeline("training", "From images to an evaluated, exported classifier.", _train, shared_parameters)
sweep = _pipeline(
    "sweep", "The best of several trainings, evaluated and exported.", _search, shared_parameters, sweep_parameters
)
distributed = _pipeline(
    "distributed", "A classifier trained on many nodes by Kubeflow Trainer.", _submit, shared_parameters
)
GRAPHS = {"training": training, "sweep": sweep, "distributed": distributed}  # by their names for `--graph`


if __name__ == "__main__":
    from runner.cli import main

    main(GRAPHS)
