"""The images of the steps: their locks, their content, and the whole compiled pipeline in their containers."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, NamedTuple

import docker
import numpy as np
import onnxruntime
import pytest
import requests
import yaml

import pipeline
from components.shared.container_images import NAMES
from components.shared.core.code_digest import code_digest
from components.shared.core.files import sha256_file
from components.shared.data.dataset import open_dataset
from components.shared.model_server.options import PORT
from components.shared.model_server.server import Address
from components.shared.prediction.document import PredictionsDocument
from components.shared.prediction.table import row_count
from components.shared.training.loop import ENGINE
from components.step_table import MODULES
from runner.compile import compile_pipeline
from tests.conftest import ROOT
from tests.images.containers import base_image, docker_client, registry
from tests.model_server.running_server import SHAPE, ask, binary
from tests.prediction.programs import write_package
from tests.sample_files import picture

CLASSES = ("cat", "dog", "owl")
SERVE = ("python", "-m", "components.entrypoints.serve_model")
PARAMETERS = {"data": "file:///pictures", "epochs": 300, "batch_size": "8", "options": {"threads": 1}}
PARAMETERS |= {"min_accuracy": 0.0, "min_recall": 0.0}
FILES = (".dockerignore", ".gitignore", "Makefile", "pipeline.py", "requirements-uv.txt")
FOLDERS = ("components", "docker", "runner")
BYTES = {"data": 700e6, "serve": 850e6}


def _steps(package: Path) -> dict[str, str]:
    """Return the image of every step of a compiled pipeline."""
    executors = next(yaml.safe_load_all(package.read_text()))["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-"): executor["container"]["image"] for name, executor in executors.items()}


def _pins(lock: Path) -> dict[str, str]:
    """Return the hashes of each pin (`name==version ; marker`) of a lock."""
    found = re.findall(r"^(\S+==.*?) \\\n((?:    --hash=\S+(?: \\)?\n)+)", lock.read_text(), re.M)
    return {pin: hashes.replace(" \\", "") for pin, hashes in found}


def _names(pins: dict[str, str]) -> set[str]:
    return {pin.partition("==")[0] for pin in pins}


def _normalized(name: str) -> str:
    """Return the name of a package as locks write it."""
    return re.sub("[-_.]+", "-", name).lower()


def _unconditional(pins: dict[str, str]) -> dict[str, str]:
    """Return the pins without their platforms, which depend on the other packages in a lock."""
    return {pin.partition(" ;")[0]: hashes for pin, hashes in pins.items()}


@pytest.mark.parametrize("name", ["data", "serve", "torch", "kfp"])
def test_the_locks_of_the_images_pin_the_same_versions(name: str) -> None:
    pins = _pins(ROOT / "docker" / f"{name}.txt")
    lines = (ROOT / "docker" / f"{name}.in").read_text().splitlines()
    wanted = {line.partition("[")[0] for line in lines if not line.startswith("#")}
    assert {_normalized(name) for name in wanted} <= _names(pins), "run `make lock`"
    assert _unconditional(pins).items() <= _unconditional(_pins(ROOT / "requirements.txt")).items(), "run `make lock`"


def _reached(module: str, seen: set[str]) -> set[str]:
    """Return all modules that one of our modules imports, at any depth and in functions, too."""
    path = ROOT / Path(*module.split("."))
    path = next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), path)
    if module in seen or not path.is_file():
        return seen | {module}
    seen = seen | {module}
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            seen = _reached(name, seen)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("graph", pipeline.GRAPHS)
def test_an_image_holds_what_its_steps_import(tmp_path: Path, graph: str) -> None:
    pins = {name: _names(_pins(ROOT / "docker" / f"{name}.txt")) for name in NAMES}
    holds = {name: pins["data"] | pins[name] for name in NAMES}
    distributions = packages_distributions()
    trainjob = {
        "components.shared.training.distributed.trainjob.backend"
    }  # only in that graph does `finish` delete jobs
    unreached = set() if graph == "distributed" else trainjob
    for step, image in _steps(compile_pipeline(pipeline.GRAPHS[graph], tmp_path / "pipeline.yaml")).items():
        modules = {name.partition(".")[0] for name in _reached(MODULES[step.replace("-", "_")], unreached)}
        others = modules - sys.stdlib_module_names - {"components"}
        packages = {_normalized(distributions[name][0]) for name in others}
        (name,) = (name for name in NAMES if f"/{name}" in image)
        assert packages <= holds[name], step
        assert (packages <= pins["data"]) == (name == "data"), f"{step} runs in the smaller image that will do"


def test_a_step_in_an_image_imports_no_code_of_its_folder(tmp_path: Path) -> None:
    stages = (ROOT / "docker" / "Dockerfile").read_text().split("\nFROM ")
    (packages,) = [stage for stage in stages if stage.partition("\n")[0].endswith(" AS data-packages")]
    heads = [stage.partition("\n")[0] for stage in stages]
    assert (
        "data-packages AS data" in heads
        and "data-packages AS torch-packages" in heads
        and "torch-packages AS torch" in heads
    )
    found = dict(re.findall(r"^ENV (PYTHONSAFEPATH)=(\S+)$", packages, re.MULTILINE))
    for name in ("components", "json", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('of the folder')")
    command = [sys.executable, "-m", "components.entrypoints.run_step", "finish", "1", "2", "{}"]
    done = subprocess.run(command, cwd=tmp_path, env={**found, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode and "of the folder" not in done.stderr


def test_hadolint_finds_nothing() -> None:
    command = [str(Path(sys.executable).parent / "hadolint"), "--no-color", str(ROOT / "docker" / "Dockerfile")]
    linted = subprocess.run(command, capture_output=True, text=True)
    assert (linted.returncode, linted.stdout) == (0, "")


def _checkout(folder: Path, **changed: str) -> Path:
    """Copy what the images are built from to a new, clean git repository.

    Files that are `changed` (name -> text) have another content.
    """
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copyfile(ROOT / name, folder / name)
    for name, text in changed.items():
        (folder / name).write_text(text)
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for words in (["init"], ["add", "."], [*identity, "commit", "--message=images"]):
        subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)
    return folder


def _make(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `make` as a user would; Debian's own client of Docker knows BuildKit, another one in PATH may not."""
    environment = {**os.environ, "PATH": f"/usr/bin{os.pathsep}{os.environ['PATH']}"}
    command = ["make", f"PYTHON={sys.executable}", *words]
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("push", "https://registry.example.org"), "REGISTRY=https://registry.example.org"),
        (("push", ""), "REGISTRY= is no registry"),
        (("build", "--tag", "v 1"), "TAG=v 1"),
        (("build",), "`docker` is not installed"),
        (("push", "registry.example.org/me"), "no git checkout"),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(words: tuple[str, ...], error: str) -> None:
    command = [sys.executable, "-m", "runner.build_images", *words]
    refused = subprocess.run(command, cwd=ROOT, env={"PATH": "/nowhere"}, capture_output=True, text=True)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: ") and error in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_dirty_tree_is_not_pushed(tmp_path: Path) -> None:
    checkout = _checkout(tmp_path / "checkout")
    (checkout / "components" / "draft.py").touch()
    refused = _make(checkout, "push", "REGISTRY=registry.example.org/me")
    assert refused.returncode == 2
    assert "the git tree is dirty (?? components/draft.py)" in refused.stderr
    assert not (checkout / "build").exists()


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder for gigabytes, on the disk of .venv."""
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def client(place: Path) -> Iterator[docker.DockerClient]:
    """A client of Docker; the images that the tests make are removed at the end."""
    with docker_client(place) as client:
        before = _our_images(client)
        with base_image(client):
            yield client
        _remove(client, _our_images(client) - before)


def _our_images(client: docker.DockerClient) -> set[str]:
    names = {name for image in client.images.list() for name in (*image.tags, *(image.attrs["RepoDigests"] or ()))}
    return {name for name in names if "torch2kubeflow/" in name}


def _remove(client: docker.DockerClient, names: set[str]) -> None:
    for name in names:
        with suppress(docker.errors.ImageNotFound):  # which went with another of its names
            client.images.remove(name, force=True)


class Built(NamedTuple):
    """A checkout, the version of its code, its commit, and its compiled pipeline."""

    checkout: Path
    version: str
    code_version: str
    commit: str
    package: Path


def _built(checkout: Path, *words: str) -> Built:
    """Run `make` with these words in a checkout, then compile the pipeline there."""
    done = _make(checkout, *words)
    assert done.returncode == 0, done.stderr
    ask = (
        "from components.shared.container_images import image_version; "
        "from components.shared.core.code_digest import code_version; "
        "print(image_version(), code_version())"
    )
    version, code, commit = " ".join(
        subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True).stdout
        for command in ([sys.executable, "-c", ask], ["git", "rev-parse", "HEAD"])
    ).split()
    subprocess.run([sys.executable, "pipeline.py", "compile"], cwd=checkout, check=True, capture_output=True)
    return Built(checkout, version, code, commit, checkout / "build" / "pipeline.yaml")


@pytest.fixture(scope="module")
def built(client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return _built(_checkout(tmp_path_factory.mktemp("built") / "checkout"), "images", "TAG=v1")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_image_carries_commit_and_version(built: Built, client: docker.DockerClient, name: str) -> None:
    image = client.images.get(f"torch2kubeflow/{name}:v1")
    assert f"torch2kubeflow/{name}:{built.version}" in image.tags
    assert image.labels["org.opencontainers.image.revision"] == built.commit
    assert image.labels["org.opencontainers.image.version"] == "v1"


@pytest.mark.slow
@pytest.mark.parametrize("name", BYTES)
def test_images_without_pytorch_are_small(built: Built, client: docker.DockerClient, name: str) -> None:
    assert client.images.get(f"torch2kubeflow/{name}:v1").attrs["Size"] <= BYTES[name]


INSIDE = """
import json, os, pathlib
from components.shared.core.code_digest import code_version
opt = list(pathlib.Path("/opt").rglob("*"))
print(json.dumps({
    "user": [os.getuid(), os.getgid()],
    "code_version": code_version(),
    "holds": sorted(str(path) for top in ("/opt", "/opt/app") for path in pathlib.Path(top).iterdir()),
    "writable": [str(path) for path in opt if not path.is_symlink() and os.access(path, os.W_OK)],
}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_image_holds_only_the_code_which_is_read_only(built: Built, client: docker.DockerClient, name: str) -> None:
    shown = client.containers.run(f"torch2kubeflow/{name}:v1", ["python", "-c", INSIDE], remove=True)
    assert json.loads(shown) == {
        "user": [65532, 65532],
        "code_version": built.code_version,
        "holds": ["/opt/app", "/opt/app/components", "/opt/venv"],
        "writable": [],
    }


@pytest.mark.slow
def test_the_image_serve_serves_locked_down(built: Built, client: docker.DockerClient, tmp_path: Path) -> None:
    write_package(tmp_path, SHAPE)
    tmp_path.chmod(0o755)
    body, headers = binary(np.zeros((1, *SHAPE), np.uint8))
    locked: dict[str, Any] = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}
    container = client.containers.run(
        "torch2kubeflow/serve:v1",
        [*SERVE, "--package", "/package", "--host", "0.0.0.0"],
        **locked,
        tmpfs={"/tmp": ""},
        volumes={str(tmp_path): {"bind": "/package", "mode": "ro"}},
        ports={f"{PORT}/tcp": ("127.0.0.1", None)},
        detach=True,
    )
    try:
        while b"gRPC at" not in container.logs():
            container.reload()
            assert container.status == "running", container.logs()
        container.reload()
        port = int(container.ports[f"{PORT}/tcp"][0]["HostPort"])
        answer = ask(Address("127.0.0.1", port, 0), "/v2/models/model/infer", body, **headers)
        assert answer.status == 200 and b'"model_name": "model"' in answer.content
        container.stop(timeout=30)
        assert container.wait()["StatusCode"] == 0
    finally:
        container.remove(force=True)


@pytest.mark.slow
def test_the_image_serve_has_what_prediction_needs(built: Built, client: docker.DockerClient) -> None:
    folder = ROOT / "components" / "shared" / "prediction"
    names = [f"components.shared.prediction.{path.stem}" for path in folder.glob("*.py") if path.stem != "__init__"]
    code = f"import importlib, kfp, sys; [importlib.import_module(n) for n in {names}]; print('torch' in sys.modules)"
    command = ["python", "-W", "ignore", "-c", code]
    shown = client.containers.run("torch2kubeflow/serve:v1", command, environment={"_KFP_RUNTIME": "true"}, remove=True)
    assert shown == b"False\n"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "pictures"
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for seed in range(20):
            (folder / name / f"{seed}.png").write_bytes(picture(100 * number + seed))
    return folder


def _run(
    package: Path, pictures: Path, root: Path, *step: str, parameters: Mapping[str, Any] = PARAMETERS
) -> subprocess.CompletedProcess[str]:
    """Run a pipeline with its artifacts below `root`, killing the first container of a step if one is given."""
    root.mkdir()
    arguments = [*map(str, (package, root, pictures)), json.dumps(parameters), *step]
    command = [sys.executable, str(Path(__file__).with_name("run_in_docker.py")), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert not list(root.rglob("*.partial")), done.stdout
    return done


def _ended(root: Path) -> set[str]:
    """Return the steps that succeeded."""
    return {path.parent.name for path in root.rglob("executor_output.json")}


def _record(root: Path) -> dict[str, Any]:
    (record,) = root.glob("*/finish/record/record.json")
    document: dict[str, Any] = json.loads(record.read_text())
    return document


def _model(root: Path) -> list[str]:
    (model,) = root.glob("*/train/model")
    return [sha256_file(model / name) for name in ("model.safetensors", "model.json")]


@pytest.fixture(scope="module")
def ran(built: Built, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifacts of a run of the whole pipeline."""
    root = tmp_path_factory.mktemp("ran") / "root"
    done = _run(built.package, pictures, root)
    assert done.returncode == 0, done.stdout
    return root


@pytest.mark.slow
def test_the_whole_pipeline_runs_locked_down(built: Built, ran: Path) -> None:
    assert _ended(ran) == set(_steps(built.package))
    assert _record(ran)["state"] == "SUCCEEDED"
    assert {path.stat().st_uid for path in ran.rglob("*")} == {os.getuid() or 65532}
    (folder,) = ran.iterdir()
    model = json.loads((folder / "train" / "model" / "model.json").read_text())
    assert model["code_version"] == code_digest(ENGINE, built.checkout)
    images, labels = open_dataset(folder / "preprocess" / "dataset").load("test")
    session = onnxruntime.InferenceSession(folder / "export" / "package" / "model.onnx")
    (probabilities,) = session.run(None, {"images": images})
    found = json.loads((folder / "evaluate" / "metrics").read_text())["accuracy"]
    assert np.mean(np.argmax(probabilities, axis=1) == labels) == pytest.approx(found)


@pytest.mark.slow
def test_the_graph_prediction_runs_locked_down(
    built: Built, client: docker.DockerClient, pictures: Path, tmp_path: Path
) -> None:
    """Each step starts in its image, which has no PyTorch; two pods write parts, and they are collected."""
    graph = built.package.with_name("prediction.yaml")
    images = _steps(graph)
    assert {name for name, image in images.items() if "/serve:" in image} == {"predict", "collect"}
    for image in {*images.values()}:
        code = "from importlib.util import find_spec; print(find_spec('torch'))"
        assert client.containers.run(image, ["python", "-c", code], remove=True) == b"None\n", image
    shutil.copytree(pictures, tmp_path / "inputs" / "pictures")
    write_package(tmp_path / "inputs" / "package", (3, 224, 224))  # large images, so that 60 make two parts
    parameters = {"data": "file:///pictures/pictures", "model": "file:///pictures/package", "parts": 2}
    done = _run(graph, tmp_path / "inputs", tmp_path / "root", parameters=parameters)
    assert done.returncode == 0, done.stdout
    assert _ended(tmp_path / "root") == set(images)
    assert _record(tmp_path / "root")["state"] == "SUCCEEDED"
    (predictions,) = tmp_path.glob("root/*/collect/predictions")
    found = PredictionsDocument.read(predictions / "predictions.json")
    assert (found.rows, found.errors, found.labelled) == (60, 0, 60)
    assert [row_count(predictions / name) for name in found.parts] == [40, 20]
    shares = tmp_path.glob("root/*/*/predict/share")
    assert sorted(len([*share.glob("part-*.parquet")]) for share in shares) == [1, 1], "of two pods"


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_model(built: Built, pictures: Path, ran: Path, tmp_path: Path) -> None:
    done = _run(built.package, pictures, tmp_path / "root", "train")
    assert done.returncode == 0, done.stdout
    assert "killed with ['model.partial']" in done.stdout
    assert _model(tmp_path / "root") == _model(ran)


@pytest.mark.slow
def test_pushed_images_are_pinned_and_pulled_by_digest(
    client: docker.DockerClient, place: Path, pictures: Path, tmp_path: Path
) -> None:
    """The lock has no PyTorch, whose gigabytes take minutes to push: train cannot import it, and ends the run."""
    code = ROOT / "components" / "__init__.py"
    changed = {"components/__init__.py": code.read_text() + "# pushed\n", "docker/torch.txt": "not-asked-for\n"}
    changed["docker/serve.txt"] = (ROOT / "docker" / "kfp.txt").read_text()  # for the same reason
    with registry(place) as host:
        pushed = _built(_checkout(tmp_path / "checkout", **changed), "push", f"REGISTRY={host}", "TORCH_LOCK=kfp.txt")
        record = json.loads((pushed.checkout / "build" / "images.json").read_text())
        assert record == {"version": pushed.version, "images": _digests(host, pushed.version)}
        graphs = (pushed.package, pushed.package.with_name("prediction.yaml"))
        assert {image for graph in graphs for image in _steps(graph).values()} == set(record["images"].values())
        _remove(client, {name for name in _our_images(client) if pushed.version in name or host in name})
        assert not _our_images(client) & set(record["images"].values()), "so they are pulled"
        done = _run(pushed.package, pictures, tmp_path / "root")
    assert done.returncode == 1
    assert "No module named 'torch'" in done.stdout
    assert _ended(tmp_path / "root") == {"resolve", "download", "preprocess", "finish"}
    assert _record(tmp_path / "root")["state"] == "FAILED"


@pytest.mark.slow
def test_the_build_of_pytorch_is_passed_to_uv(client: docker.DockerClient, tmp_path: Path) -> None:
    refused = _make(_checkout(tmp_path / "checkout"), "images", "TORCH_LOCK=kfp.txt", "UV_TORCH_BACKEND=abacus")
    assert refused.returncode == 2
    assert "abacus" in refused.stderr and "--torch-backend" in refused.stderr


def _digests(host: str, tag: str) -> dict[str, str]:
    """Return the names of the images with the digests that the registry reports."""
    found = {}
    for name in NAMES:
        url = f"http://{host}/v2/torch2kubeflow/{name}/manifests/{tag}"
        headers = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
        digest = requests.head(url, headers=headers, timeout=10).headers["Docker-Content-Digest"]
        found[name] = f"{host}/torch2kubeflow/{name}@{digest}"
    return found
