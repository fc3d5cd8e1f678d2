"""Doctor's checks of Argo's controller: retries, its pace, and the size of a run."""

import pytest

import pipeline
from runner.run_size import parts_of_run, total
from tests.runner.doctor.objects import AssertFound, Examine, argo, controller, in_one_key
from tests.servers.kube_server import KubeServer

RUN = f"{total(parts_of_run(pipeline.training, {})) / 1000:.0f} KB"
SETTINGS = [{"learning_rate": round(0.0005 * number, 4)} for number in range(1, 1001)]


def test_argo_retries_only_vanished_pods(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(argo("OnError"))
    assert_found("warning retries Argo retries a step whose pod vanished (retryPolicy OnError)")


def test_argo_retries_only_failed_steps_by_default(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(argo())
    assert_found("warning retries Argo retries a step that failed (retryPolicy OnFailure)")


def test_argo_ignores_other_keys_beside_config(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(in_one_key(argo(), **argo("Always").data))
    assert_found("warning retries Argo retries a step that failed (retryPolicy OnFailure)")


def test_retry_policy_is_unknown_without_argos_config_map(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.remove("configmaps", "workflow-controller-configmap")
    assert_found(
        "unknown retries Argo's retry policy is not known: "
        "namespace kubeflow has no ConfigMap workflow-controller-configmap"
    )


def test_default_pace_of_argo_is_a_warning(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(controller())
    assert_found(
        "warning requeue Argo looks at a run every 10 s, and each step waits for that several times -> kubectl -n "
        "kubeflow patch deployment workflow-controller --patch-file manifests/admin/argo-requeue.yaml, if"
    )


def test_pace_that_the_owner_has_set(cluster: KubeServer, examine: Examine) -> None:
    cluster.add(controller(DEFAULT_REQUEUE_TIME="6s"))
    assert "ok requeue Argo looks at a run every 6s (DEFAULT_REQUEUE_TIME)" in examine()[1]


def test_pace_is_unknown_without_the_controller(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.remove("deployments", "workflow-controller")
    assert_found("unknown requeue Argo's pace is not known: namespace kubeflow has no deployment workflow-controller")


def test_small_run_is_within_argos_limit(cluster: KubeServer, examine: Examine) -> None:
    assert f"ok run size Argo's object of this run takes about {RUN} of 1,049 KB, Argo's default" in examine()[1]


@pytest.mark.slow
def test_large_run_is_a_warning(cluster: KubeServer, examine: Examine) -> None:
    code, table = examine("parallel=9", f"settings={SETTINGS}".replace("'", '"'), graph="sweep")
    assert code == 0, table
    assert "warning run size Argo's object of this run may be too large for KFP to follow its steps: about 1," in table
    assert "of 1,049 KB, Argo's default -> ask for fewer or shorter settings, set parallel lower, or have" in table


@pytest.mark.parametrize(
    ("graph", "words", "remedy"),
    [
        ("bigdata", ["parts=64", "store=s3://bucket"], "give fewer parts, or have"),
        ("prediction", ["parts=64", "store=s3://bucket"], "give fewer parts, or have"),
        ("training", [], "have"),
    ],
)
def test_remedy_for_a_large_run_names_what_its_graph_has(
    cluster: KubeServer, examine: Examine, graph: str, words: list[str], remedy: str
) -> None:
    cluster.add(controller(DEFAULT_REQUEUE_TIME="1s", MAX_WORKFLOW_SIZE="100000"))
    _, table = examine(*words, graph=graph)
    assert f"deployment workflow-controller -> {remedy} MAX_WORKFLOW_SIZE set on deployment workflow-contr" in table


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            "1500000",
            f"ok run size Argo's object of this run takes about {RUN} of 1,500 KB, MAX_WORKFLOW_SIZE of depl",
        ),
        (
            "500000",
            f"warning run size Argo's object of this run may be too large for KFP to follow its steps: about {RUN}",
        ),
        ("0", "of 1,049 KB, Argo's default"),
        ("1Mi", "of 1,049 KB, Argo's default"),
    ],
    ids=["higher", "lower", "zero", "no-number"],
)
def test_limit_that_the_owner_has_set(cluster: KubeServer, examine: Examine, value: str, expected: str) -> None:
    cluster.add(controller(DEFAULT_REQUEUE_TIME="1s", MAX_WORKFLOW_SIZE=value))
    assert expected in examine()[1]


def test_size_without_the_right_to_the_owners_limit(cluster: KubeServer, examine: Examine) -> None:
    cluster.denied.add("get deployments")
    _, table = examine()
    assert f"ok run size Argo's object of this run takes about {RUN} of 1,049 KB, Argo's default" in table
    assert "get deployments in namespace kubeflow (Katib, requeue, run size)" in table
