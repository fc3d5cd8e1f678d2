"""The manifest of a TrainJob: our image on several nodes, with what KFP would have given to the step's own pod."""

from typing import Any, NamedTuple, Protocol

from components.shared.core.workflow import RUN_LABEL

READS = ("components.entrypoints.trainjob_worker",)
(WORKER,) = READS  # runs on the nodes

GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
RUNTIME, RUNTIMES = "torch2kubeflow", "trainingruntimes"
RUNTIME_MANIFESTS = "manifests/trainer"  # the folder that kubectl applies
NODE = "node"  # the runtime's name for its job and its container
LABELS = {"app.kubernetes.io/part-of": "torch2kubeflow"}
RESTARTS = 3  # of the processes in a pod, before the pod fails


class TaskConfig(Protocol):
    """What KFP would have given to a step's pod, as `kfp.dsl.TaskConfig`; all None on this machine."""

    resources: dict[str, Any] | None
    node_selector: dict[str, str] | None
    tolerations: list[dict[str, Any]] | None
    env: list[dict[str, Any]] | None
    volumes: list[dict[str, Any]] | None
    volume_mounts: list[dict[str, Any]] | None


class JobSpec(NamedTuple):
    """The work of a job's nodes: `processes` each, on the task in the store at `uri`, for a run of the pipeline."""

    uri: str
    nodes: int
    processes: int  # of each node
    run_id: str
    image: str
    service_account: str

    def command(self, python: str, *options: str) -> list[str]:
        """Return the command of each node; torchrun finds the other nodes by the variables that Trainer sets."""
        torchrun = [python, "-m", "torch.distributed.run", *options, "--max-restarts", str(RESTARTS)]
        return [*torchrun, "-m", WORKER, self.uri]


def manifest(name: str, spec: JobSpec, config: TaskConfig) -> dict[str, Any]:
    """Return the TrainJob as the Kubernetes API takes it."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {"name": name, "labels": {**LABELS, RUN_LABEL: spec.run_id}},
        "spec": {
            "runtimeRef": {"name": RUNTIME, "kind": "TrainingRuntime"},
            "trainer": {
                "image": spec.image,
                "command": spec.command("python3", "--nproc-per-node", str(spec.processes)),
                "numNodes": spec.nodes,
                "resourcesPerNode": config.resources or {},
                "env": _variables(spec, config),
            },
            "runtimePatches": [_runtime_patch(spec, config)],
        },
    }


def _variables(spec: JobSpec, config: TaskConfig) -> list[dict[str, Any]]:
    variables = [variable for variable in config.env or [] if variable["name"] not in ("RUN_ID", "STEP_IMAGE")]
    return [*variables, {"name": "RUN_ID", "value": spec.run_id}, {"name": "STEP_IMAGE", "value": spec.image}]


def _runtime_patch(spec: JobSpec, config: TaskConfig) -> dict[str, Any]:
    volumes = [volume for volume in config.volumes or [] if "emptyDir" not in volume]  # the runtime has its own
    names = {volume["name"] for volume in volumes}
    mounts = [mount for mount in config.volume_mounts or [] if mount["name"] in names]
    pod = {
        "serviceAccountName": spec.service_account,
        "nodeSelector": config.node_selector or {},
        "tolerations": config.tolerations or [],
        "volumes": volumes,
        "containers": [{"name": NODE, "volumeMounts": mounts}],
    }
    job = {"name": NODE, "template": {"spec": {"template": {"spec": pod}}}}
    patch = {"template": {"spec": {"replicatedJobs": [job]}}}
    return {"manager": "torch2kubeflow/train-distributed", "trainingRuntimeSpec": patch}
