"""Doctor's check of S3, with a real server."""

import pytest

from tests.runner.doctor.objects import Examine, launcher, launcher_secret, s3_config, s3_pod, s3_service, secret
from tests.servers.kube_server import KubeServer
from tests.servers.s3_server import (
    BUCKET,
    KEY,
    READER_KEY,
    READER_SECRET,
    SECRET,
    S3Server,
    ignore,
    proxy,
)

pytestmark = pytest.mark.slow
STORE = f"store=s3://{BUCKET}/store"
INSIDE = "http://seaweedfs.kubeflow:9000"
TRIED = "written, read and removed, also in parts and conditionally"


@pytest.fixture
def s3_cluster(cluster: KubeServer, server: S3Server) -> KubeServer:
    """The cluster, with launcher and steps at a real S3 server."""
    cluster.add(secret("torch2kubeflow-s3", AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET))
    cluster.add(s3_config(server.url), launcher_secret(accesskey=KEY, secretkey=SECRET))
    cluster.add(launcher(f"minio://{BUCKET}/artifacts", endpoint=server.address))
    return cluster


def test_s3_is_tried_with_the_pods_credentials(s3_cluster: KubeServer, server: S3Server, examine: Examine) -> None:
    before = server.names()
    code, table = examine(STORE)
    assert code == 0, table
    assert f"ok S3 s3://{BUCKET}/artifacts of KFP's launcher: {TRIED}" in table
    assert f"ok S3 s3://{BUCKET}/store of the steps: {TRIED}" in table
    assert server.names() == before


def test_s3_without_tls_is_a_warning(s3_cluster: KubeServer, server: S3Server, examine: Examine) -> None:
    _, table = examine(STORE)
    assert f"s3://{BUCKET}/store of the steps: {server.url} is not encrypted (no TLS)" in table


def test_missing_bucket(s3_cluster: KubeServer, examine: Examine) -> None:
    _, table = examine("store=s3://no-bucket/store")
    assert "problem S3 s3://no-bucket/store of the steps: s3://no-bucket/store" in table
    assert "there is no such bucket -> create it, or correct its name" in table


def test_untrusted_certificate(s3_cluster: KubeServer, server: S3Server, examine: Examine) -> None:
    s3_cluster.add(s3_config(server.tls_url))
    _, table = examine(STORE)
    assert "problem S3 s3://bucket/store of the steps" in table
    assert "not trusted (self-signed certificate) -> name its authority in AWS_CA_BUNDLE" in table


def test_certificate_trusted_by_the_config_map(s3_cluster: KubeServer, server: S3Server, examine: Examine) -> None:
    authority = {"ca.crt": server.certificate.read_text()}
    s3_cluster.add(s3_config(server.tls_url, **authority))
    s3_cluster.add(launcher(f"minio://{BUCKET}/artifacts", endpoint=server.tls_url))
    _, table = examine(STORE)
    assert f"ok S3 s3://{BUCKET}/artifacts of KFP's launcher: {TRIED}" in table
    assert f"ok S3 s3://{BUCKET}/store of the steps: {TRIED}" in table


def test_credentials_that_may_not_write(s3_cluster: KubeServer, examine: Examine) -> None:
    s3_cluster.add(launcher_secret(accesskey=READER_KEY, secretkey=READER_SECRET))
    _, table = examine()
    assert "access is denied -> allow these credentials to list the bucket, and read, write and delete" in table


def test_s3_endpoint_replaces_an_address_inside(s3_cluster: KubeServer, server: S3Server, examine: Examine) -> None:
    s3_cluster.add(launcher(f"minio://{BUCKET}/artifacts", endpoint="seaweedfs.kubeflow:9000"))
    _, table = examine("--s3-endpoint", server.url)
    assert f"ok S3 s3://{BUCKET}/artifacts of KFP's launcher: {TRIED}" in table


@pytest.mark.parametrize("target_port", [8333, "http-s3"], ids=["number", "name"])
def test_server_inside_the_cluster_needs_no_words(
    s3_cluster: KubeServer, server: S3Server, examine: Examine, target_port: int | str
) -> None:
    s3_cluster.add(s3_service(target_port), s3_pod(), s3_config(INSIDE))
    s3_cluster.add(launcher(f"minio://{BUCKET}/artifacts", endpoint="seaweedfs.kubeflow:9000"))
    s3_cluster.forwards["seaweedfs-0", 8333] = server.ports["s3.port"]
    code, table = examine(STORE)
    assert code == 0, table
    assert f"ok S3 s3://{BUCKET}/artifacts of KFP's launcher: {TRIED}" in table
    assert f"ok S3 s3://{BUCKET}/store of the steps: {TRIED}" in table
    assert "not encrypted" not in table


def test_an_open_filer_is_a_warning(s3_cluster: KubeServer, server: S3Server, examine: Examine) -> None:
    s3_cluster.add(s3_service(8333), s3_pod(), s3_config(INSIDE))
    s3_cluster.forwards["seaweedfs-0", 8333] = server.ports["s3.port"]
    s3_cluster.forwards["seaweedfs-0", 8888] = server.ports["s3.port.https"]  # asks for TLS, as a closed one does
    warned = f"s3://{BUCKET}/store of the steps: the filer of its SeaweedFS (port 8888) serves all objects without keys"
    assert warned not in examine(STORE)[1]
    s3_cluster.forwards["seaweedfs-0", 8888] = server.ports["filer.port"]
    code, table = examine(STORE)
    assert code == 0 and f"warning S3 {warned} -> let a NetworkPolicy" in table


def test_certificate_is_checked_through_a_port_forward(
    s3_cluster: KubeServer, server: S3Server, examine: Examine
) -> None:
    authority = {"ca.crt": server.certificate.read_text()}
    s3_cluster.add(s3_service(), s3_pod(), s3_config(INSIDE.replace("http", "https"), **authority))
    s3_cluster.forwards["seaweedfs-0", 8333] = server.ports["s3.port.https"]
    _, table = examine(STORE)
    assert "https://seaweedfs.kubeflow:9000 has a certificate that is not trusted (Hostname mismatch" in table


def test_server_that_ignores_conditions_is_a_problem(
    s3_cluster: KubeServer, server: S3Server, examine: Examine
) -> None:
    with proxy(server.address) as careless:
        careless.always = ignore("If-None-Match")
        code, table = examine(STORE, "--s3-endpoint", careless.url)
    steps = f"problem S3 s3://{BUCKET}/store of the steps: s3://{BUCKET}/store: the server ignores If-None-Match"
    assert code == 1 and f"{steps}, so runs would overwrite each other's versions -> use an S3 server that" in table
    assert f"ok S3 s3://{BUCKET}/artifacts of KFP's launcher: written, read and removed, also in parts\n" in table
