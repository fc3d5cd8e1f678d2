"""Doctor's checks of KFP's launcher: where it stores artifacts, and with whose credentials."""

from typing import Any

import pytest
import yaml

from tests.runner.doctor.objects import (
    PRIVATE,
    PUBLIC,
    AssertFound,
    Examine,
    config_map,
    launcher,
    launcher_secret,
    s3_config,
)
from tests.servers.kube_server import KubeServer


def test_pipeline_root_without_a_scheme(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(config_map("kfp-launcher", defaultPipelineRoot="bucket/artifacts"))
    assert_found(
        "problem launcher kfp-launcher has defaultPipelineRoot bucket/artifacts "
        "-> begin it with s3://, minio:// or gs://"
    )


def test_pipeline_root_outside_s3(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(config_map("kfp-launcher", defaultPipelineRoot="gs://bucket"))
    assert_found("unknown launcher artifacts go to gs://bucket, which is not S3 -> make sure that pods may write there")


def test_launcher_without_credentials(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(launcher(credentials=None))
    assert_found("problem launcher kfp-launcher has no credentials for minio:// -> add secretRef or fromEnv: true")


def test_launcher_without_credentials_of_steps(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(config_map("kfp-launcher", defaultPipelineRoot="s3://bucket/a"))
    cluster.remove("secrets", "torch2kubeflow-s3")
    assert_found("problem launcher artifacts go to s3://bucket/a with the steps' credentials, and there are none")


def test_missing_secret_of_the_launcher(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.remove("secrets", "mlpipeline-minio-artifact")
    assert_found(
        "problem launcher the launcher's Secret mlpipeline-minio-artifact does not exist "
        "-> create it (KFP's manifests create it)"
    )


def test_launcher_secret_lacks_a_key(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(launcher_secret(accesskey=PUBLIC))
    assert_found(
        "problem launcher the launcher's Secret mlpipeline-minio-artifact lacks secretkey -> add what is missing"
    )


def test_launcher_and_steps_have_other_keys(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(launcher_secret(accesskey="another", secretkey=PRIVATE))
    assert_found("warning launcher the launcher uses Secret mlpipeline-minio-artifact, the steps use torch2kubeflow-s3")


def test_launcher_and_steps_use_other_servers(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(s3_config("http://127.0.0.1:2"))
    assert_found(
        "warning launcher artifacts go to http://127.0.0.1:1, but ConfigMap torch2kubeflow-s3 sends the steps to"
    )


def test_launcher_with_virtual_host_style(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(launcher(forcePathStyle=False))
    assert_found("warning launcher kfp-launcher has forcePathStyle false: it will look up mlpipeline in DNS")


def test_malformed_providers(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(config_map("kfp-launcher", providers="["))
    assert_found("problem launcher ConfigMap kfp-launcher has no YAML mapping under its key providers")


def test_secret_reference_without_keys(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(launcher(credentials={"secretRef": {"secretName": "keys"}}))
    assert_found("problem launcher kfp-launcher has a secretRef without accessKeyKey, secretKeyKey")


@pytest.mark.slow
def test_problem_of_several_checks_is_reported_once(cluster: KubeServer, examine: Examine) -> None:
    cluster.add(launcher(credentials=None))
    assert examine()[1].count("kfp-launcher has no credentials for minio://") == 1


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("v2/artifacts", "problem launcher the launcher's Secret team does not exist"),
        ("other", "ok launcher launcher and steps share the steps' credentials"),
    ],
)
def test_override_applies_to_its_bucket_and_prefix(
    cluster: KubeServer, examine: Examine, prefix: str, expected: str
) -> None:
    secret_ref = {"secretName": "team", "accessKeyKey": "key", "secretKeyKey": "value"}
    override = {"bucketName": "mlpipeline", "keyPrefix": prefix, "credentials": {"secretRef": secret_ref}}
    default: dict[str, Any] = {"endpoint": "127.0.0.1:1", "credentials": {"fromEnv": True}}
    providers = {"minio": {"default": default, "overrides": [override]}}
    cluster.add(config_map("kfp-launcher", providers=yaml.safe_dump(providers)))
    assert expected in examine()[1]
