"""The deploy file: a pipeline, its parameters and schedules, read and checked."""

import json
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components.shared.core.errors import UserError
from runner.schedules.cron import Schedule, parse
from runner.verbs.options import MAX_CONCURRENCY

# The type of a key's value, and its name in errors.
Kind = tuple[type, str]
TEXT: Kind = (str, "a text")
FLAG: Kind = (bool, "true or false")
MAPPING: Kind = (dict, "a mapping")
NUMBER: Kind = (int, f"a whole number from 1 to {MAX_CONCURRENCY}")
TOP_KEYS = {"pipeline": TEXT, "namespace": TEXT, "parameters": MAPPING, "schedules": MAPPING}
SCHEDULE_KEYS = {
    "when": TEXT,
    "parameters": MAPPING,
    "follow_latest": FLAG,
    "enabled": FLAG,
    "catch_up": FLAG,
    "max_concurrency": NUMBER,
}


@dataclass(frozen=True)
class ScheduleSpec:
    """A recurring run as the file describes it."""

    name: str
    schedule: Schedule
    words: list[str]  # its parameters, as `name=value`
    follow_latest: bool
    enabled: bool
    catch_up: bool
    max_concurrency: int


@dataclass(frozen=True)
class Deployment:
    """The content of the file."""

    pipeline: str
    namespace: str | None
    schedules: list[ScheduleSpec]


class _Loader(yaml.SafeLoader):
    """A YAML loader that refuses duplicate keys, of which PyYAML would use the last, and anchors and aliases.

    With aliases of aliases, a file of a few hundred bytes would become gigabytes.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.NodeEvent) and event.anchor:
            sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
            place = f"{sign}{event.anchor} in line {event.start_mark.line + 1}" if event.start_mark else sign
            raise yaml.composer.ComposerError(None, None, f"{place}: anchors and aliases are not accepted", None)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read(path: Path) -> Deployment:
    """Return the deployment in a file. Raises UserError, which names the first wrong key or value."""
    try:
        document = yaml.load(path.read_text(), _Loader)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})", "give another file with -f") from None
    except yaml.composer.ComposerError as error:
        raise UserError(f"{path}: {error}", "write the value where it is used") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no UTF-8, or no such date
        raise UserError(f"{path} is not valid YAML: {error}", "correct it") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deep", "correct it") from None
    _check(document, TOP_KEYS, {"pipeline"}, str(path))
    common = document.get("parameters", {})
    return Deployment(
        pipeline=document["pipeline"],
        namespace=document.get("namespace"),
        schedules=[
            _schedule(name, keys, common, f"{path}: schedules.{name}")
            for name, keys in document.get("schedules", {}).items()
        ],
    )


def _schedule(name: str, keys: Any, common: dict[str, Any], where: str) -> ScheduleSpec:
    _check(keys, SCHEDULE_KEYS, {"when"}, where)
    try:
        schedule = parse(keys["when"])
    except UserError as error:
        raise UserError(f"{where}.when: {error.message}", error.remedy) from None
    max_concurrency = keys.get("max_concurrency", 1)
    if not 1 <= max_concurrency <= MAX_CONCURRENCY:
        raise UserError(f"{where}.max_concurrency: {max_concurrency} is not accepted", f"give {NUMBER[1]}")
    parameters = {**common, **keys.get("parameters", {})}
    return ScheduleSpec(
        name=str(name),
        schedule=schedule,
        words=[_word(key, value, where) for key, value in parameters.items()],
        follow_latest=keys.get("follow_latest", False),
        enabled=keys.get("enabled", True),
        catch_up=keys.get("catch_up", False),
        max_concurrency=max_concurrency,
    )


def _check(document: Any, keys: dict[str, Kind], required: set[str], where: str) -> None:
    """Raise UserError if a document is no mapping, lacks a key, or has an unknown key or a value of the wrong type."""
    if not isinstance(document, dict):
        raise UserError(f"{where} is not a mapping", f"give {', '.join(keys)}")
    for key, value in document.items():
        if key not in keys:
            raise UserError(f"{where}: unknown key {key!r}", f"give {', '.join(keys)}")
        kind, accepted = keys[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise UserError(f"{where}.{key}: {value!r} is not accepted", f"give {accepted}")
    if missing := required - document.keys():
        raise UserError(f"{where}: {', '.join(missing)} is missing", "add it")


def _word(name: Any, value: Any, where: str) -> str:
    """Return the parameter as on the command line, where its type is checked."""
    if value is None:
        raise UserError(f"{where}: parameter {name} has no value", "give one, or leave it out")
    return f"{name}={value if isinstance(value, str) else json.dumps(value, default=str)}"
