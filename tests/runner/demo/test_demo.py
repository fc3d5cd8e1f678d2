"""The verb demo, on a store with a real network: pytest tests/runner/demo/test_demo.py"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import requests

from components.shared.core.errors import TransientError, UserError
from components.shared.data.dataset import open_dataset
from components.shared.registry.registry import RegisteredModel
from components.shared.storage.client import Store
from runner.demo import demo, onnxruntime_web
from runner.demo.folder import POLICY, RUNTIME
from runner.demo.server import bound_server
from runner.demo.versions import DrawnVersion, PageDocument
from tests.conftest import ROOT
from tests.evaluation.page import Page
from tests.runner.demo.browser import CHROMIUM, chromium, served, visited
from tests.runner.demo.stores import store_dataset
from tests.runner.verbs import answered, run_verb
from tests.servers.s3_server import S3Server
from tests.small_packages import Artifacts, right, write_artifacts, write_dataset
from tests.trained_digits import CLASSES

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("s3_variables", "runtime")]

NAME = "digits"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def runtime() -> None:
    try:
        onnxruntime_web.fetch_runtime()
    except TransientError as error:
        pytest.skip(str(error))


@pytest.fixture
def filled(store: Store, exported_digits: Artifacts, tmp_path: Path) -> Store:
    """A store with the network as version 1 of `digits`, and its dataset."""
    register(exported_digits, store, tmp_path / "registered")
    store_dataset(store, exported_digits.dataset)
    return store


def register(made: Artifacts, store: Store, folder: Path, name: str = NAME) -> None:
    folder.mkdir()
    made.register(folder, store.uri(), name)


def make(store: Store, folder: Path, *words: str) -> PageDocument:
    """Make a demo without serving it; return its manifest."""
    assert run_verb(demo, *words, "--store", store.uri(), "--output", str(folder), "--no-serve") == 0
    return PageDocument.read(folder / "demo.json")


def only(manifest: PageDocument) -> DrawnVersion:
    (version,) = manifest.versions
    return version


def probabilities(program: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(program, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(["probabilities"], {"images": images})[0]
    return found


def test_the_folder_has_the_package_and_its_mistakes(filled: Store, exported_digits: Artifacts, tmp_path: Path) -> None:
    version = only(make(filled, tmp_path / "demo"))
    images, labels = open_dataset(exported_digits.dataset).load("test")
    expected = probabilities(exported_digits.package / "model.onnx", images)
    assert probabilities(tmp_path / "demo" / version.file, images).tobytes() == expected.tobytes()
    wrong = np.flatnonzero(expected.argmax(1) != labels)
    assert version.wrong == len(wrong) > 0 and {mistake.number for mistake in version.mistakes} <= {*wrong}
    shares = [mistake.probability for mistake in version.mistakes]
    assert shares == sorted(shares, reverse=True)
    pictures = np.frombuffer((tmp_path / "demo" / version.pictures).read_bytes(), np.uint8).reshape(-1, 1, 32, 32)
    assert np.array_equal(pictures, images[[mistake.number for mistake in version.mistakes]])
    assert (version.is_champion, version.package_digest) == (True, exported_digits.digest)
    assert [layer.name for layer in version.layers] == ["C1", "S2", "C3", "S4"]


def test_the_page_loads_only_files_of_its_folder(filled: Store, tmp_path: Path) -> None:
    make(filled, tmp_path / "demo")
    html = (tmp_path / "demo/index.html").read_text()
    page = Page(html)
    links = [value for name, value in page.attributes if name in ("src", "href")]
    assert len(links) > 6 and all((tmp_path / "demo" / link).is_file() for link in links)
    assert not any(name.startswith("on") or name == "style" for name, _ in page.attributes) and "<style" not in html
    assert ("content", POLICY) in page.attributes and "unsafe-inline" not in POLICY and "'unsafe-eval'" not in POLICY
    for path in (tmp_path / "demo").rglob("*"):
        if path.suffix in (".js", ".css", ".html", ".svg") and path.parent.name != RUNTIME:
            assert "://" not in path.read_text().replace("http://www.w3.org/2000/svg", ""), path


def test_hostile_class_names_are_shown_as_text(filled: Store, tmp_path: Path) -> None:
    if not CHROMIUM.exists():
        pytest.skip("Chromium is not installed")
    make(filled, tmp_path / "demo")
    with chromium() as browser, served(tmp_path / "demo") as address, visited(browser, address) as visit:
        visit.wait()
        visit.draw([[(0.5, 0.2), (0.5, 0.8)]])
        names = visit.page.locator("#bars .name").all_inner_texts()
        assert [" ".join(name.split()) for name in names] == [" ".join(name.split()) for name in CLASSES]
        assert visit.text("h1") == "Draw for digits"
        assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert visit.problems == []


def test_versions_that_are_not_offered_are_named(filled: Store, tmp_path: Path, capsys: Capture) -> None:
    dataset = write_dataset(tmp_path / "small", 100)
    register(write_artifacts(tmp_path / "2", dataset, right(100, range(90)), 1), filled, tmp_path / "registered-2")
    reason = "it takes 1 x 4 x 4 numbers, and a drawing becomes one gray picture of 28 x 28 or more"
    assert only(make(filled, tmp_path / "demo")).version == 1
    assert f"note: left out: version 2: {reason}" in capsys.readouterr().err
    found = answered(demo, "--store", filled.uri(), "--output", str(tmp_path / "demo"), "--no-serve")
    assert isinstance(found, demo.DemoDocument)
    assert (found.versions, found.left_out, found.url) == ([1], [f"version 2: {reason}"], None)
    model = RegisteredModel(filled, NAME)
    model.promote(2)
    with pytest.raises(UserError, match=r"nothing to draw for with digits: 1 older version; .*; version 2: it takes"):
        make(filled, tmp_path / "demo", "--versions", "1")
    assert not (tmp_path / "demo.partial").exists()


def test_models_of_pictures_kept_as_jpeg_are_not_offered(store: Store, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "crops", 100, side=32, keep="jpeg")
    register(write_artifacts(tmp_path / "1", dataset, right(100, range(90)), 1), store, tmp_path / "registered")
    with pytest.raises(
        UserError, match=r"version 1: its data was prepared with keep=jpeg, and drawings are .*; name ano"
    ):
        make(store, tmp_path / "demo")


def test_a_lost_test_set_is_said_and_the_rest_works(filled: Store, tmp_path: Path) -> None:
    for entry in [*filled.list("datasets")]:
        if entry.name.endswith("dataset.json"):
            filled.remove(entry.name)
    version = only(make(filled, tmp_path / "demo"))
    assert (version.wrong, version.mistakes, version.pictures) == (None, [], "")
    assert version.no_mistakes.endswith("is not known: the test set is not in the store any more.")
    assert (tmp_path / "demo" / version.file).is_file()


def test_a_damaged_package_is_left_out(filled: Store, server: S3Server, tmp_path: Path) -> None:
    model = RegisteredModel(filled, NAME)
    name = f"models/{NAME}/versions/1/{model.versions.onnx_path}"
    filled.put_bytes(b"damaged", name)
    with pytest.raises(UserError, match=r"nothing to draw for with digits: version 1: .*model\.onnx"):
        make(filled, tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


def test_the_model_is_the_only_one_or_named(filled: Store, exported_digits: Artifacts, tmp_path: Path) -> None:
    register(exported_digits, filled, tmp_path / "registered-again", "others")
    with pytest.raises(UserError, match=r"has 2 models: digits, others; name one of them"):
        make(filled, tmp_path / "demo")
    assert make(filled, tmp_path / "demo", "others").name == "others"
    with pytest.raises(UserError, match="has no model letters; it has digits, others"):
        make(filled, tmp_path / "demo", "letters")


def test_only_an_earlier_demo_is_replaced(filled: Store, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(UserError, match=r"mine exists and is not a demo; give --output a folder that is empty or new"):
        make(filled, tmp_path / "mine")
    assert (tmp_path / "mine/letter.txt").read_text() == "dear"
    with pytest.raises(UserError, match=r"nothing can be written to .*letter\.txt/below; give another --output"):
        make(filled, tmp_path / "mine/letter.txt/below/demo")
    make(filled, tmp_path / "demo")
    (tmp_path / "demo/old").touch()
    make(filled, tmp_path / "demo")
    assert not (tmp_path / "demo/old").exists()


def test_a_runtime_that_cannot_be_had_leaves_nothing(
    filled: Store, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("runner.demo.onnxruntime_web.MIRRORS", onnxruntime_web.MIRRORS[:1])
    with pytest.raises(UserError, match=r"no mirror of onnxruntime-web .*: the program npm is not installed; check"):
        make(filled, tmp_path / "demo")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("demo")]


def test_the_pinned_runtime_is_the_file_that_is_served(filled: Store, tmp_path: Path) -> None:
    make(filled, tmp_path / "demo")
    with served(tmp_path / "demo") as address:
        answer = requests.get(f"{address}{RUNTIME}/ort-wasm-simd-threaded.wasm", timeout=10)
    assert answer.headers["Content-Type"] == "application/wasm"
    assert len(answer.content) == onnxruntime_web.PROGRAM.size


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "site/js").mkdir(parents=True)
    (tmp_path / "site/index.html").write_text("<p>here</p>")
    (tmp_path / "site/js/main.js").write_text("1")
    with served(tmp_path / "site") as address:
        yield address


def test_answers_have_strict_headers(address: str) -> None:
    for path, status in (("", 200), ("js/main.js", 200), ("js/", 404), ("absent", 404), ("../../etc/passwd", 404)):
        answer = requests.get(f"{address}{path}", timeout=10)
        assert answer.status_code == status, path
        assert answer.headers["Content-Security-Policy"] == f"{POLICY}; frame-ancestors 'none'"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert requests.get(f"{address}js/main.js", timeout=10).headers["Content-Type"].startswith("text/javascript")
    assert requests.post(address, data=b"x", timeout=10).status_code == 501


def test_only_names_of_this_machine_are_answered(address: str) -> None:
    for host, status in (("127.0.0.1", 200), ("localhost:1", 200), ("[::1]:1", 200), ("evil.example", 403), ("", 403)):
        answer = requests.get(address, headers={"Host": host}, timeout=10)
        assert answer.status_code == status, host


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_that_is_taken_is_said(host: str, tmp_path: Path) -> None:
    with bound_server(tmp_path, host, 0) as server, pytest.raises(UserError) as caught:
        bound_server(tmp_path, host, server.server_port).__enter__()
    assert f"port {server.server_port} of {host} cannot be used (Address already in use); give" in str(caught.value)


def test_an_address_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--host localhost is not an IP address; give 127"):
        bound_server(tmp_path, "localhost", 0).__enter__()
    with pytest.raises(UserError, match=r"--host 192\.0\.2\.1 is no address of this machine; give one"):
        bound_server(tmp_path, "192.0.2.1", 0).__enter__()


def test_the_verb_serves_until_ctrl_c(filled: Store, server: S3Server, tmp_path: Path) -> None:
    words = ["demo", "--store", filled.uri(), "--output", str(tmp_path / "demo"), "--port", "0", "--json"]
    process = subprocess.Popen(
        [sys.executable, "pipeline.py", *words],
        cwd=ROOT,
        env={**os.environ, **server.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr and process.stdout
    line = next(line for line in process.stderr if line.startswith("draw at "))
    url = line.split()[2]
    assert url.startswith("http://127.0.0.1:") and "Draw for digits" in requests.get(url, timeout=10).text
    process.send_signal(signal.SIGINT)
    shown, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and json.loads(shown)["url"] == url
