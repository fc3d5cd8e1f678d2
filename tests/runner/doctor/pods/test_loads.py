"""The pods that doctor checks, against those that KFP 2.17 and Argo 4.0 created in a cluster.

recorded/containers.json holds a step's pod and the resources of a driver; fields that no check reads are left out.
"""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client
from kubernetes import config as kube_config

import pipeline
from runner.doctor.cluster import Cluster
from runner.doctor.pods.loads import Load, amounts_of, containers, loads, quantity
from runner.doctor.preflight import Preflight, pods_of
from runner.parameters import complete
from tests.runner.doctor.objects import STANDALONE, default_limits, model_of
from tests.servers.kube_server import KubeServer

RECORDED = json.loads((Path(__file__).parents[3] / "servers" / "recorded" / "containers.json").read_text())


def find_loads(folder: Path, graph: str, **given: Any) -> dict[str, Load]:
    """The loads of a run in the fixture's cluster, by name."""
    chosen = pipeline.GRAPHS[graph]
    parameters = complete(chosen, given)
    with kube_config.new_client_from_config(str(folder / ".kube" / "config")) as api:
        found = loads(Cluster(api, STANDALONE, STANDALONE), Preflight(parameters, pods_of(chosen, parameters)))
    return {load.name: load for load in found}


def resources(pod: client.V1Pod) -> dict[str, dict[str, dict[str, str]]]:
    """What each container asks for, without what it asks none of."""
    return {
        one.name: {
            bound: {name: amount for name, amount in amounts.items() if amount != "0"}
            for bound in ("requests", "limits")
            if (amounts := getattr(one.resources, bound))
        }
        for one in containers(pod)
    }


def test_step_has_the_containers_of_a_real_one(cluster: KubeServer, tmp_path: Path) -> None:
    recorded = model_of({"kind": "Pod", **RECORDED["step"]})
    (pod,) = find_loads(tmp_path, "training", train_cpu="4")["step train"].pods
    assert resources(pod) == resources(recorded)
    assert [one.name for one in pod.spec.init_containers] == [one.name for one in recorded.spec.init_containers]
    assert amounts_of(pod.spec) == {"cpu": 4, "memory": 2**32}


def test_driver_asks_for_what_a_real_one_did(cluster: KubeServer, tmp_path: Path) -> None:
    (pod,) = find_loads(tmp_path, "training")["KFP's driver"].pods
    assert resources(pod) == {"main": RECORDED["driver"]["resources"], "wait": {}, "init": {}}


def test_limit_range_completes_what_is_missing(cluster: KubeServer, tmp_path: Path) -> None:
    cluster.add(default_limits())
    (pod,) = find_loads(tmp_path, "training")["step resolve"].pods
    found = resources(pod)
    assert found["wait"] == {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
    assert found["main"] == {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
    assert found["kfp-launcher"]["requests"] == {"cpu": "100m", "memory": "256Mi"}


def test_job_runs_beside_the_step_that_waits_for_it(cluster: KubeServer, tmp_path: Path) -> None:
    found = find_loads(tmp_path, "distributed", nodes=3, node_selector={"disk": "ssd"})
    *nodes, waiting = found["the job of 3 nodes"].pods
    assert [node.spec.node_selector for node in nodes] == 3 * [{"disk": "ssd"}]
    assert [list(resources(node)) for node in nodes] == 3 * [["main"]]
    assert waiting.spec.node_selector == {} and resources(waiting)["main"] == {}
    (alone,) = found["step train-distributed"].pods
    assert resources(alone) == resources(waiting)


def test_containers_that_begin_a_pod_count_as_kubernetes_does() -> None:
    def container(cpu: str, stays: bool = False) -> dict[str, Any]:
        more = {"restartPolicy": "Always"} if stays else {}
        return {"name": "a", "resources": {"requests": {"cpu": cpu}}, **more}

    def cpu(*init: dict[str, Any]) -> float:
        spec = {"initContainers": list(init), "containers": [container("1"), container("500m")]}
        pod = model_of({"kind": "Pod", "spec": {**spec, "overhead": {"cpu": "250m"}}})
        return float(amounts_of(pod.spec)["cpu"])

    assert cpu() == cpu(container("1500m")) == 1.75
    assert cpu(container("2"), container("3")) == 3.25
    assert cpu(container("200m", stays=True)) == cpu(container("1700m"), container("200m", stays=True)) == 1.95
    assert cpu(container("200m", stays=True), container("3")) == 3.45


@pytest.mark.parametrize(
    ("resource", "amount", "text"),
    [
        ("cpu", "2", "2"),
        ("cpu", "1.1004", "1100m"),
        ("requests.memory", "4294967296", "4Gi"),
        ("memory", "4294967297", "4096Mi"),
        ("nvidia.com/gpu", "1E+1", "10"),
    ],
)
def test_quantities_are_written_as_by_kubernetes(resource: str, amount: str, text: str) -> None:
    assert quantity(resource, Decimal(amount)) == text
