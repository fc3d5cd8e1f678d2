"""The manifests, checked against Kubernetes' schemas, restricted Pod Security, and the names that the pipeline uses."""

import copy
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import kubernetes_validate
import pytest
import urllib3
import yaml
from minio import Minio

import pipeline
from components.shared.parameters.pods import Pods
from components.shared.parameters.table import Parameters
from components.shared.training.distributed.trainjob import manifest
from runner.doctor.trainer import RIGHTS
from runner.local.certificates import write_certificates
from runner.local.s3_server import PORTS
from runner.local.server_ports import free_ports
from runner.pods import S3_KEYS, S3_SETTINGS, USER
from tests.manifests.manifests import MANIFESTS, OVERLAYS, ROOT, RUNS_LIVE_IN, Object, find, needs_kubectl, render
from tests.manifests.pod_security import breaches

DEFAULTS = {name: spec.default for name, spec in pipeline.training.component_spec.inputs.items()}
PATCHES = sorted([*MANIFESTS.glob("admin/*.yaml"), *MANIFESTS.glob("overlays/*/patches/*.yaml")])
MAJOR, MINOR = map(int, kubernetes_validate.latest_version().split(".")[:2])
CHECKOV = ROOT / ".venv-checkov" / "bin" / "checkov"
LAST_THREE = [f"{MAJOR}.{MINOR - age}" for age in range(3)]


@pytest.mark.slow
@needs_kubectl
@pytest.mark.parametrize("version", LAST_THREE)
def test_every_object_is_valid_in_the_last_three_kubernetes(version: str) -> None:
    objects = {json.dumps(thing): thing for overlay in OVERLAYS for thing in render(overlay)}
    for thing in objects.values():
        assert kubernetes_validate.validate(thing, version, strict=True) == version


def test_an_unknown_field_would_be_found() -> None:
    policy = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "datum": {}}
    with pytest.raises(kubernetes_validate.ValidationError, match="datum"):
        kubernetes_validate.validate(policy, kubernetes_validate.latest_version(), strict=True)


def _pod_specs(objects: tuple[Object, ...]) -> Iterator[tuple[str, Object]]:
    for thing in objects:
        spec = thing.get("spec", {})
        if thing["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if "template" in spec or thing["kind"] == "Pod":
            yield thing["metadata"]["name"], spec.get("template", thing)["spec"]


@needs_kubectl
@pytest.mark.parametrize("overlay", ["local", "minio"])
def test_a_server_is_restricted_and_never_another_image(overlay: str) -> None:
    pods = list(_pod_specs(render(overlay)))
    assert [name for name, _ in pods] == ["s3"]
    for _, pod in pods:
        assert not breaches(pod)
        assert not pod["automountServiceAccountToken"]
        for container in pod["containers"]:
            assert re.search(r":[\w.-]+@sha256:[0-9a-f]{64}$", container["image"])
            assert container["securityContext"]["readOnlyRootFilesystem"]
            assert container["resources"].keys() == {"requests", "limits"}
    (namespace,) = find(overlay, "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@needs_kubectl
@pytest.mark.parametrize("overlay", ["standalone", "multi-user", "aws", "gpu"])
def test_other_overlays_start_no_pod(overlay: str) -> None:
    assert not list(_pod_specs(render(overlay)))


def test_breaches_of_pod_security_would_be_found() -> None:
    assert breaches({"containers": [{}]}) == {"allowPrivilegeEscalation", "runAsNonRoot", "seccompProfile", "drop"}
    volumes = [{"name": "a", "hostPath": {"path": "/"}}, {"name": "b", "emptyDir": {}}]
    assert breaches({"hostPID": True, "volumes": volumes, "containers": []}) == {"hostPID", "volumes"}
    context = {"privileged": True, "runAsUser": 0, "capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}
    container = {"securityContext": context, "ports": [{"hostPort": 80}]}
    pod = {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "Unconfined"}},
        "initContainers": [container],
    }
    broken = {"privileged", "allowPrivilegeEscalation", "runAsUser", "seccompProfile", "add", "hostPort"}
    assert breaches(pod) == broken


@needs_kubectl
@pytest.mark.parametrize("overlay", RUNS_LIVE_IN)
def test_the_objects_that_the_pipeline_names_exist(overlay: str) -> None:
    secrets = find(overlay, "Secret", RUNS_LIVE_IN[overlay])
    keyless = {DEFAULTS["s3_secret"]} if overlay == "aws" else set()
    assert secrets.keys() == {DEFAULTS["s3_secret"], DEFAULTS["source_secret"]} - keyless
    (config,) = find(overlay, "ConfigMap", RUNS_LIVE_IN[overlay]).values()
    assert config["metadata"]["name"] == DEFAULTS["s3_config"]
    needed = {"AWS_ENDPOINT_URL_S3", "AWS_REGION"} - ({"AWS_ENDPOINT_URL_S3"} if overlay == "aws" else set())
    assert config["data"].keys() == needed <= set(S3_SETTINGS)


@pytest.mark.slow
@needs_kubectl
@pytest.mark.skipif(not CHECKOV.exists(), reason="checkov has an environment of its own, which `make test` makes")
@pytest.mark.parametrize("overlay", ["local", "minio"])
def test_checkov_finds_only_the_breach_that_is_put_in(overlay: str, tmp_path: Path) -> None:
    objects = list(render(overlay))
    assert _checkov(objects, tmp_path) == 0
    server = copy.deepcopy(next(thing for thing in objects if thing["kind"] in ("StatefulSet", "Deployment")))
    server["spec"]["template"]["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    assert _checkov([server], tmp_path) == 1


def _checkov(objects: list[Object], folder: Path) -> int:
    """Return the exit code of checkov's offline checks of the restricted profile."""
    (folder / "rendered.yaml").write_text(yaml.safe_dump_all(objects))
    checks = ",".join(f"CKV_K8S_{number}" for number in (16, 17, 18, 19, 20, 23, 26, 27, 31, 37))
    options = ["--framework", "kubernetes", "--compact", "--quiet", "--skip-download", "--check", checks]
    command = [str(CHECKOV), "-f", str(folder / "rendered.yaml"), *options]
    environment = {"HOME": str(folder), "PATH": os.environ["PATH"]}
    return subprocess.run(command, env=environment, capture_output=True, timeout=300).returncode


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_has_a_value(overlay: str) -> None:
    for secret in find(overlay, "Secret").values():
        assert secret.keys() == {"apiVersion", "kind", "metadata", "type"}
    for pod in dict(_pod_specs(render(overlay))).values():
        assert all("valueFrom" in variable for container in pod["containers"] for variable in container["env"])


@needs_kubectl
@pytest.mark.parametrize("overlay", ["local", "minio"])
def test_server_and_runs_take_their_keys_from_one_secret(overlay: str) -> None:
    (pod,) = dict(_pod_specs(render(overlay))).values()
    references = [variable["valueFrom"]["secretKeyRef"] for variable in pod["containers"][0]["env"]]
    assert {reference["name"] for reference in references} <= find(overlay, "Secret", "torch2kubeflow-s3").keys()
    assert {reference["key"] for reference in references} <= set(S3_KEYS)
    (service,) = find(overlay, "Service").values()
    place, port = service["metadata"], service["spec"]["ports"][0]["port"]
    endpoint = find(overlay, "ConfigMap")[DEFAULTS["s3_config"]]["data"]["AWS_ENDPOINT_URL_S3"]
    assert endpoint == f"http://{place['name']}.{place['namespace']}.svc:{port}"  # .svc: never by a proxy


@needs_kubectl
def test_standalone_has_nothing_that_touches_kfp_itself() -> None:
    for thing in render("standalone"):
        assert thing["kind"] in ("Secret", "ConfigMap", "Role", "RoleBinding", "NetworkPolicy")
        assert thing["metadata"]["namespace"] == "kubeflow"
        assert thing["metadata"]["name"].startswith("torch2kubeflow")
    for policy in find("standalone", "NetworkPolicy").values():
        assert policy["spec"]["podSelector"] == {"matchLabels": {"app.kubernetes.io/part-of": "torch2kubeflow"}}


@needs_kubectl
def test_the_role_is_bound_to_the_account_of_runs() -> None:
    (role,), (binding,) = find("standalone", "Role").values(), find("standalone", "RoleBinding").values()
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "pipeline-runner", "namespace": "kubeflow"}]
    for rule in role["rules"]:
        assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"]


@needs_kubectl
def test_the_quota_requires_nothing_that_pods_leave_out() -> None:
    (quota,), (limits,) = find("multi-user", "ResourceQuota").values(), find("multi-user", "LimitRange").values()
    (container,) = limits["spec"]["limits"]
    for name in quota["spec"]["hard"]:
        kind, _, resource = name.partition(".")
        if kind in ("requests", "limits") and "/" not in resource:
            assert resource in container["defaultRequest" if kind == "requests" else "default"], name


@needs_kubectl
def test_the_profile_does_not_change_its_controllers_objects() -> None:
    assert not find("multi-user", "Namespace")
    assert find("multi-user", "ConfigMap").keys() == {DEFAULTS["s3_config"]}


def _patched(path: Path, stored: Object, tmp_path: Path) -> Object:
    (tmp_path / "stored.yaml").write_text(yaml.safe_dump({"apiVersion": "v1", **stored}))
    files = ["-f", str(tmp_path / "stored.yaml"), "--patch-file", str(path)]
    command = ["kubectl", "patch", "--local", *files, "-o", "yaml"]
    patched: Object = yaml.safe_load(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return patched


def _theirs(path: Path) -> Object:
    """Return an object of the kind that a patch is for, with a field of its owner's."""
    if path.stem == "namespace":
        return {"kind": "Namespace", "metadata": {"name": "theirs", "labels": {"theirs": "unchanged"}}}
    if path.stem != "argo-requeue":
        return {"kind": "ConfigMap", "metadata": {"name": "theirs"}, "data": {"theirs": "unchanged"}}
    container = {"name": "workflow-controller", "image": "argo", "env": [{"name": "theirs", "value": "unchanged"}]}
    template = {"metadata": {"labels": {"app": "argo"}}, "spec": {"containers": [container]}}
    spec = {"selector": {"matchLabels": {"app": "argo"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "theirs"}, "spec": spec}


@needs_kubectl
@pytest.mark.parametrize("path", PATCHES, ids=lambda path: path.stem)
def test_a_patch_leaves_other_fields_alone(path: Path, tmp_path: Path) -> None:
    stored = _theirs(path)
    patched = _patched(path, stored, tmp_path)
    assert json.dumps(patched).count("unchanged") == 1 and patched != {"apiVersion": "v1", **stored}
    assert kubernetes_validate.validate(patched, kubernetes_validate.latest_version(), strict=True)
    assert str(path.relative_to(ROOT)) in (ROOT / "docs" / "cluster.md").read_text()


@needs_kubectl
def test_the_pace_is_added_to_the_variables_of_argo(tmp_path: Path) -> None:
    path = MANIFESTS / "admin" / "argo-requeue.yaml"
    (container,) = _patched(path, _theirs(path), tmp_path)["spec"]["template"]["spec"]["containers"]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    assert variables == {"theirs": "unchanged", "DEFAULT_REQUEUE_TIME": "1s"} and container["image"] == "argo"


@needs_kubectl
def test_the_profiles_launcher_takes_the_keys_of_the_steps() -> None:
    patch = yaml.safe_load((MANIFESTS / "overlays" / "multi-user" / "patches" / "kfp-launcher.yaml").read_text())
    s3 = yaml.safe_load(patch["data"]["providers"])["s3"]["default"]
    reference = s3["credentials"]["secretRef"]
    assert reference["secretName"] == DEFAULTS["s3_secret"]
    assert {reference["accessKeyKey"], reference["secretKeyKey"]} <= set(S3_KEYS)
    place = find("multi-user", "ConfigMap")[DEFAULTS["s3_config"]]["data"]
    assert (f"http://{s3['endpoint']}", s3["region"]) == (place["AWS_ENDPOINT_URL_S3"], place["AWS_REGION"])


def test_the_retry_policy_is_one_of_argos_and_the_zone_exists() -> None:
    retry = yaml.safe_load((MANIFESTS / "admin" / "argo-retry-policy.yaml").read_text())["data"]["workflowDefaults"]
    assert yaml.safe_load(retry)["spec"]["templateDefaults"]["retryStrategy"]["retryPolicy"] == "Always"
    zone = yaml.safe_load((MANIFESTS / "admin" / "schedule-time-zone.yaml").read_text())["data"]["cronScheduleTimezone"]
    assert ZoneInfo(zone).key == zone


def test_the_gpu_parameters_are_accepted_by_the_pipeline() -> None:
    examples = yaml.safe_load((MANIFESTS / "overlays" / "gpu" / "parameters.yaml").read_text())
    for example in examples.values():
        assert example.keys() <= DEFAULTS.keys() & {"gpus", *Pods.model_fields}
        assert example.items() <= Parameters.of(**example).values().items()


def test_docs_name_every_overlay_and_no_missing_path() -> None:
    text = (ROOT / "docs" / "cluster.md").read_text()
    paths = re.findall(r"manifests/[\w./-]*\w", text)
    assert {f"manifests/overlays/{overlay}" for overlay in OVERLAYS} <= set(paths)
    assert sorted(path.name for path in (MANIFESTS / "overlays").iterdir()) == sorted(OVERLAYS)
    for path in paths:
        assert (ROOT / path).exists(), path


@needs_kubectl
@pytest.mark.slow
def test_the_local_server_starts_and_opens_s3_alone(tmp_path: Path) -> None:
    (server,) = find("local", "StatefulSet").values()
    (container,) = server["spec"]["template"]["spec"]["containers"]
    _write_security(tmp_path, server["spec"]["template"]["spec"]["volumes"])
    ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
    changed = {"-dir=/data": f"-dir={tmp_path}", "-ip.bind=0.0.0.0": "-ip.bind=127.0.0.1", "-s3.port=8333": ""}
    changed["-config_dir=/security"] = f"-config_dir={tmp_path}"
    weed = Path(sys.executable).with_name(Path(container["command"][0]).name)
    keys = {variable["name"]: "a-key-of-the-test" for variable in container["env"]}
    words = [changed.get(word, word) for word in container["args"]]
    command = [weed, *filter(None, words), *(f"-{name}={port}" for name, port in ports.items())]
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(command, env=keys, stdout=log, stderr=log)
    try:
        path = container["readinessProbe"]["httpGet"]["path"]
        s3 = f"127.0.0.1:{ports['s3.port']}"
        wait = urllib3.Retry(total=600, backoff_factor=0.1, backoff_max=0.5, status_forcelist=[503])
        assert urllib3.request("GET", f"http://{s3}{path}", retries=wait).status == 200
        access_key, secret_key = keys.values()
        store = Minio(s3, access_key, secret_key, secure=False)
        until = time.monotonic() + 300
        while not store.bucket_exists("torch2kubeflow"):
            assert time.monotonic() < until, (tmp_path / "log").read_text()
            time.sleep(0.1)
        store.put_object("torch2kubeflow", "object", io.BytesIO(b"content"), 7)
        intruder = [sys.executable, str(ROOT / "tests" / "servers" / "intruder.py"), "0", *ports.values()]
        certificate = b"".join((tmp_path / "theirs" / name).read_bytes() for name in ("server.crt", "server.key"))
        found = json.loads(subprocess.run(intruder, input=certificate, capture_output=True, check=True).stdout)
        assert set(found["there"]) >= {ports[name] for name in PORTS if not name.startswith("admin")}
        assert {answer[0] for answer in found["answers"]} <= {ports["s3.port"]}
        assert {status for _, _, status in found["answers"]} <= {0, 403}
    finally:
        process.kill()
        process.wait()


def _write_security(folder: Path, volumes: list[Object]) -> None:
    """Write the server's certificate as the documentation says, its configuration, and another server's certificate."""
    (command,) = re.findall("^openssl req .*", (ROOT / "docs" / "cluster.md").read_text(), re.MULTILINE)
    subprocess.run(shlex.split(command), cwd=folder, check=True, capture_output=True)
    shutil.copyfile(folder / "tls.crt", folder / "ca.crt")
    (tls,) = (volume["secret"] for volume in volumes if volume["name"] == "tls")
    assert {item["path"] for item in tls["items"]} == {"ca.crt", "tls.crt", "tls.key"}
    text = find("local", "ConfigMap", "torch2kubeflow-s3")["s3-security"]["data"]["security.toml"]
    (folder / "security.toml").write_text(text.replace('"/tls/', f'"{folder}/'))
    write_certificates(folder / "theirs", "127.0.0.1")


def _trainer() -> dict[str, Object]:
    """Return the objects in manifests/trainer by kind."""
    command = ["kubectl", "kustomize", str(MANIFESTS / "trainer")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {thing["kind"]: thing for thing in yaml.safe_load_all(done.stdout)}


@needs_kubectl
def test_the_runtime_is_valid_and_its_pods_are_restricted() -> None:
    from kubeflow_trainer_api.models import TrainerV1alpha1TrainingRuntime  # which takes half a second

    runtime = _trainer()["TrainingRuntime"]
    assert TrainerV1alpha1TrainingRuntime.from_dict(runtime).to_dict() == runtime
    assert runtime["metadata"]["name"] == manifest.RUNTIME
    (job,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert job["name"] == manifest.NODE
    template = job["template"]["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "node", **template["metadata"]}}
    assert kubernetes_validate.validate(pod | {"spec": template["spec"]}, LAST_THREE[0], strict=True)
    assert not breaches(template["spec"]) and not template["spec"]["automountServiceAccountToken"]
    (container,) = template["spec"]["containers"]
    assert container["name"] == manifest.NODE and container["securityContext"]["readOnlyRootFilesystem"]
    assert template["spec"]["securityContext"]["runAsUser"] == USER
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/tmp", "/dev/shm"}


@needs_kubectl
def test_only_a_node_that_was_not_preempted_counts_as_failed() -> None:
    template = _trainer()["TrainingRuntime"]["spec"]["template"]["spec"]
    (job,), policy = template["replicatedJobs"], template["failurePolicy"]
    spec = job["template"]["spec"]
    assert spec["backoffLimit"] == 0 and spec["template"]["spec"]["restartPolicy"] == "Never"
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onPodConditions"]) == ("FailJob", [{"type": "DisruptionTarget", "status": "True"}])
    (ignored,) = policy["rules"]
    assert ignored["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert ignored["action"] == "RestartJobSetAndIgnoreMaxRestarts" and policy["maxRestarts"] > 0


@needs_kubectl
def test_nodes_of_a_training_reach_each_other() -> None:
    objects = _trainer()
    (job,) = objects["TrainingRuntime"]["spec"]["template"]["spec"]["replicatedJobs"]
    labels = job["template"]["spec"]["template"]["metadata"]["labels"]
    policy = objects["NetworkPolicy"]["spec"]
    own = {"podSelector": {"matchLabels": labels}}
    assert policy["podSelector"] == own["podSelector"] and policy["ingress"] == [{"from": [own]}]
    assert {"to": [own]} in policy["egress"]
    kubernetes_validate.validate(objects["NetworkPolicy"], LAST_THREE[0], strict=True)


def _granted() -> set[tuple[str, str, str]]:
    """Return what the role of runs may do: API groups, resources and verbs."""
    (role,) = find("standalone", "Role").values()
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@needs_kubectl
def test_the_role_has_what_doctor_asks_for_many_nodes() -> None:
    assert {*(right[:3] for right in RIGHTS), ("", "pods/log", "get")} <= _granted()


@needs_kubectl
def test_docs_tell_what_the_role_lets_a_run_choose() -> None:
    created = [resource for _, resource, verb in _granted() if verb in ("create", "*")]
    assert created == ["trainjobs"]
    text = (ROOT / "docs" / "cluster.md").read_text()
    for resource in created:
        found = text.partition(f"**What `create` on {resource} lets a run choose.** ")[2].partition("\n\n")[0]
        assert all(word in found for word in ("image", "Secrets", "service account", "leave the rule on trainjobs out"))


def test_the_fragment_for_katib_meets_the_restricted_profile() -> None:
    """Its fields are those of Katib 0.19 (pkg/apis/config/v1beta1/types.go): a suggestion takes all of a container."""
    (block,) = re.findall(r"```yaml\n(.*?)```", (MANIFESTS / "README.md").read_text(), re.DOTALL)
    config = yaml.safe_load(block)
    experiment = yaml.safe_load((MANIFESTS / "katib" / "experiment.yaml").read_text())
    (suggestion,) = config["runtime"]["suggestions"]
    assert suggestion["algorithmName"] == experiment["spec"]["algorithm"]["algorithmName"]
    assert not breaches({"containers": [suggestion]})
    assert config["init"]["controller"] == {"injectSecurityContext": True}
    trial = experiment["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]
    collector = {"securityContext": trial["containers"][0].get("securityContext", {})}
    assert not breaches({**trial, "containers": [collector]})
