"""How a step's pod runs in a cluster: resources, retries, labels, user, access to S3 and, if it trains, GPUs."""

from typing import Any, NamedTuple, TypeAlias

from kfp import kubernetes
from kfp.dsl import PipelineTask
from kfp.dsl.pipeline_channel import PipelineParameterChannel

from components.shared.core.workflow import RUN_LABEL
from components.shared.storage.endpoint import MOUNTED_AUTHORITY
from components.step_table import STEP_LABEL

USER = 65532  # who owns the processes in our images
MINUTE, HOUR = 60, 3600
S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
S3_SETTINGS = ("AWS_ENDPOINT_URL_S3", "AWS_REGION")
READ_THE_SOURCE = ("resolve", "resolve-prediction", "download", "preprocess", "partition", "prepare")
# For the labels of the job, for a version's provenance, and for who started a training run.
KNOW_THEIR_RUN = ("train-distributed", "register", "collect")

Text: TypeAlias = str | PipelineParameterChannel
Inputs: TypeAlias = dict[str, Any]  # of a pipeline


class Resources(NamedTuple):
    """What a step's pod gets: CPUs and memory, as request and limit, and the seconds after which it is ended.

    Without a request, Kubernetes requests as much as the limit.
    """

    cpu: tuple[Text, Text]
    memory: tuple[Text, Text]
    seconds: int


def configure_pod(task: PipelineTask, inputs: Inputs, resources: Resources | None) -> None:
    """Configure how a step runs, by the pipeline's inputs; those that train have no fixed `resources`.

    Many installations never retry a step that failed, so steps retry by themselves; these retries come on top.
    """
    name = task.component_spec.name
    _set_resources(task, resources or _training_resources(inputs))
    task.set_retry(num_retries=2, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="600s")
    kubernetes.add_pod_label(task, "app.kubernetes.io/part-of", "torch2kubeflow")
    kubernetes.add_pod_label(task, STEP_LABEL, name)
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    if name in KNOW_THEIR_RUN:  # by a variable, since a step is cached by its inputs
        kubernetes.use_field_path_as_env(task, "RUN_ID", f"metadata.labels['{RUN_LABEL}']")
    _give_store_access(task, inputs)
    if name in READ_THE_SOURCE:
        _give_source_access(task, inputs)
    if not resources:
        _set_gpus(task, inputs)
    if name == "train-distributed":  # for the pods of its job, too
        kubernetes.use_field_path_as_env(task, "SERVICE_ACCOUNT", "spec.serviceAccountName")


def _training_resources(inputs: Inputs) -> Resources:
    cpu, memory = inputs["train_cpu"], inputs["train_memory"]
    return Resources(("", cpu), ("", memory), 72 * HOUR)


def _set_resources(task: PipelineTask, resources: Resources) -> None:
    cpu, memory, seconds = resources
    task.set_cpu_limit(cpu[1]).set_memory_limit(memory[1])
    if cpu[0] and memory[0]:
        task.set_cpu_request(cpu[0]).set_memory_request(memory[0])
    # KFP does not pass the parameters of resources into a group by itself.
    task.register_pipeline_channels([c for c in (*cpu, *memory) if isinstance(c, PipelineParameterChannel)])
    kubernetes.set_timeout(task, seconds)


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
