"""Rollouts in mode Standard against the emulated KServe: pytest tests/serving/test_rollout.py"""

import pytest

from components.shared.core.errors import UserError
from components.shared.serving import lease, rollout, standard
from components.shared.serving.inference_service import Predictor
from components.shared.serving.rollout import Failed
from components.shared.serving.status import read_status
from tests.serving.conftest import RULES, Cluster
from tests.serving.small_models import NAME

LEASE = "/apis/coordination.k8s.io/v1/namespaces/serve/leases/shades-deploy"


@pytest.fixture
def served(cluster: Cluster) -> Cluster:
    """A cluster that serves version 1."""
    assert cluster.deploy(1)
    cluster.server.changes.clear()
    cluster.server.routes.clear()
    return cluster


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.removeprefix("[log] ") for line in capsys.readouterr().out.splitlines()]


def test_a_first_version_gets_all_traffic(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.server.refusals = 2
    result = cluster.deploy(1)
    assert result and result.images == 20 and result.largest_difference < 1e-6
    model = cluster.server.objects[cluster.path]["spec"]["predictor"]["model"]
    assert model["modelFormat"]["name"] == "onnx" and model["protocolVersion"] == "v2"
    assert model["storageUri"] == "s3://bucket/team/models/shades/versions/1/serving"
    told = lines(capsys)
    assert told[0] == "InferenceService shades of namespace serve is new, in mode standard: version 1 gets all traffic"
    assert any("version 1 is not ready: PredictorReady: Deployment does not have" in line for line in told)
    assert cluster.versions[1].server.was_binary
    assert LEASE not in cluster.server.objects, "released"


def test_a_version_takes_over_in_steps(served: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert served.deploy(2)
    stable, canary = "shades-v1-predictor", "shades-v2-predictor"
    before = [[(stable, 100)], [(stable, 100), (canary, 0)]]
    assert served.server.routes == [
        *before,
        [(stable, 90), (canary, 10)],
        [(stable, 50), (canary, 50)],
        [(canary, 1)],
    ]
    assert served.spec == {"stable": "v2", "canary": []}
    last = served.server.changes[-1][1]["spec"]
    assert last == {
        "predictor": {"name": "v2", "model": {"storageUri": served.versions[2].predictor.storage_uri}},
        "canary": None,
    }, "promoted by one patch"
    assert any(line.startswith("version 2 passes the smoke test: 20 images") for line in lines(capsys))
    assert served.deploy(2), "it is asked again, and nothing is changed"
    assert served.server.changes[-1][1]["spec"] == last


def test_a_canary_that_cannot_load_leaves_the_old_version(served: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    served.server.unloadable.add(served.versions[2].predictor.storage_uri)
    with pytest.raises(Failed, match=r"version 2 is not ready: storage-initializer: .* Could not connect"):
        served.deploy(2, RULES._replace(timeout=0.1))
    assert served.spec == {"stable": "v1", "canary": []}
    assert not any(canary for route in served.server.routes for canary in route[1:]), "it never got traffic"
    assert "version 2 was taken back; version 1 serves on" in lines(capsys)


@pytest.mark.parametrize("fault", ["probabilities", "another model", "no answer", "another package"])
def test_a_failed_smoke_test_leaves_the_old_version(served: Cluster, fault: str) -> None:
    server = served.versions[2].server
    if fault == "probabilities":
        server.bias = 0.01
    elif fault == "another model":
        served.server.models[served.versions[2].predictor.storage_uri] = served.versions[3].server.server_port
    elif fault == "no answer":
        server.status = 503
    else:
        server.parameters = {"package_digest": {"string_value": "0" * 64}}
    reasons = {
        "probabilities": "by up to 0.01 in a probability",
        "another model": "differ in the class of",
        "no answer": "the model server answers 503 to /v2/models/shades",
        "another package": f"the served package is {'0' * 64}",
    }
    with pytest.raises(Failed, match=f"version 2 fails the smoke test: .*{reasons[fault]}"):
        served.deploy(2)
    assert served.spec == {"stable": "v1", "canary": []}
    assert all(len(route) == 1 or route[1][1] == 0 for route in served.server.routes)


def test_a_first_version_that_fails_is_taken_away(cluster: Cluster) -> None:
    cluster.versions[1].server.bias = 0.5
    with pytest.raises(Failed, match="version 1 fails the smoke test"):
        cluster.deploy(1)
    assert cluster.path not in cluster.server.objects
    cluster.server.unloadable.add(cluster.versions[1].predictor.storage_uri)
    with pytest.raises(Failed, match="version 1 is not ready: storage-initializer: "):
        cluster.deploy(1, RULES._replace(timeout=0.1))
    assert cluster.path not in cluster.server.objects


@pytest.mark.slow
def test_a_canary_that_breaks_down_later_is_taken_back(served: Cluster) -> None:
    uri = served.versions[2].predictor.storage_uri

    def break_down() -> None:
        served.server.unloadable.add(uri)
        status = served.server.objects[served.path]["status"]["canaryStatuses"]
        status[0]["ready"] = False

    served.server.meanwhile['"trafficPercent": 50'] = break_down
    with pytest.raises(Failed, match="version 2 has no 50 %"):
        served.deploy(2, RULES._replace(timeout=0.1, pause=0.1))
    assert served.spec == {"stable": "v1", "canary": []}
    assert sum(("shades-v2-predictor", 10) in route for route in served.server.routes) == 1


def test_a_canary_that_ends_while_it_is_watched_is_taken_back(served: Cluster) -> None:
    class Watching(rollout.Rollout):
        def _sleep(self, seconds: float) -> None:
            if served.spec["canary"] == [("v2", 10)]:
                served.server.objects[served.path]["status"]["canaryStatuses"][0]["ready"] = False

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Failed, match="version 2 is no longer ready"):
        patch.setattr(rollout, "Rollout", Watching)
        served.deploy(2, RULES._replace(pause=1000))
    assert served.spec == {"stable": "v1", "canary": []}


def test_ctrl_c_takes_the_canary_back(served: Cluster) -> None:
    class Interrupted(rollout.Rollout):
        def _sleep(self, seconds: float) -> None:
            if served.spec["canary"] == [("v2", 10)]:
                raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(rollout, "Rollout", Interrupted)
        served.deploy(2, RULES._replace(pause=1000))
    assert served.spec == {"stable": "v1", "canary": []} and LEASE not in served.server.objects


def test_the_status_of_a_canary_is_not_that_of_the_service(served: Cluster) -> None:
    """Such a canary is left by a deploy that was killed; the InferenceService stays Ready."""
    target = served.versions[2].predictor
    served.server.unloadable.add(target.storage_uri)
    found = served.server.objects[served.path]
    patch = {"metadata": {}, **standard.add(found, target)}
    served.server.answer("PATCH", served.path, {"fieldValidation": "Strict"}, patch)
    served.server.settle(served.path)
    facts = read_status(served.kserve, NAME)
    assert facts and facts.canary and facts.stable.ready and not facts.canary.ready
    assert (facts.stable.percent, facts.canary.percent) == (100, 0)
    assert facts.canary.reason.startswith("storage-initializer: Unexpected error during storage initialization")


def test_a_held_canary_goes_on_or_is_taken_back(served: Cluster) -> None:
    served.deploy(2, RULES._replace(hold=True, shares=(20,)))
    assert served.spec == {"stable": "v1", "canary": [("v2", 20)]}
    facts = read_status(served.kserve, NAME)
    assert facts and facts.canary and (facts.stable.percent, facts.canary.percent) == (80, 20)
    assert (facts.stable.version, facts.canary.version, facts.canary.ready) == (1, 2, True)
    with pytest.raises(UserError, match=r"has a canary already: version 2; finish it with deploy shades/2"):
        served.deploy(3)
    assert rollout.roll_back(served.kserve, NAME, RULES) == served.versions[2].predictor
    assert served.spec == {"stable": "v1", "canary": []}
    with pytest.raises(UserError, match=r"no canary to take back: version 1 gets all traffic; .* shades/VERSION"):
        rollout.roll_back(served.kserve, NAME, RULES)
    served.deploy(2, RULES._replace(hold=True))
    served.deploy(2)
    assert served.spec == {"stable": "v2", "canary": []}


def test_without_a_share_it_is_promoted_after_the_smoke_test(served: Cluster) -> None:
    served.server.has_gateway = False
    served.server.objects = {path: one for path, one in served.server.objects.items() if "httproutes" not in path}
    with pytest.raises(UserError, match=r"has no HTTPRoute, .*; set enableGatewayApi .*, or give --canary 0"):
        served.deploy(2)
    assert not served.server.changes, "refused before anything was changed"
    served.deploy(2, RULES._replace(shares=()))
    assert served.spec == {"stable": "v2", "canary": []}


def test_a_second_deploy_is_refused_while_one_runs(served: Cluster) -> None:
    refused: list[str] = []

    def deploy_too() -> None:
        with pytest.raises(UserError) as error:
            served.deploy(3)
        refused.append(str(error.value))

    test = served.versions[2].test

    def test_and_deploy(pods: object) -> object:
        deploy_too()
        return test(pods)  # type: ignore[arg-type]

    served.versions[2] = served.versions[2]._replace(test=test_and_deploy)  # type: ignore[arg-type]
    served.deploy(2)
    (text,) = refused
    assert " deploys shades since 20" in text and "; wait for its end; if it was killed, deploy again after 20" in text
    assert served.spec == {"stable": "v2", "canary": []}


def test_a_lease_of_a_killed_deploy_expires(served: Cluster) -> None:
    spec = {"holderIdentity": "ada@there (process 1)", "leaseDurationSeconds": 60}
    served.server.add(LEASE, spec=spec | {"renewTime": "2026-01-01T00:00:00.000000Z"})
    served.deploy(2)
    assert served.spec == {"stable": "v2", "canary": []} and LEASE not in served.server.objects


def test_a_deploy_keeps_its_lease_while_it_runs(served: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWED_AFTER", 0)
    served.server.asked.clear()
    served.deploy(2)
    assert ("update", "leases") in served.server.asked
    with lease.hold(served.kserve.api, "serve", NAME) as held:
        served.server.objects[LEASE]["metadata"]["resourceVersion"] = "another's"
        with pytest.raises(UserError, match="another process has taken over the deployment of shades"):
            held.renew()


def test_a_rollback_ends_a_deploy_that_runs(served: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    test = served.versions[2].test

    def roll_back_and_test(pods: object) -> object:
        rollout.roll_back(served.kserve, NAME, RULES)
        return test(pods)  # type: ignore[arg-type]

    served.versions[2] = served.versions[2]._replace(test=roll_back_and_test)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="was changed by somebody else meanwhile"):
        served.deploy(2)
    assert served.spec == {"stable": "v1", "canary": []}
    assert any("version 2 may be a canary still" in line for line in lines(capsys))


def test_changes_of_others_are_not_overwritten(served: Cluster) -> None:
    def edit() -> None:
        found = served.server.answer("GET", served.path, {}, None)
        found["spec"]["predictor"]["minReplicas"] = 3
        served.server.answer("PUT", served.path, {"fieldValidation": "Strict"}, found)

    served.server.meanwhile['"trafficPercent": 10'] = edit
    with pytest.raises(UserError, match="was changed by somebody else meanwhile; see --status"):
        served.deploy(2)
    assert served.server.objects[served.path]["spec"]["predictor"]["minReplicas"] == 3


def test_a_canary_is_like_the_stable_predictor_but_fixed(served: Cluster) -> None:
    """KServe refuses the fields of autoscaling in a canary; the stable predictor keeps them."""
    theirs = {"maxReplicas": 4, "scaleTarget": 80, "minReplicas": 2, "nodeSelector": {"disk": "ssd"}}
    served.server.objects[served.path]["spec"]["predictor"] |= theirs
    served.deploy(2, RULES._replace(hold=True))
    spec = served.server.objects[served.path]["spec"]
    canary = spec["canary"][0]["predictor"]
    assert (canary["minReplicas"], canary["nodeSelector"], "scaleTarget" in canary) == (2, {"disk": "ssd"}, False)
    served.deploy(2)
    assert theirs.items() <= served.server.objects[served.path]["spec"]["predictor"].items()


def test_a_service_of_something_else_is_left_alone(served: Cluster) -> None:
    other = Predictor("v1", "s3://bucket/other/models/shades/versions/1/serving")
    with pytest.raises(UserError, match=r"serves s3://bucket/team/.*, which is no version of this model in this store"):
        rollout.deploy(served.kserve, NAME, other, RULES, None)
    assert not served.server.changes


def test_the_runtime_and_the_mode_of_a_service_stay(served: Cluster) -> None:
    with pytest.raises(UserError, match="has the runtime kserve-tritonserver, not other; leave --runtime out"):
        served.deploy(2, RULES._replace(runtime="other"))
    with pytest.raises(UserError, match="has the mode standard, which KServe does not change"):
        served.deploy(2, RULES._replace(mode="knative"))
    assert not served.server.changes


def test_what_may_not_be_read_is_not_needed(served: Cluster) -> None:
    served.server.denied |= {"get httproutes", "get clusterservingruntimes", "get servingruntimes", "get pods"}
    served.deploy(2, tested=False)
    assert served.spec == {"stable": "v2", "canary": []}
    facts = read_status(served.kserve, NAME)
    assert facts and facts.stable.percent is None, "not known"
    assert any("whether there is a runtime kserve-tritonserver is not known" in text for text in served.kserve.notes)
