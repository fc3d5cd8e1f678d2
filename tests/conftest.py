"""Fixtures that several folders of tests share."""

import functools
import gc
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import yaml

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before any import of onnxruntime
# Before any import of PyTorch: its threads would wait for each other in a loop, on CPUs that all test processes share.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

with warnings.catch_warnings():  # packages behind KFP warn when they are imported; later, warnings are errors
    warnings.simplefilter("ignore")
    gc.disable()  # until all is imported: it would look through what the libraries have made again and again
    import kfp.local  # noqa: F401

from components.shared.core import log
from components.shared.parameters.evaluation import EvaluateRecipe, ExportRecipe
from components.shared.storage.client import Store, open_store
from tests.servers.kfp_server import KfpServer, kfp_server
from tests.servers.proxy_server import ProxyServer, run_proxy_server
from tests.servers.s3_server import BUCKET, Proxy, S3Server, proxy, s3_server
from tests.servers.web_server import WebServer, run_web_server

if TYPE_CHECKING:
    from tests.small_packages import Artifacts

ROOT = Path(__file__).parents[1]
# A background job of a shell ignores Ctrl-C, and so would the runs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
Runner = Callable[..., subprocess.CompletedProcess[str]]


# Each object of KFP's and Kubernetes' models counts the CPUs and sets the level of two loggers, for which Python goes
# through all loggers that there are: a tenth of the CPU time of the quick tests.
multiprocessing.cpu_count = functools.cache(multiprocessing.cpu_count)
_set_level = logging.Logger.setLevel


def _set_another_level(logger: logging.Logger, level: int | str) -> None:
    if level != logger.level:
        _set_level(logger, level)


logging.Logger.setLevel = _set_another_level  # type: ignore[assignment, method-assign]
# KFP writes each compiled pipeline by PyYAML's Python code; libyaml writes the same bytes in a fifth of the time.
yaml.dump_all = functools.partial(yaml.dump_all, Dumper=yaml.CDumper)  # type: ignore[assignment]

# The same inputs in every run, however busy the machine is; --hypothesis-profile=default draws others.
hypothesis.settings.register_profile(
    "steady", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("steady")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with slow tests first, so that parallel workers end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Collect garbage again, but not so often, and leave alone what was imported."""
    gc.set_threshold(20_000, 20, 20)
    gc.freeze()
    gc.enable()


def run_local(runs: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python pipeline.py local --runs RUNS WORD...` as a user would."""
    command = [sys.executable, "pipeline.py", "local", "--runs", str(runs), *words]
    variables = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=600)


@pytest.fixture
def run_pipeline(tmp_path: Path) -> Runner:
    """Return `run_local` for the folder tmp_path/runs."""
    return functools.partial(run_local, tmp_path / "runs")


@pytest.fixture
def run_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Runner]:
    """Return what does the same in this process, which need not import KFP and ours again: 3 s of CPU time less."""
    from pipeline import GRAPHS
    from runner.cli import main

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(lambda: GRAPHS, ["local", "--runs", str(tmp_path / "runs"), *words])
        return subprocess.CompletedProcess(words, int(end.value.code or 0), *capsys.readouterr())

    handler = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the artifacts `dataset` and `model` of the digits, and their `evaluation` and `report.html`."""
    from components.evaluate import evaluate
    from tests.trained_digits import write_dataset, write_model

    folder = tmp_path_factory.mktemp("artifacts")
    dataset, model = write_dataset(folder / "dataset"), write_model(folder / "model", folder / "dataset")
    evaluate(
        dataset=dataset,
        model=model,
        recipe=EvaluateRecipe.of(min_accuracy=0.5, min_recall=0.1, threads=1).text(),
        metrics=folder / "metrics.json",
        classification=folder / "classification.json",
        report=folder / "report.html",
        evaluation=folder / "evaluation",
    )
    return folder


@pytest.fixture
def no_diagrams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let reports have no diagrams: to draw them takes most of the time of a report."""
    monkeypatch.setattr("components.shared.evaluation.report.plots._svg", lambda _figure: "")


@pytest.fixture(scope="session")
def exported_digits(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> "Artifacts":
    """The same artifacts with a package, whose program ONNX Runtime can run; tests only read them."""
    from components.export import export
    from tests.small_packages import Artifacts

    package = tmp_path_factory.mktemp("exported") / "package"
    folders = {name: artifacts / name for name in ("dataset", "model", "evaluation")}
    recipe = ExportRecipe.of(min_accuracy=0.5, min_recall=0.1, threads=1).text()
    export(dataset=folders["dataset"], model=folders["model"], recipe=recipe, package=package)
    return Artifacts(**folders, package=package)


@pytest.fixture(autouse=True)
def log_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the name that steps of an earlier test, run by several threads, have left to the log."""
    monkeypatch.setattr(log, "_name", "log")


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact `dataset` of 600 digits, of 32 x 32 pixels; tests only read it."""
    from tests.trained_digits import write_digits

    return write_digits(tmp_path_factory.mktemp("prepared") / "digits", enlarge=4)


@pytest.fixture(scope="session")
def small_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same digits of 8 x 8 pixels."""
    from tests.trained_digits import write_digits

    return write_digits(tmp_path_factory.mktemp("prepared") / "small_digits", enlarge=1)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server, which all tests share: each file or test has a prefix of its own in the bucket."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def web_server() -> Iterator[WebServer]:
    """A web server on the loopback interface, without files."""
    with run_web_server() as web_server:
        yield web_server


@pytest.fixture
def proxy_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ProxyServer]:
    """A proxy that the environment names for HTTP and HTTPS, without exceptions."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with run_proxy_server() as server:
        monkeypatch.setenv("HTTP_PROXY", server.url)
        monkeypatch.setenv("HTTPS_PROXY", server.url)
        yield server


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an empty cache of downloads and shards, which does not exist yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "torch2kubeflow"


@pytest.fixture
def s3_proxy(server: S3Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before the S3 server, which the environment names; the cache of shards is empty."""
    with proxy(server.address) as s3_proxy:
        for name, value in {**server.environment, "AWS_ENDPOINT_URL_S3": s3_proxy.url}.items():
            monkeypatch.setenv(name, value)
        yield s3_proxy


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the list of waits between attempts, which are recorded and not waited.

    Threads that were already there, such as those of earlier tests, wait as ever.
    """
    waits: list[float] = []
    wait, others = time.sleep, {*threading.enumerate()} - {threading.current_thread()}

    def sleep(seconds: float) -> None:
        (wait if threading.current_thread() in others else waits.append)(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    return waits


@pytest.fixture
def uri(request: pytest.FixtureRequest) -> str:
    """A prefix on the S3 server for this test only."""
    return f"s3://{BUCKET}/tests/{request.node.name.partition('[')[0]}-{time.monotonic_ns()}"


@pytest.fixture
def store(server: S3Server, uri: str) -> Store:
    """The store at `uri`."""
    return open_store(uri, server.environment)


@pytest.fixture
def s3_variables(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment variables by which steps and verbs reach the S3 server."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def kfp_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpServer]:
    """A server of KFP's API, named by the environment, which has no other variables of Kubeflow or Kubernetes."""
    for name in [name for name in os.environ if name.startswith(("KF_PIPELINES_", "KFP_", "KUBE", "SSL_CERT"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with kfp_server() as server:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
        yield server
