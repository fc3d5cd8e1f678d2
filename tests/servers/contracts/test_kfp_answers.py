"""The server of KFP's API, held to what KFP 2.17 with one user answered: status, type, fields and messages.

recorded/answers.json has one answer of each kind, in order, without tasks, most parameters, and what plugins say.
`details`, which no client reads, and the parts of its stack in `error_details` are not compared.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kfp_server_api as api
import pytest
import urllib3

from tests.servers.kfp_server import KfpServer, Stage, kfp_server

FOLDER = Path(__file__).parents[1] / "recorded"
RECORDED: list[dict[str, Any]] = json.loads((FOLDER / "answers.json").read_text())
IN_PROFILE: list[dict[str, Any]] = json.loads((FOLDER / "answers-in-profile.json").read_text())
SPEC = 'pipelineInfo: {name: small}\nroot: {inputDefinitions: {parameters: {data: {parameterType: "STRING"}}}}\n'
TIME = datetime(2026, 11, 29, tzinfo=UTC)
TRAINING, SECOND = "ad6b01e5-bfe7-4c69-ad39-e367eb489b38", "df859e55-e397-4aed-95b0-f2b66e88e31f"
VERSION, OLDEST = "4f67ace2-a7d1-4413-88d0-cd6a95511060", "fcff4331-81bc-46a1-8e0e-d33153409c9b"
EXPERIMENT = "26e69824-3e51-4205-963d-01cf503b011e"
RUNS = {  # as they were when they were asked for
    "57dd8721-4f9c-4c91-9b7d-630932948736": "RUNNING",
    "efd2a84a-c854-4176-8191-4f7e626663dd": "SUCCEEDED",
    "649d01cc-a538-436b-8402-1e279314a347": "FAILED",
    "a673aa6f-ae87-4e3c-9408-efc404005308": "RUNNING",
    "1ead874b-de41-4b9d-bfe8-2d667523a0bd": "FAILED",
    "da4950b8-ee9f-4699-a3e7-11f7549b110a": "FAILED",
    "b30fc1cf-a7f0-43fa-b6f3-705f2e084cee": "SUCCEEDED",
}
FREE = ("pipeline_spec", "parameters", "details", "error_details")  # whose content is not compared
# What a pipeline, a run or a schedule may have or not, as it was made.
OPTIONAL = {"description", "last_run_created_at"}


def reference() -> api.V2beta1PipelineVersionReference:
    return api.V2beta1PipelineVersionReference(pipeline_id=TRAINING, pipeline_version_id=VERSION)


def fill(server: KfpServer) -> None:
    """Give the server what the real one had."""
    for pipeline_id, version_id, name in ((TRAINING, VERSION, "torch2kubeflow-training"), (SECOND, OLDEST, "other")):
        server.pipelines[pipeline_id] = api.V2beta1Pipeline(
            pipeline_id=pipeline_id, display_name=name, name=name, created_at=TIME
        )
        server.versions[version_id] = api.V2beta1PipelineVersion(
            pipeline_id=pipeline_id,
            pipeline_version_id=version_id,
            display_name="first",
            name="first",
            created_at=TIME,
            pipeline_spec={"root": {"inputDefinitions": {"parameters": {"data": {"parameterType": "STRING"}}}}},
        )
    server.experiments[EXPERIMENT] = api.V2beta1Experiment(
        experiment_id=EXPERIMENT, display_name="torch2kubeflow", created_at=TIME, storage_state="AVAILABLE"
    )
    for run_id, state in RUNS.items():
        server.plan = [Stage("RUNNING"), Stage(state)]
        config = api.V2beta1RuntimeConfig(parameters={"data": "digits"})
        server.start_run(
            api.V2beta1Run(
                display_name="run",
                experiment_id=EXPERIMENT,
                pipeline_version_reference=reference(),
                runtime_config=config,
            ),
            run_id,
        )
        for _ in range(2):
            urllib3.request("GET", f"{server.url}/apis/v2beta1/runs/{run_id}")
    (nightly,) = [one["response"]["recurringRuns"][0] for one in RECORDED if "recurringRuns" in one["response"]]
    given = ("display_name", "description", "runtime_config", "trigger", "mode", "experiment_id", "no_catchup")
    body = {"max_concurrency": "1", **{name: nightly[name] for name in given}}
    body["pipeline_version_reference"] = nightly["pipeline_version_reference"]
    urllib3.request("POST", f"{server.url}/apis/v2beta1/recurringruns", json=body)


def ask(server: KfpServer, recorded: dict[str, Any]) -> urllib3.BaseHTTPResponse:
    """Send a recorded request; of a form, its file is not recorded."""
    url, method = server.url + recorded["path"], recorded["method"]
    if recorded["request"] == "multipart form":
        file = ("bad.txt", "no pipeline") if "name=bad" in url else ("pipeline.yaml", SPEC)
        return urllib3.request(method, url, fields={"uploadfile": file}, retries=False)
    return urllib3.request(method, url, json=recorded["request"] or None, retries=False)


def form(value: Any) -> Any:
    """Return which fields a value has, and the kinds of what is in them."""
    if isinstance(value, dict):
        return {key: None if key in FREE else form(item) for key, item in value.items() if key not in OPTIONAL}
    if isinstance(value, list):
        return [form(item) for item in value[:1]]
    return type(value).__name__


def adopt(server: KfpServer, recorded: dict[str, Any], answer: dict[str, Any]) -> None:
    """Call what was just made as the real server did."""
    for key, items in (("recurring_run_id", server.recurring_runs), ("pipeline_version_id", server.versions)):
        if recorded["method"] == "POST" and key in answer:
            item = items.pop(answer[key])
            setattr(item, key, recorded["response"][key])
            items[recorded["response"][key]] = item


@pytest.fixture
def server() -> Iterator[KfpServer]:
    """A server with what the real one had."""
    with kfp_server() as found:
        fill(found)
        yield found


def differences(recorded: dict[str, Any], answer: urllib3.BaseHTTPResponse) -> Iterator[str]:
    """Yield how an answer differs from the recorded one."""
    expected, found = recorded["response"], answer.json()
    if (answer.status, answer.headers["content-type"]) != (recorded["status"], recorded["type"]):
        yield f"{answer.status} {answer.headers['content-type']}"
    if "/log" in recorded["path"]:  # its message has all of S3's words
        expected, found = [{**one, "error_message": ""} for one in (expected, found)]
    if form(found) != form(expected):
        yield f"{form(found)}, not {form(expected)}"
    for key in sorted({"code", "message", "error_message", "state", "status"} & expected.keys()):
        if found.get(key) != expected[key]:
            yield f"{key} {found.get(key)!r}, not {expected[key]!r}"


def all_differences(server: KfpServer, requests: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return, by request, how the answers differ from the recorded ones."""
    found = {}
    for recorded in requests:
        answer = ask(server, recorded)
        if list(differences(recorded, answer)):
            found[f"{recorded['method']} {recorded['path']}"] = list(differences(recorded, answer))
        else:
            adopt(server, recorded, answer.json())
    return found


def test_each_kind_of_answer_has_the_recorded_form(server: KfpServer) -> None:
    assert all_differences(server, RECORDED) == {}


def test_answers_in_a_profile_have_the_recorded_form(server: KfpServer) -> None:
    server.multi_user, server.namespaces = True, {"team-a"}
    server.user = "system:serviceaccount:team-a:default-editor"
    for item in (*server.pipelines.values(), *server.experiments.values(), *server.recurring_runs.values()):
        item.namespace = "team-a"
    assert all_differences(server, IN_PROFILE) == {}
