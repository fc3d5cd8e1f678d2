"""The formats of the registry's documents: the rules of their fields, and a reader that holds them to these."""

from collections.abc import Mapping
from typing import Any

from components.shared.core.errors import raise_as_corrupt
from components.shared.core.files import Document, parse_json
from components.shared.core.schema import (
    Rule,
    are_names,
    check_fields,
    has,
    is_count,
    is_fingerprint,
    is_list,
    is_map,
    is_number,
    is_sha256,
    is_share,
    is_text,
    is_time,
    one_of,
)
from components.shared.evaluation.exported_model import IS_TENSOR

REGISTRY_FORMAT = "torch2kubeflow/register"
VERSION_FORMAT = "torch2kubeflow/version"
REMEDIES = {
    REGISTRY_FORMAT: "restore it from a backup, or delete it and register the packages again",
    VERSION_FORMAT: "register its package again",
}


def parse_document(content: bytes, document_format: str, uri: str) -> Document:
    """Return a document of the store. Raises CorruptDataError if it has another format or a field breaks its rule."""
    with raise_as_corrupt():
        document = parse_json(content, document_format, uri)
        check_fields(document, _FIELDS[document_format], uri, REMEDIES[document_format])
    return document


def _or_none(rule: Rule) -> Rule:
    return lambda value: value is None or rule(value)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _are_versions(value: Any) -> bool:
    """Return whether versions are numbered without gaps, each with a package of its own."""
    if not is_list(value, _IS_ENTRY):
        return False
    packages = {entry["package_digest"] for entry in value}
    return len(packages) == len(value) and [entry["version"] for entry in value] == list(range(1, len(value) + 1))


def _is_champion(champion: Any, versions: list[Document]) -> bool:
    if champion is None:
        return True
    return is_count(champion) and 1 <= champion <= len(versions) and versions[champion - 1]["state"] == "complete"


_IS_ENTRY = has(
    version=is_count,
    package_digest=is_sha256,
    created=is_time,
    state=one_of("claimed", "complete", "pruning", "pruned"),
    accuracy=is_share,
    images=is_count,
    test_split_digest=is_sha256,
    model_digest=is_sha256,
    run_id=is_text,
)
_ARE_FIGURES = has(
    champion=is_count,
    champion_accuracy=is_share,
    challenger_accuracy=is_share,
    images=is_count,
    n01=is_count,
    n10=is_count,
    p_value=is_share,
    significance=is_share,
    rescored=lambda value: isinstance(value, bool),
    decided_before=is_count,
)
_IS_DECISION = has(
    time=is_time,
    action=one_of("register", "promote", "rollback"),
    version=is_count,
    champion_before=_or_none(is_count),
    champion_after=_or_none(is_count),
    test_split_digest=is_sha256,
    figures=_or_none(_ARE_FIGURES),
    reason=is_text,
)
_IS_PROVENANCE = has(
    data=has(name=is_text, source=is_text, raw_digest=is_text, parameters=_is_object),
    dataset_digest=is_sha256,
    test_split_digest=is_sha256,
    model_digest=is_sha256,
    parameters=_is_object,
    seed=is_count,
    threads=is_count,
    torch=is_text,
    device=is_text,
    code_version=is_text,
    revision=is_text,
    image=is_text,
    run_id=is_text,
    time=is_time,
)

# In this order: each rule may rely on those above it.
_FIELDS: Mapping[str, dict[str, Rule]] = {
    REGISTRY_FORMAT: {
        "name": lambda d: is_text(d["name"]),
        "versions": lambda d: _are_versions(d["versions"]),
        "champion": lambda d: _is_champion(d["champion"], d["versions"]),
        "decisions": lambda d: is_list(d["decisions"], _IS_DECISION),
    },
    VERSION_FORMAT: {
        "name": lambda d: is_text(d["name"]),
        "version": lambda d: is_count(d["version"]),
        "package_digest": lambda d: is_sha256(d["package_digest"]),
        "created": lambda d: is_time(d["created"]),
        "files": lambda d: is_map(d["files"], is_fingerprint),
        "metrics": lambda d: is_map(d["metrics"], is_number),
        "classes": lambda d: are_names(d["classes"]),
        "input": lambda d: IS_TENSOR(d["input"]),
        "output": lambda d: IS_TENSOR(d["output"]),
        "provenance": lambda d: _IS_PROVENANCE(d["provenance"]),
    },
}
