"""Requests to Kubeflow Pipelines' API and their answers, checked and written by the models of `kfp_server_api`."""

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from typing import Any

import kfp_server_api as api
import yaml

KINDS: dict[str, Any] = {"NUMBER_INTEGER": (int, float), "NUMBER_DOUBLE": (int, float), "STRING": str, "BOOLEAN": bool}
KINDS |= {"LIST": list, "STRUCT": dict}


class Refusal(Exception):
    """An error that the server answers: an HTTP status and a message."""

    def __init__(self, status: int, message: str, *, upload: bool = False, code: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.upload = status, message, upload
        self.code = code  # of gRPC, if it is not the one that stands for the status


@dataclass
class Request:
    """One request, as it arrived."""

    method: str
    path: str  # without the prefix of the API
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def to_json(value: Any) -> Any:
    """Return a model's JSON as protobuf writes it: no empty fields, 64-bit integers as text, times in UTC with a Z."""
    if isinstance(value, dict):
        return {name: to_json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    if not hasattr(value, "attribute_map"):
        return value
    pairs = {name: getattr(value, name) for name in value.openapi_types}
    return {value.attribute_map[name]: to_json(item) for name, item in pairs.items() if item is not None}


def parse(document: Any, model: str) -> Any:
    """Return the model in a request. Raises AssertionError if the client sends what the API does not know."""
    _validate(document, model, model)
    return api.ApiClient().deserialize(type("Response", (), {"data": json.dumps(document)}), model)


def _validate(value: Any, kind: str, place: str) -> None:
    if kind.startswith("dict("):
        assert isinstance(value, dict), f"{place} is no object: {value!r}"
    elif kind.startswith("list["):
        assert isinstance(value, list), f"{place} is no list: {value!r}"
        for item in value:
            _validate(item, kind[5:-1], place)
    elif kind in ("str", "datetime"):  # 64-bit integers are text to the API, which takes numbers too
        assert isinstance(value, str | int) and not isinstance(value, bool), f"{place} is no {kind}: {value!r}"
    elif kind in ("int", "bool"):
        assert type(value).__name__ == kind, f"{place} is no {kind}: {value!r}"
    elif kind != "object":
        _validate_model(value, getattr(api, kind), place)


def _validate_model(value: Any, model: Any, place: str) -> None:
    if allowed := getattr(model, "allowable_values", None):
        assert value in allowed, f"{place} is {value!r}, not one of {allowed}"
        return
    names = {key: name for name, key in model.attribute_map.items()}
    assert isinstance(value, dict) and value.keys() <= names.keys(), f"{place} has unknown fields: {value!r}"
    for key, item in value.items():
        if item is not None:
            _validate(item, model.openapi_types[names[key]], f"{place}.{key}")


def uploaded(request: Request) -> Any:
    """Return the pipeline in a multipart upload: one document, or its two halves by name."""
    message = message_from_bytes(b"Content-Type: " + request.headers["content-type"].encode() + b"\n\n" + request.body)
    parts = {part.get_param("name", header="content-disposition"): part for part in message.walk()}
    if "uploadfile" not in parts:
        raise Refusal(400, "Failed to read pipeline from file", upload=True)
    file = parts["uploadfile"]
    if not str(file.get_filename()).endswith((".yaml", ".yml")):  # nor an archive: by the sources of KFP
        raise Refusal(400, "Failed to read a pipeline spec file", upload=True)
    text: Any = file.get_payload(decode=True)
    try:
        documents = list(yaml.safe_load_all(text))
        assert documents[0]["pipelineInfo"]["name"] and documents[0]["root"]
    except (yaml.YAMLError, TypeError, KeyError, IndexError, AssertionError):
        raise Refusal(400, "Failed to create a pipeline: unknown template format", upload=True) from None
    if len(documents) == 1:
        return documents[0]
    return {"pipeline_spec": documents[0], "platform_spec": documents[1]}


def check_parameters(spec: Any, parameters: dict[str, Any]) -> None:
    known = spec.get("pipeline_spec", spec)["root"].get("inputDefinitions", {}).get("parameters", {})
    if extra := sorted(parameters.keys() - known.keys()):
        raise Refusal(400, f"parameter(s) provided are not required by pipeline: {', '.join(extra)}")
    for name, definition in known.items():
        if name not in parameters:
            if "defaultValue" not in definition and not definition.get("isOptional"):
                raise Refusal(400, f"input parameter {name} is required and was not provided")
            continue
        kinds, value = KINDS[definition["parameterType"]], parameters[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            raise Refusal(400, f"input parameter {name} requires type {definition['parameterType']}")


def matches(item: Any, text: str | None) -> bool:
    """Return whether an item passes a filter, which may only ask for equal or contained text."""
    for predicate in json.loads(text)["predicates"] if text else []:
        value = getattr(item, "display_name" if predicate["key"] == "name" else predicate["key"])
        wanted = predicate.get("stringValue", predicate.get("string_value"))
        operation = predicate["operation"]
        assert operation in (1, "EQUALS", 9, "IS_SUBSTRING"), f"the test server knows no operation {operation}"
        if not (value == wanted if operation in (1, "EQUALS") else wanted in value):
            return False
    return True


def denied(user: str, namespace: str | None, resource: str) -> str:
    """Return the message about a user who may not list something in a namespace."""
    what = f"Namespace:{namespace},Verb:list,Group:pipelines.kubeflow.org,Version:v1beta1,Resource:{resource}"
    rest = "Subresource:,Name:,FieldSelector:nil,LabelSelector:nil,"
    review = f"with reason:  (request: &ResourceAttributes{{{what},{rest}}}): Unauthorized access"
    return f"PermissionDenied: User '{user}' is not authorized {review}"


def jobs_denied(user: str, namespace: str) -> str:
    """Return the same of recurring runs, as it is answered."""
    what = "Failed to list jobs: Failed to list recurring runs due to authorization error"
    check = f"Check if you have permission to access namespace {namespace}: failed to authorize with API"
    return f"{what}. {check}: {denied(user, namespace, 'jobs')}"


def taken(kind: str, name: str) -> str:
    """Return the message about the name of a new pipeline or experiment that another one has."""
    stages = {
        "pipeline": "pipeline due to server error: Failed to create a pipeline in PipelineStore",
        "experiment": "experiment",
    }
    verb = "exist" if kind == "pipeline" else "exists"
    why = f"Failed to create a new {kind}. The name {name} already {verb}. Please specify a new name"
    return f"Failed to create a {stages[kind]}: Already exist error: {why}"


def has_versions(pipeline_id: str, version_id: str) -> str:
    """Return the message about a pipeline that is not deleted."""
    why = f"as it has existing pipeline versions (e.g. {version_id}). Set cascade=true to delete all versions"
    why = f"Invalid input error: Failed to delete pipeline with id {pipeline_id} {why}"
    return f"Failed to delete pipeline {pipeline_id}. Check error stack: {why}"


def page_token(start: int) -> str:
    """Return the token of the page that begins with that item."""
    return base64.b64encode(str(start).encode()).decode()


def page_start(token: str | None) -> int:
    """Return the item with which a page begins. Raises Refusal for what is no token."""
    try:
        return int(base64.b64decode(token or page_token(0), validate=True))
    except ValueError:
        why = f"Invalid page token: illegal base64 data at input byte {len(token or '') // 4 * 4}"
        raise Refusal(400, f"Failed to create list options: InvalidInputError: {why}") from None


def found_in(items: dict[str, Any], key: str, kind: str, where: str = "") -> Any:
    """Return an item. Raises Refusal if there is none; `where` is what KFP says before that."""
    if key not in items:
        raise Refusal(404, f"{where}ResourceNotFoundError: {kind} {key} not found")
    return items[key]
