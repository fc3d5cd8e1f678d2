"""Doctor's checks of the namespace: its kind, Secrets and ConfigMap, and service account."""

import pytest
import yaml

from runner.doctor.namespace import RETRAIN_RIGHTS
from tests.manifests.manifests import MANIFESTS
from tests.runner.doctor.objects import (
    PRIVATE,
    PROFILE,
    PUBLIC,
    AssertFound,
    Examine,
    config_map,
    make_profile,
    s3_config,
    s3_secret,
    secret,
    service_account,
    set_version,
)
from tests.servers.kfp_server import KfpServer
from tests.servers.kube_server import KubeServer


def test_missing_namespace(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.remove("namespaces", "kubeflow")
    assert_found("problem namespace namespace kubeflow does not exist -> give another one with --kfp-namespace")


def test_profile_is_recognised_by_its_label(cluster: KubeServer, kfp_api: KfpServer, examine: Examine) -> None:
    set_version(kfp_api, "2.17.0", multi_user=True)
    make_profile(cluster)
    code, table = examine("--namespace", PROFILE)
    assert code == 0, table
    assert "ada is a Profile (multi-user); runs use service account default-editor" in table


def test_secret_with_other_keys(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(secret("torch2kubeflow-s3", accesskey=PUBLIC, secretkey=PRIVATE))
    assert_found(
        "problem Secrets Secret torch2kubeflow-s3 lacks AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; "
        "it has accesskey, secretkey"
    )


def test_secret_with_a_trailing_newline(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(s3_secret(PRIVATE + "\n"))
    assert_found("problem Secrets Secret torch2kubeflow-s3 has spaces or a newline around AWS_SECRET_ACCESS_KEY")


def test_no_secret_and_no_role(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.remove("secrets", "torch2kubeflow-s3")
    assert_found("warning Secrets no keys in Secret torch2kubeflow-s3, and no role on service account pipeline-runner")


def test_role_of_the_cloud_needs_no_keys(cluster: KubeServer, examine: Examine) -> None:
    cluster.add(service_account(annotations={"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/runner"}))
    cluster.add(config_map("kfp-launcher", defaultPipelineRoot="s3://bucket/a"))
    cluster.remove("secrets", "torch2kubeflow-s3")
    code, table = examine()
    assert code == 0, table
    assert "ok Secrets no keys in Secret torch2kubeflow-s3: steps use the role of service account" in table
    assert "ok launcher launcher and steps share the steps' credentials" in table


def test_empty_secret_is_none(cluster: KubeServer, examine: Examine) -> None:
    cluster.add(secret("torch2kubeflow-s3"), secret("torch2kubeflow-source"))
    code, table = examine()
    assert code == 0, table
    assert "warning Secrets no keys in Secret torch2kubeflow-s3, and no role on service account" in table
    assert "ok Secrets no keys in Secret torch2kubeflow-source: a data source in S3 is read with the" in table


def test_s3_address_without_a_scheme(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(s3_config("minio:9000"))
    assert_found(
        "problem ConfigMap ConfigMap torch2kubeflow-s3 has AWS_ENDPOINT_URL_S3=minio:9000 -> begin it with http://"
    )


def test_missing_config_map(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.remove("configmaps", "torch2kubeflow-s3")
    assert_found(
        "warning ConfigMap no AWS_ENDPOINT_URL_S3 in ConfigMap torch2kubeflow-s3: steps use Amazon S3, without a region"
    )


def test_missing_service_account(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.remove("serviceaccounts", "pipeline-runner")
    assert_found("problem service account service account pipeline-runner does not exist in kubeflow")


def test_service_account_without_rights_is_one_problem(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.account_lacks = {"create workflowtaskresults", "patch workflowtaskresults", "get secrets"}
    assert_found(
        "problem service account service account pipeline-runner may not get secrets, nor create or patch "
        'workflowtaskresults -> add to its Role: {apiGroups: [""], resources: ["secrets"], verbs: ["get"]}, '
        '{apiGroups: ["argoproj.io"], resources: ["workflowtaskresults"], verbs: ["create", "patch"]}'
    )


@pytest.mark.parametrize("is_profile", [True, False])
def test_a_service_account_that_may_not_list_workflows(
    cluster: KubeServer, kfp_api: KfpServer, assert_found: AssertFound, is_profile: bool
) -> None:
    cluster.account_lacks = {"list workflows"}
    name, remedy = "pipeline-runner", 'add to its Role: {apiGroups: ["argoproj.io"], resources: ["workflows"], verbs: '
    if is_profile:
        set_version(kfp_api, "2.17.0", multi_user=True)
        make_profile(cluster)
        name, remedy = "default-editor", "apply manifests/overlays/multi-user, then kubectl -n ada create rolebinding "
    assert_found(
        f"warning service account service account {name} may not list workflows: finish records a run that was stopped "
        f"as failed -> {remedy}",
        *(["--namespace", PROFILE] if is_profile else []),
    )


def test_the_rights_to_train_again_are_those_of_the_role() -> None:
    documents = yaml.safe_load_all((MANIFESTS / "overlays/multi-user/rbac.yaml").read_text())
    (role,) = [one for one in documents if one["metadata"]["name"] == "torch2kubeflow-retrain"]
    granted = {
        (group, resource, verb, name)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }
    assert {(one.group, one.resource, one.verb, one.name) for one in RETRAIN_RIGHTS} == granted


def test_a_service_account_that_may_not_train_again_after_drift(
    cluster: KubeServer, kfp_api: KfpServer, examine: Examine
) -> None:
    cluster.account_lacks = {"create runs", "create serviceaccounts/token"}
    words = ("model=champion", "store=s3://bucket/team")
    lacks = "may not create runs, nor create serviceaccounts/token: drift starts no training run"
    assert lacks not in examine(*words, graph="prediction")[1], "KFP with one user checks no rights"
    set_version(kfp_api, "2.17.0", multi_user=True)
    make_profile(cluster)
    _, table = examine(*words, "--namespace", PROFILE, graph="prediction")
    bind = f"create rolebinding torch2kubeflow-retrain --role=torch2kubeflow-retrain --serviceaccount={PROFILE}:"
    remedy = f"apply manifests/overlays/multi-user, then kubectl -n {PROFILE} {bind}default-editor; or give retrain"
    assert f"warning service account service account default-editor {lacks} -> {remedy}=false" in table
    assert lacks not in examine(*words, "retrain=false", "--namespace", PROFILE, graph="prediction")[1]
    assert lacks not in examine("--namespace", PROFILE)[1], "a graph that trains"
