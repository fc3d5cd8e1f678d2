"""What each parameter of the pipeline may be: the rules that the command line and the steps share."""

import math
import re
from collections.abc import Callable
from typing import Any

from components.shared.core.errors import UserError
from components.shared.core.schema import one_of
from components.shared.data.sources import schemes
from components.shared.models import catalogue
from components.shared.storage.endpoint import parse_uri

ACTIVATIONS = ("sigmoid", "tanh", "relu", "leaky_relu", "leaky_clipped")
POOLINGS = ("max", "avg", "rms")
TOLERATION: dict[str, tuple[str, ...]] = {  # key -> the values that Kubernetes knows; empty where any will do
    "key": (),
    "operator": ("Exists", "Equal"),
    "value": (),
    "effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
    "tolerationSeconds": (),
}
OPTIMIZERS = ("sgd", "adamw", "muon")
SCHEDULES = ("one_cycle", "cosine")
STOPPINGS = ("none", "asha")
PRECISIONS = ("auto", "float32", "bfloat16")
SWEEP = "sweep"  # the graph that searches for the best settings
DISTRIBUTED = "distributed"  # the graph that trains on several machines

Rule = tuple[Callable[[Any], bool], str]


def _between(low: float, high: float) -> Rule:
    return (lambda value: low <= value <= high), f"from {low:g} to {high:g}"


def _at_least(low: int) -> Rule:
    return (lambda value: value >= low), f"{low} or more"


def _choice(names: tuple[str, ...]) -> Rule:
    return one_of(*names), f"one of {', '.join(names)}"


def _matching(pattern: str, accepted: str) -> Rule:
    return (lambda value: re.fullmatch(pattern, value) is not None), accepted


def _is_store(value: str) -> bool:
    if value:
        parse_uri(value)
    return True


def _is_pretrained(value: str) -> bool:
    place, _, fragment = value.partition("#")
    if place.startswith("s3://"):
        parse_uri(place)
    known = not fragment or re.fullmatch("sha256=[0-9a-f]{64}", fragment) is not None
    return known and (place.startswith("s3://") or "://" not in place) and (place != "" or not fragment)


def _is_network(value: str) -> bool:
    catalogue.check_name(value)
    return True


def _are_labels(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for pair in value.items() for item in pair)


def _are_tolerations(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) and _is_toleration(item) for item in value)


def _are_settings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _is_toleration(item: dict[str, Any]) -> bool:
    return all(
        name in TOLERATION and (not TOLERATION[name] or value in TOLERATION[name]) for name, value in item.items()
    )


_NAME = _matching(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", "a Kubernetes name: small letters, digits, - and .")
_FRACTION: Rule = (lambda value: 0 < value < 1), "above 0 and below 1"

RULES: dict[str, Rule] = {
    "data": (schemes.is_accepted, schemes.accepted()),
    "image_size": _between(8, 4096),
    "val_fraction": _FRACTION,
    "test_fraction": _FRACTION,
    "max_bad_images": _at_least(0),
    "network": (_is_network, "a network's name"),
    "activation": _choice((*ACTIVATIONS, catalogue.DEFAULT)),
    "pooling": _choice((*POOLINGS, catalogue.DEFAULT)),
    "pretrained": (_is_pretrained, "s3://bucket/... or a path, with #sha256=... behind it if its digest is known"),
    "frozen_stages": _between(0, 1000),
    "optimizer": _choice(OPTIMIZERS),
    "schedule": _choice(SCHEDULES),
    "learning_rate": ((lambda value: value > 0), "above 0"),
    "weight_decay": _between(0, 1),
    "batch_size": ((lambda value: re.fullmatch("auto|[1-9][0-9]{0,8}", str(value)) is not None), "1 or more, or auto"),
    "accumulate": _between(1, 100_000),
    "clip_norm": _between(0, 1e6),
    "epochs": _at_least(1),
    "label_smoothing": ((lambda value: 0 <= value < 1), "0 or more and below 1"),
    "rotation": _between(0, 180),
    "shift": _between(0, 4096),
    "scale": ((lambda value: 0 <= value < 1), "0 or more and below 1"),
    "shear": _between(0, 2),
    "mixup": _between(0, 100),
    "cutmix": _between(0, 100),
    "ema_decay": ((lambda value: 0 <= value < 1), "0 or more and below 1"),
    "patience": _at_least(0),
    "precision": _choice(PRECISIONS),
    "min_accuracy": _between(0, 1),
    "min_recall": _between(0, 1),
    "seed": _between(0, 2**31 - 1),
    "threads": _between(0, 1024),
    "store": (_is_store, "s3://bucket or s3://bucket/prefix"),
    "model_name": _matching(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?", "small letters, digits and -, up to 63"),
    "significance": _between(0, 1),
    "checkpoint_seconds": _at_least(1),
    "handover_mib": _at_least(0),
    "nodes": _between(1, 1000),
    "gpus": _matching(r"[0-9]|[1-9][0-9]", "a whole number from 0 to 99"),
    "gpu_resource": _matching(r"[a-z0-9.-]+/[A-Za-z0-9._-]+", "a Kubernetes resource such as nvidia.com/gpu"),
    "node_selector": (_are_labels, 'an object of labels such as {"disk": "ssd"}'),
    "tolerations": (_are_tolerations, f"a list of objects with {', '.join(TOLERATION)} as Kubernetes knows them"),
    "train_cpu": _matching(r"(?=.*[1-9])([0-9]+m|[0-9]+(\.[0-9]+)?)", "a Kubernetes quantity such as 2, 0.5 or 500m"),
    "train_memory": _matching(
        r"(?=.*[1-9])[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?", "a Kubernetes quantity such as 16Gi"
    ),
    "settings": (_are_settings, 'a list of objects such as [{"learning_rate": 0.01}, {"learning_rate": 0.03}]'),
    "stopping": _choice(STOPPINGS),
    "reduction": _between(2, 100),
    "first_rung": _at_least(1),
    "s3_secret": _NAME,
    "s3_config": _NAME,
    "source_secret": _NAME,
}


def check(**parameters: Any) -> None:
    """Refuse parameters outside their range, or that exclude each other, and a network that takes no such pictures.

    UserError with the parameter or the network, the value and what is accepted.
    """
    for name, value in parameters.items():
        accepts, accepted = RULES.get(name, (lambda _: True, ""))
        if (isinstance(value, float) and not math.isfinite(value)) or not accepts(value):
            raise UserError(f"{name}={value} is not accepted; give {accepted or 'a finite number'}")
    mixup, cutmix = parameters.get("mixup"), parameters.get("cutmix")
    if mixup and cutmix:
        raise UserError(f"mixup={mixup} and cutmix={cutmix} exclude each other; set one of them to 0")
    if {"network", "image_size"} <= parameters.keys():
        catalogue.check(parameters["network"], parameters["image_size"])
    if {"graph", "nodes", "store"} <= parameters.keys():
        _check_nodes(parameters["graph"], parameters["nodes"], parameters["store"])


def _check_nodes(graph: str, nodes: int, store: str) -> None:
    if graph != DISTRIBUTED and nodes > 1:
        raise UserError(f"nodes={nodes} is more than graph {graph} trains on; give --graph {DISTRIBUTED}, or nodes=1")
    if graph == DISTRIBUTED and not store:
        raise UserError(
            "store= is empty, by which nodes get the data and hand over the model; give store=s3://bucket/prefix"
        )
