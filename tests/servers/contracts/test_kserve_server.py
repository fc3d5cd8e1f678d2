"""The emulated KServe against a recording of its mode Standard, built from the branch after 0.20.0.

recorded/kserve.json holds all states, in order, of one InferenceService: made while the store refused it, loaded, with
a canary, promoted, with a canary whose model is missing, and with a field of the other mode; besides, the backends of
its routes and the labels of its Deployments.
"""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.shared.serving import standard
from components.shared.serving.inference_service import Predictor, manifest
from tests.servers.kserve.server import SERVICES, KserveServer, Refusal, kserve_server

Object = dict[str, Any]

RECORDED = json.loads((Path(__file__).parents[1] / "recorded" / "kserve.json").read_text())
STATES: list[Object] = RECORDED["inferenceservices"]
PATH = f"{SERVICES}/namespaces/serve/inferenceservices/digits"
ROUTE = "/apis/gateway.networking.k8s.io/v1/namespaces/serve/httproutes/digits"
VARYING = {"creationTimestamp", "lastTransitionTime", "resourceVersion", "uid"}
STRICT = {"fieldValidation": "Strict"}
CANARY, PROMOTED, MISSING, IGNORED = 14, 17, 19, 21  # where the recorded spec was changed


@pytest.fixture
def server() -> Iterator[KserveServer]:
    """A server that refused the first model four times, and has no version 99."""
    with kserve_server() as running:
        running.refusals = 4
        running.unloadable.add("s3://mlpipeline/team/models/digits/versions/99/serving")
        yield running


def plain(value: Any) -> Any:
    """A state without times, identifiers, the hash of a ReplicaSet, and the text of a failure."""
    if isinstance(value, dict):
        kept = {name: plain(item) for name, item in value.items() if name not in VARYING}
        return kept | ({"message": "…"} if "exitCode" in value else {})
    if isinstance(value, list):
        return [plain(item) for item in value]
    return re.sub(r"predictor-[0-9a-f]+", "predictor-…", value) if isinstance(value, str) else value


def replay(server: KserveServer) -> list[Object]:
    """Change the InferenceService as it was done then; return all states, without labels, which it had none of."""
    created = copy.deepcopy({key: STATES[0][key] for key in ("apiVersion", "kind", "metadata", "spec")})
    server.answer("POST", PATH.rpartition("/")[0], STRICT, created)
    server.settle(PATH)
    for number in (CANARY, PROMOTED, MISSING, IGNORED):
        server.answer("PUT", PATH, STRICT, {**server.objects[PATH], "spec": copy.deepcopy(STATES[number]["spec"])})
        server.settle(PATH)
    for state in server.states:
        state["metadata"].pop("labels")
    return server.states


def without_repetitions(states: list[Any]) -> list[Any]:
    return [one for number, one in enumerate(states) if number == 0 or one != states[number - 1]]


def test_the_states_of_a_service_are_the_recorded_ones(server: KserveServer) -> None:
    found, recorded = (without_repetitions(plain(states)) for states in (replay(server), STATES))
    assert len(recorded) == len(STATES) - 3, "the store refused the model four times"
    for number, (one, other) in enumerate(zip(found, recorded, strict=True)):
        assert one == other, number


def test_the_backends_of_a_route_are_the_recorded_ones(server: KserveServer) -> None:
    replay(server)
    told: list[Any] = [
        [(one["name"], one["weight"]) for one in route["backendRefs"]]
        for route in RECORDED["routes"]
        if route["name"] == "digits"
    ]
    assert server.routes == without_repetitions(told)
    (backend,) = RECORDED["routes"][0]["backendRefs"]
    (refs,) = [rule["backendRefs"] for rule in server.objects[ROUTE]["spec"]["rules"]]
    assert {*refs[0]} <= {*backend}


def test_the_pods_have_the_labels_of_the_recorded_deployments(server: KserveServer) -> None:
    replay(server)
    recorded = {one["metadata"]["name"]: one["metadata"]["labels"] for one in RECORDED["deployments"]}
    pods = {
        path.rpartition("/")[2]: one["metadata"]["labels"] for path, one in server.objects.items() if "/pods/" in path
    }
    assert pods == {f"{name}-0": recorded[name] for name in ("digits-v7-predictor", "digits-v99-predictor")}


def test_our_manifest_and_patches_become_the_recorded_specs(server: KserveServer) -> None:
    """But for resources and the annotation of ours, which the recorded service did not have."""
    version = [Predictor(f"v{n}", f"s3://mlpipeline/team/models/digits/versions/{n}/serving") for n in (1, 7)]
    ours = standard.named(manifest("digits", version[0], "onnx-test", "Standard"), version[0])
    ours["spec"]["predictor"]["serviceAccountName"] = "serve"
    server.answer("POST", PATH.rpartition("/")[0], STRICT, ours)
    recorded = copy.deepcopy(STATES[0]["spec"])
    recorded["predictor"]["model"]["resources"] = ours["spec"]["predictor"]["model"]["resources"]
    assert server.objects[PATH]["spec"] == recorded
    for patch, number in ((lambda found: standard.add(found, version[1]), CANARY), (standard.promote, PROMOTED)):
        server.settle(PATH)
        server.answer("PATCH", PATH, STRICT, {"metadata": {}, **patch(server.objects[PATH])})
        if number == CANARY:
            server.answer("PATCH", PATH, STRICT, {"metadata": {}, **standard.share(server.objects[PATH], 10)})
        found = json.loads(
            json.dumps(server.objects[PATH]["spec"]).replace(
                json.dumps(recorded["predictor"]["model"]["resources"]), "{}"
            )
        )
        assert found == STATES[number]["spec"]


def test_we_read_the_recorded_states_as_what_they_are() -> None:
    """Loaded, promoted, and never by `Ready` alone: it was True before the model was loaded, and of a lost canary."""
    stable = [number for number, state in enumerate(STATES) if standard.is_stable_ready(state)]
    assert stable == [13, 14, 15, 16, 18, 19, 20, 21], "not 12, not loaded; not 17, of which the address is the old one"
    assert [number for number, state in enumerate(STATES) if standard.is_canary_ready(state)] == [16]
    assert [str(standard.canary(state)) for state in STATES[MISSING:]] == ["version 99"] * 3
    assert standard.why_not(STATES[4]) == "PredictorReady: Deployment does not have minimum availability."


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"predictor": {"name": None}}, "is required"),
        ({"predictor": {"name": "v1"}}, "conflicts with stable"),
        ({"trafficPercent": 101}, "must be <= 100"),
        ({"predictor": {"maxReplicas": 5}}, "must not set maxReplicas"),
        ({"predictor": {"minReplicas": 2}}, "must not exceed stable"),
    ],
)
def test_a_wrong_canary_is_refused_as_kserve_does(server: KserveServer, change: Object, reason: str) -> None:
    """The reasons are those that KServe's own tests expect (TestValidateCanarySpecs)."""
    server.answer(
        "POST",
        PATH.rpartition("/")[0],
        STRICT,
        copy.deepcopy({"metadata": STATES[0]["metadata"], "spec": STATES[0]["spec"]}),
    )
    (entry,) = copy.deepcopy(STATES[CANARY]["spec"]["canary"])
    predictor = entry["predictor"] | change.get("predictor", {})
    entry |= change | {"predictor": {key: value for key, value in predictor.items() if value is not None}}
    with pytest.raises(Refusal, match=reason):
        server.answer("PATCH", PATH, STRICT, {"metadata": {}, "spec": {"canary": [entry]}})
