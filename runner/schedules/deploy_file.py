"""The file that says what should be deployed: a pipeline's parameters and schedules, read and checked whole."""

import json
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components.shared.core.errors import UserError
from runner.schedules.cron import Schedule, parse
from runner.schedules.recurring import AT_ONCE

# What a key's value is, and how that is told.
Kind = tuple[type, str]
TEXT: Kind = (str, "a text")
FLAG: Kind = (bool, "true or false")
MAPPING: Kind = (dict, "a mapping")
NUMBER: Kind = (int, f"a whole number from 1 to {AT_ONCE}")
TOP = {"pipeline": TEXT, "namespace": TEXT, "parameters": MAPPING, "schedules": MAPPING}
PLAN = {
    "when": TEXT,
    "parameters": MAPPING,
    "follow_latest": FLAG,
    "enabled": FLAG,
    "catch_up": FLAG,
    "max_concurrency": NUMBER,
}


@dataclass(frozen=True)
class Plan:
    """A recurring run that should be there."""

    name: str
    schedule: Schedule
    words: list[str]  # its parameters, as `name=value`
    follow_latest: bool
    enabled: bool
    catch_up: bool
    max_concurrency: int


@dataclass(frozen=True)
class Deployment:
    """What the file says."""

    pipeline: str
    namespace: str | None
    plans: list[Plan]


class _Loader(yaml.SafeLoader):
    """YAML without a key given twice, of which PyYAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read(path: Path) -> Deployment:
    """The deployment in a file; UserError naming the first key or value that is wrong."""
    try:
        document = yaml.load(path.read_text(), _Loader)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give another file with -f") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no YAML: {error}") from None
    _check(document, TOP, {"pipeline"}, str(path))
    common = document.get("parameters", {})
    plans = document.get("schedules", {})
    return Deployment(
        pipeline=document["pipeline"],
        namespace=document.get("namespace"),
        plans=[_plan(name, plan, common, f"{path}: schedules.{name}") for name, plan in plans.items()],
    )


def _plan(name: str, plan: Any, common: dict[str, Any], place: str) -> Plan:
    _check(plan, PLAN, {"when"}, place)
    try:
        schedule = parse(plan["when"])
    except UserError as error:
        raise UserError(f"{place}.when: {error}") from None
    most = plan.get("max_concurrency", 1)
    if not 1 <= most <= AT_ONCE:
        raise UserError(f"{place}.max_concurrency: {most} is not accepted; give {NUMBER[1]}")
    parameters = {**common, **plan.get("parameters", {})}
    return Plan(
        name=str(name),
        schedule=schedule,
        words=[_word(key, value, place) for key, value in parameters.items()],
        follow_latest=plan.get("follow_latest", False),
        enabled=plan.get("enabled", True),
        catch_up=plan.get("catch_up", False),
        max_concurrency=most,
    )


def _check(document: Any, keys: dict[str, Kind], required: set[str], place: str) -> None:
    """Refuse what is no mapping, an unknown or missing key, and a value of the wrong type."""
    if not isinstance(document, dict):
        raise UserError(f"{place} is no mapping; give {', '.join(keys)}")
    for key, value in document.items():
        if key not in keys:
            raise UserError(f"{place}: unknown key {key!r}; give {', '.join(keys)}")
        kind, accepted = keys[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise UserError(f"{place}.{key}: {value!r} is not accepted; give {accepted}")
    if missing := required - document.keys():
        raise UserError(f"{place}: {', '.join(missing)} is missing; add it")


def _word(name: Any, value: Any, place: str) -> str:
    """The parameter as it is typed on the command line, where its type is checked."""
    if value is None:
        raise UserError(f"{place}: parameter {name} has no value; give one, or leave it out")
    return f"{name}={value if isinstance(value, str) else json.dumps(value, default=str)}"
