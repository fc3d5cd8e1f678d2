"""The values that each parameter of the pipeline accepts, for the command line and the steps."""

import math
import re
from collections.abc import Callable
from typing import Any

from components.shared.core.errors import UserError
from components.shared.core.schema import is_text, one_of
from components.shared.data.sources import schemes
from components.shared.models import catalogue
from components.shared.storage.endpoint import parse_uri

ACTIVATIONS = ("sigmoid", "tanh", "relu", "leaky_relu", "leaky_clipped")
POOLINGS = ("max", "avg", "rms")
TOLERATION: dict[str, tuple[str, ...]] = {  # key -> the values that Kubernetes accepts; empty if any
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

Rule = tuple[Callable[[Any], bool], str]  # whether a value is accepted, and what is


def _between(low: float, high: float) -> Rule:
    return (lambda value: low <= value <= high), f"a number from {low:,} to {high:,}"


def _at_least(low: int) -> Rule:
    return (lambda value: value >= low), f"{low} or more"


def _choice(names: tuple[str, ...]) -> Rule:
    return one_of(*names), f"one of {', '.join(names)}"


def _matching(pattern: str, accepted: str) -> Rule:
    return (lambda value: re.fullmatch(pattern, value) is not None), accepted


def _is_store(value: str) -> bool:
    return value == "" or _is_s3_uri(value)


def _is_s3_uri(value: str) -> bool:
    try:
        parse_uri(value)
    except UserError:
        return False
    return True


def _is_pretrained(value: str) -> bool:
    location, _, digest = value.partition("#")
    if digest and (not location or not re.fullmatch("sha256=[0-9a-f]{64}", digest)):
        return False
    return "://" not in location or _is_s3_uri(location)


def _are_labels(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for pair in value.items() for item in pair)


def _are_tolerations(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) and _is_toleration(item) for item in value)


def _is_toleration(item: dict[str, Any]) -> bool:
    return all(
        name in TOLERATION and (not TOLERATION[name] or value in TOLERATION[name]) for name, value in item.items()
    )


def _are_settings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


_TEXT: Rule = is_text, "a text"
_BOOLEAN: Rule = (lambda value: isinstance(value, bool)), "true or false"
_NAME = _matching(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", "a Kubernetes name: lower-case letters, digits, - and .")
_FRACTION: Rule = (lambda value: 0 < value < 1), "a number above 0 and below 1"
_BELOW_ONE: Rule = (lambda value: 0 <= value < 1), "a number from 0 to below 1"

RULES: dict[str, Rule] = {
    "graph": _TEXT,  # pipeline.py knows the graphs
    "data": (schemes.is_accepted, schemes.accepted()),
    "image_size": _between(8, 4096),
    "val_fraction": _FRACTION,
    "test_fraction": _FRACTION,
    "max_bad_images": _at_least(0),
    "network": _TEXT,  # check() names the networks
    "activation": _choice((*ACTIVATIONS, catalogue.DEFAULT)),
    "pooling": _choice((*POOLINGS, catalogue.DEFAULT)),
    "bias": _BOOLEAN,
    "pretrained": (_is_pretrained, "s3://bucket/... or a path, followed by #sha256=... if its digest is known"),
    "frozen_stages": _between(0, 1000),
    "optimizer": _choice(OPTIMIZERS),
    "schedule": _choice(SCHEDULES),
    "learning_rate": ((lambda value: value > 0), "a number above 0"),
    "weight_decay": _between(0, 1),
    "batch_size": ((lambda value: re.fullmatch("auto|[1-9][0-9]{0,8}", str(value)) is not None), "1 or more, or auto"),
    "accumulate": _between(1, 100_000),
    "clip_norm": _between(0, 1_000_000),
    "epochs": _at_least(1),
    "label_smoothing": _BELOW_ONE,
    "rotation": _between(0, 180),
    "shift": _between(0, 4096),
    "scale": _BELOW_ONE,
    "shear": _between(0, 2),
    "flip": _BOOLEAN,
    "mixup": _between(0, 100),
    "cutmix": _between(0, 100),
    "ema_decay": _BELOW_ONE,
    "patience": _at_least(0),
    "precision": _choice(PRECISIONS),
    "torch_compile": _BOOLEAN,
    "deterministic": _BOOLEAN,
    "min_accuracy": _between(0, 1),
    "min_recall": _between(0, 1),
    "seed": _between(0, 2**31 - 1),
    "threads": _between(0, 1024),
    "store": (_is_store, "s3://bucket or s3://bucket/prefix"),
    "model_name": _matching(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?", "lower-case letters, digits and -, at most 63"),
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
    """Check the values of parameters, each by its rule, and those that depend on each other.

    Raises UserError with the parameter, its value and what is accepted.
    """
    for name, value in parameters.items():
        assert name in RULES, f"{name} is not a parameter of the pipeline"
        accepts, accepted = RULES[name]
        if (isinstance(value, float) and not math.isfinite(value)) or not accepts(value):
            raise UserError(f"{name}={value} is not accepted", f"give {accepted}")
    _check_together(parameters)


def _check_together(parameters: dict[str, Any]) -> None:
    """Apply the rules that concern several parameters, as far as these are given."""
    names = parameters.keys()
    if {"mixup", "cutmix"} <= names:
        _check_mixing(parameters["mixup"], parameters["cutmix"])
    if {"network", "image_size"} <= names:
        catalogue.check(parameters["network"], parameters["image_size"])
    elif "network" in names:
        catalogue.check_name(parameters["network"])
    if {"graph", "nodes", "store"} <= names:
        _check_nodes(parameters["graph"], parameters["nodes"], parameters["store"])


def _check_mixing(mixup: float, cutmix: float) -> None:
    if mixup and cutmix:
        raise UserError(f"mixup={mixup} and cutmix={cutmix} exclude each other", "set one of them to 0")


def _check_nodes(graph: str, nodes: int, store: str) -> None:
    if graph != DISTRIBUTED and nodes > 1:
        message = f"nodes={nodes} is more than graph {graph} trains on"
        raise UserError(message, f"give --graph {DISTRIBUTED}, or nodes=1")
    if graph == DISTRIBUTED and not store:
        message = f"store= is empty, but the nodes of graph {DISTRIBUTED} exchange data and model through it"
        raise UserError(message, "give store=s3://bucket/prefix")
