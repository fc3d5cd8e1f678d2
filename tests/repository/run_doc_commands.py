"""Run the commands of README and docs that need neither a cluster, Docker nor hours: make test-docs

- `make run`: on small data, for an epoch or two.
- Verbs of the cluster: against a fake server of KFP's API.
- Verbs of the registry: on the store of two local runs.
- `kubectl`: as a dry run of the client.

tests/repository/test_doc_commands.py lists what is left out, and why.
"""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import yaml

import pipeline
from runner.cli import main
from runner.cluster import run
from tests.conftest import ROOT, Runner
from tests.repository.documents import DOCUMENTS, all_commands, blocks, read, words_of_run
from tests.sample_files import picture, sha256, tar_bytes
from tests.servers.kfp_server import KfpServer, Stage, pod_name
from tests.servers.web_server import run_web_server

COMMANDS = all_commands()
# tests/runner/serving/ deploys and serves
SERVING = tuple(f"python pipeline.py {verb}" for verb in ("deploy", "serve"))
VERBS = [command for command in COMMANDS if command.startswith("python pipeline.py ")]
READERS = "models|verify|lineage|demo|predict"  # of a store
REGISTRY = [command for command in VERBS if re.match(rf"python pipeline.py ({READERS})", command)]
CLUSTER = [command for command in VERBS if command not in REGISTRY and not command.startswith(SERVING)]
RUNS = [command for command in COMMANDS if command.startswith("make run ARGS=")]
EPOCHS = 2  # at most, of a local run
PICTURES = {f"{name}/{n}.png": picture(n + 100 * (name == "dog")) for name in ("cat", "dog") for n in range(20)}


def _small(words: list[str], folder: Path, url: str) -> list[str]:
    """Return the words of a run with less work and with data of this machine."""
    options = list(takewhile(lambda word: "=" not in word, words))
    given = dict(word.partition("=")[::2] for word in words[len(options) :])
    data = given.get("data", "mnist")
    if data.startswith("file:"):
        given |= {"data": folder.as_uri(), "batch_size": "8"}
    elif data.startswith("https:"):
        given |= {"data": f"{url}/pictures.tar.gz#sha256={sha256(tar_bytes(PICTURES))}", "batch_size": "8"}
    else:
        given["data"] = "digits"
    given |= {"min_accuracy": "0", "min_recall": "0"}
    given["epochs"] = str(min(int(given.get("epochs", "3")), EPOCHS))
    return [*options, *(f"{name}={value}" for name, value in given.items())]


@pytest.mark.parametrize("command", RUNS)
def test_local_runs(command: str, tmp_path: Path, run_pipeline: Runner) -> None:
    for name, content in PICTURES.items():
        (tmp_path / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pictures" / name).write_bytes(content)
    with run_web_server() as server:
        server.files["/pictures.tar.gz"] = tar_bytes(PICTURES)
        done = run_pipeline(*_small(words_of_run(command), tmp_path / "pictures", server.url))
    assert done.returncode == 0, done.stderr
    assert "verdict        accepted" in done.stdout


def _call(command: str, *more: str) -> object:
    """Run a verb in this process, and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(lambda: pipeline.GRAPHS, [*shlex.split(command)[2:], *more])
    return ended.value.code


@pytest.fixture
def kubeflow(kfp_api: KfpServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> KfpServer:
    """A KFP with a run that has ended."""
    monkeypatch.setattr(run, "POLL_SECONDS", 0.01)
    monkeypatch.chdir(ROOT)
    kfp_api.plan = [Stage("SUCCEEDED", {"train": "SUCCEEDED", "executor#train": "SUCCEEDED"})]
    kfp_api.logs = {pod_name("executor#train"): "[train] there\n"}
    assert _call("python pipeline.py run") == 0
    return kfp_api


@pytest.mark.parametrize("command", CLUSTER)
def test_verbs_of_the_cluster(
    command: str, kubeflow: KfpServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if re.search(r"schedule (pause|resume|remove)", command):
        assert _call('python pipeline.py schedule add nightly "0 2 * * *"') == 0
    code = _call(command, *(["--runs", str(tmp_path)] if "pipeline.py run" in command else []))
    shown = capsys.readouterr()
    # doctor has a KFP here and no Kubernetes
    assert code == 0 or (code == 1 and "doctor" in command and "problem" in shown.out), shown.err
    assert kubeflow.breaches == []


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with two runs, each of which has registered a version of `mnist`."""
    folder = tmp_path_factory.mktemp("runs")
    for epochs in (6, 1):
        words = f"data=digits model_name=mnist epochs={epochs} batch_size=64 min_accuracy=0 min_recall=0"
        assert _call(f"python pipeline.py local {words}", "--runs", str(folder)) == 0
    yield folder


@pytest.mark.parametrize("command", REGISTRY)
def test_verbs_of_the_registry(command: str, runs: Path, tmp_path: Path) -> None:
    more = ["--output", str(tmp_path / "made")] if re.search(" (demo|predict) ?", command) else []
    more += ["--no-serve"] if " demo" in command else []
    assert _call(command, "--runs", str(runs), *more) == 0


@pytest.mark.parametrize("code", blocks(read("docs/registry.md"), "python"))
def test_exported_programs_need_nothing_of_ours(code: str, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs.parent)
    if not (runs.parent / "runs").exists():
        (runs.parent / "runs").symlink_to(runs)
    found: dict[str, Any] = {}
    exec(code, found)
    assert found["probabilities"].shape == (1, 10)


def _kubectl(*words: str, stdin: str = "") -> str:
    done = subprocess.run(["kubectl", *words], input=stdin, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _object(kind: str, name: str) -> str:
    group = "apps/" if kind == "Deployment" else ""
    return yaml.safe_dump({"apiVersion": f"{group}v1", "kind": kind, "metadata": {"name": name}})


@pytest.mark.parametrize("command", [c for c in COMMANDS if re.match("kubectl .*-k ", c)])
def test_kubectl_renders_the_manifests(command: str) -> None:
    (folder,) = re.findall(r"-k (\S+)", command)
    assert list(yaml.safe_load_all(_kubectl("kustomize", folder)))


@pytest.mark.parametrize("command", [c for c in COMMANDS if re.search("^kubectl.* (patch|annotate|label --dry)", c)])
def test_kubectl_changes_an_object(command: str, tmp_path: Path) -> None:
    words = [word for word in shlex.split(command)[1:] if not word.startswith("--dry-run")]
    if words[0] == "-n":
        words = words[2:]
    verb, *rest = words
    flags = [word for word in rest if word.startswith("--overwrite")]
    kind, name, *change = [word for word in rest if word not in flags]
    kinds = {kind.lower(): kind for kind in ("ConfigMap", "Deployment", "Namespace", "ServiceAccount")}
    (tmp_path / "stored.yaml").write_text(_object(kinds[kind], name))
    changed = _kubectl(verb, "--local", *flags, "-f", str(tmp_path / "stored.yaml"), *change, "-o", "yaml")
    assert yaml.safe_load(changed).keys() | yaml.safe_load(changed)["metadata"].keys() > {"apiVersion", "kind", "name"}


@pytest.mark.parametrize("command", [c for c in COMMANDS if "create secret" in c and "--from-env-file" in c])
def test_kubectl_makes_the_secret(command: str, tmp_path: Path) -> None:
    (tmp_path / "s3.env").write_text("AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=b\n")
    words = shlex.split(command.partition("|")[0].replace("s3.env", str(tmp_path / "s3.env")))[1:]
    made = yaml.safe_load(_kubectl(*words))
    assert made["data"].keys() == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


@pytest.mark.parametrize("command", [c for c in COMMANDS if "create secret" in c and "--from-file" in c])
def test_kubectl_makes_the_secret_of_a_certificate(command: str, tmp_path: Path) -> None:
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).write_text("PEM")
    words = [re.sub(r"=(\S*=)?(tls\.\w+)", rf"=\g<1>{tmp_path}/\2", word) for word in shlex.split(command)[1:]]
    made = yaml.safe_load(_kubectl(*words, "--dry-run=client", "-o", "yaml"))
    assert made["data"].keys() == {"ca.crt", "tls.crt", "tls.key"}


@pytest.mark.parametrize("command", [c for c in COMMANDS if "create rolebinding" in c])
def test_kubectl_binds_a_role_of_the_manifests(command: str) -> None:
    made = yaml.safe_load(_kubectl(*shlex.split(command)[1:], "--dry-run=client", "-o", "yaml"))
    folders = ("manifests/overlays/multi-user", "manifests/serving")
    rendered = [one for folder in folders for one in yaml.safe_load_all(_kubectl("kustomize", folder))]
    assert made["roleRef"]["name"] in {one["metadata"]["name"] for one in rendered if one["kind"] == "Role"}


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_make_knows_the_commands(command: str) -> None:
    words = shlex.split(command)[1:]
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_yaml_in_documents_is_valid(document: Path) -> None:
    for block in blocks(document.read_text(), "yaml"):
        yaml.safe_load(block)
