"""How doctor reaches an S3 server inside the cluster, and what it reports if it cannot."""

import pytest
from kubernetes import client

from tests.runner.doctor.objects import AssertFound, Examine, launcher, s3_config, s3_pod, s3_service
from tests.servers.kube_server import KubeServer, error

WHAT = "S3 s3://mlpipeline/v2/artifacts of KFP's launcher:"


@pytest.fixture
def inside(cluster: KubeServer) -> KubeServer:
    """The cluster, with KFP's object store in it."""
    cluster.add(launcher(endpoint="seaweedfs.kubeflow:9000"), s3_service(), s3_pod())
    return cluster


def test_service_that_does_not_exist(inside: KubeServer, assert_found: AssertFound) -> None:
    inside.remove("services", "seaweedfs")
    assert_found(f"problem {WHAT} there is no Service seaweedfs with pods in namespace kubeflow -> correct the address")


def test_service_without_that_port(inside: KubeServer, assert_found: AssertFound) -> None:
    inside.add(launcher(endpoint="seaweedfs.kubeflow:8333"))
    assert_found(
        f"problem {WHAT} Service seaweedfs has no port 8333 -> correct the address of S3: the Service has 9000"
    )


def test_name_that_may_be_outside_the_cluster(inside: KubeServer, assert_found: AssertFound) -> None:
    inside.add(launcher(endpoint="storage.corp:9000"))
    assert_found(f"unknown {WHAT} there is no Service storage with pods in namespace corp -> check AWS_ENDPOINT_URL_S3")


def test_service_that_stands_for_another_name(inside: KubeServer, assert_found: AssertFound) -> None:
    inside.add(s3_service(selector=None, type="ExternalName", external_name="s3.example.org"))
    assert_found(f"unknown {WHAT} there is no Service seaweedfs with pods in namespace kubeflow -> check AWS_ENDPOINT")


def test_service_whose_pods_do_not_run(inside: KubeServer, assert_found: AssertFound) -> None:
    inside.add(s3_pod("Pending"))
    assert_found(f"problem {WHAT} no pod app=seaweedfs runs in namespace kubeflow -> kubectl -n kubeflow get pods")


def test_port_that_no_pod_has(inside: KubeServer, assert_found: AssertFound) -> None:
    inside.add(s3_service(target_port="s3"))
    assert_found(f"problem {WHAT} pod seaweedfs-0 has no port named s3 -> correct targetPort of the Service")


@pytest.mark.parametrize(
    ("denied", "what"),
    [
        ("get services", "get services in namespace kubeflow (S3)"),
        ("list pods", "list pods in namespace kubeflow (S3)"),
        ("get pods/portforward", "get pods/portforward in namespace kubeflow (S3)"),
    ],
)
def test_port_forward_without_a_right(inside: KubeServer, examine: Examine, denied: str, what: str) -> None:
    inside.add(s3_config("http://seaweedfs.kubeflow:9000"))
    inside.denied.add(denied)
    code, table = examine("store=s3://mlpipeline/team")
    assert code == 0, table
    (line,) = [line for line in table.splitlines() if line.startswith("unknown rights")]
    assert what in line


def test_port_forward_that_fails(inside: KubeServer, assert_found: AssertFound) -> None:
    inside.faults["get pods/portforward"] = error(500, "error dialing backend")
    refused = "Kubernetes refuses to forward a port to pod seaweedfs-0 (500 Internal Server Error)"
    assert_found(f"unknown {WHAT} {refused} -> see the cluster")


def test_service_of_the_runs_namespace(inside: KubeServer, assert_found: AssertFound) -> None:
    inside.add(launcher(endpoint="minio:9000"))
    assert_found(f"problem {WHAT} there is no Service minio with pods in namespace kubeflow")


def test_service_by_its_long_name(inside: KubeServer, assert_found: AssertFound) -> None:
    spec = client.V1ServiceSpec(selector={"app": "minio"}, ports=[client.V1ServicePort(port=80)])
    inside.add(client.V1Service(metadata=client.V1ObjectMeta(name="minio", namespace="store"), spec=spec))
    inside.add(launcher(endpoint="minio.store.svc.cluster.local"))
    assert_found(f"problem {WHAT} no pod app=minio runs in namespace store -> kubectl -n store get pods")
