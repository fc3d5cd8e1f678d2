"""The parameters of the pods in a cluster, which Kubernetes reads and no step."""

from typing import Annotated, Any

from components.shared.parameters.recipe import Accepts, Recipe, fitting, matching, parameter

TOLERATION: dict[str, tuple[str, ...]] = {  # key -> the values that Kubernetes accepts; empty if any
    "key": (),
    "operator": ("Exists", "Equal"),
    "value": (),
    "effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
    "tolerationSeconds": (),
}
Name = Annotated[
    str,
    matching(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"),
    Accepts("a Kubernetes name: lower-case letters, digits, - and ."),
]


def _are_labels(value: Any) -> bool:
    return all(isinstance(item, str) for pair in value.items() for item in pair)


def _are_tolerations(value: Any) -> bool:
    return all(isinstance(item, dict) and _is_toleration(item) for item in value)


def _is_toleration(item: dict[str, Any]) -> bool:
    return all(
        name in TOLERATION and (not TOLERATION[name] or value in TOLERATION[name]) for name, value in item.items()
    )


class Pods(Recipe):
    """The resources and the nodes of the pods that train, and the Secrets of all."""

    gpu_resource: Annotated[
        str, matching(r"[a-z0-9.-]+/[A-Za-z0-9._-]+"), Accepts("a Kubernetes resource such as nvidia.com/gpu")
    ] = parameter("nvidia.com/gpu", "Kubernetes' name of the GPU resource, such as nvidia.com/gpu or amd.com/gpu.")
    node_selector: Annotated[
        dict[str, Any], fitting(_are_labels), Accepts('an object of labels such as {"disk": "ssd"}')
    ] = parameter({}, 'Labels of the nodes to train on, such as {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}.')
    tolerations: Annotated[
        list[Any],
        fitting(_are_tolerations),
        Accepts(f"a list of objects with {', '.join(TOLERATION)} as Kubernetes knows them"),
    ] = parameter(
        [], 'Taints that the training pod tolerates, such as [{"key": "nvidia.com/gpu", "operator": "Exists"}].'
    )
    train_cpu: Annotated[
        str,
        matching(r"(?=.*[1-9])([0-9]+m|[0-9]+(\.[0-9]+)?)"),
        Accepts("a Kubernetes quantity such as 2, 0.5 or 500m"),
    ] = parameter("2", "CPUs of the training pod, in a cluster.")
    train_memory: Annotated[
        str,
        matching(r"(?=.*[1-9])[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?"),
        Accepts("a Kubernetes quantity such as 16Gi"),
    ] = parameter("4Gi", "Memory of the training pod, in a cluster.")
    s3_secret: Name = parameter(
        "torch2kubeflow-s3",
        "Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; without it, the pod's own identity is used.",
    )
    s3_config: Name = parameter(
        "torch2kubeflow-s3",
        "ConfigMap with AWS_ENDPOINT_URL_S3, AWS_REGION and, for an authority of your own, ca.crt; all may be absent.",
    )
    source_secret: Name = parameter(
        "torch2kubeflow-source", "Secret with the same names, for a data source in another S3."
    )
