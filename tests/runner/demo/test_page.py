"""The page of the demo in real Chromium, for networks trained on MNIST: pytest tests/runner/demo/test_page.py"""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, expect

from components.shared.core.errors import TransientError
from components.shared.data.dataset import Images, Labels
from components.shared.data.decode import fit_arrays
from components.shared.evaluation.inference import Classify, load_onnx
from components.shared.storage.client import open_store
from runner.demo import demo
from runner.demo.onnxruntime_web import fetch_runtime
from runner.demo.versions import PageDocument
from tests.runner.demo.browser import CHROMIUM, Visit, chromium, served, visited
from tests.runner.demo.stores import COUNTS, FEW, make_artifacts, read_mnist, store_dataset, write_mnist
from tests.runner.demo.strokes import strokes_of
from tests.runner.verbs import run_verb
from tests.servers.s3_server import BUCKET, s3_server

pytestmark = pytest.mark.slow

LENET, OTHER = 1, 2  # the versions: LeNet-5, and a network without feature maps
SEVEN = [[(0.25, 0.2), (0.75, 0.2), (0.45, 0.85)]]
DIGITS = 100


@dataclass(frozen=True)
class Demo:
    """A demo of two versions that were trained on MNIST, and its address."""

    folder: Path
    address: str
    packages: dict[int, Classify]
    images: Images  # of MNIST's test file, 28 x 28
    labels: Labels

    @property
    def manifest(self) -> PageDocument:
        return PageDocument.read(self.folder / "demo.json")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("demo")
    try:
        fetch_runtime()
        mnist = read_mnist()
    except TransientError as error:
        pytest.skip(str(error))
    with s3_server(folder) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        store = open_store(f"s3://{BUCKET}/demo", server.environment)
        packages = {}
        settings = {LENET: {}, OTHER: {"network": "squeezenet1_1", "optimizer": "adamw", "learning_rate": 0.001}}
        for version, changes in settings.items():
            dataset = write_mnist(folder / f"dataset-{version}", mnist, COUNTS if version == LENET else FEW)
            store_dataset(store, dataset)
            artifacts = make_artifacts(folder / str(version), dataset, epochs=1, **changes)
            (folder / f"registered-{version}").mkdir()
            artifacts.register(folder / f"registered-{version}", store.uri(), "mnist")
            packages[version] = load_onnx(artifacts.package / "model.onnx", threads=1)
        assert run_verb(demo, "--store", store.uri(), "--output", str(folder / "page"), "--no-serve") == 0
    with served(folder / "page") as address:
        yield Demo(folder / "page", address, packages, *mnist["t10k"])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip("Chromium is not installed")
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(made: Demo, browser: Browser) -> Iterator[Visit]:
    """The page with LeNet-5 loaded, on which nothing may go wrong, and which loads nothing from elsewhere."""
    with visited(browser, made.address) as visit:
        visit.wait()
        yield visit
        assert visit.problems == []
        assert {address[: len(made.address)] for address in visit.addresses} == {made.address}


def centre_of_mass(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the pixel (down, right) at which a picture has its centre of mass."""
    return np.array((np.indices(picture.shape) * picture).sum((1, 2)) / picture.sum())


def test_drawn_digits_are_classified_as_by_onnxruntime(visit: Visit, made: Demo) -> None:
    found = [visit.draw(strokes_of(digit)) for digit in made.images[:DIGITS]]
    pixels = np.array([prediction.pixels for prediction in found])
    probabilities = np.array([prediction.probabilities for prediction in found])
    expected = made.packages[LENET](pixels[:, None])
    assert (probabilities.argmax(1) == expected.argmax(1)).sum() == DIGITS
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert (probabilities.argmax(1) == made.labels[:DIGITS]).sum() >= 90
    originals = fit_arrays(made.images[:DIGITS, None], 32)[:, 0]
    likeness = [np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in zip(pixels, originals, strict=True)]
    assert np.median(likeness) > 0.85  # as far as a pen of one width can follow them


def test_what_is_drawn_is_prepared_as_mnist_was(visit: Visit, made: Demo) -> None:
    for original in made.images[:DIGITS]:  # what is asked of drawings holds of each picture of MNIST
        assert np.abs(centre_of_mass(original) - 14).max() <= 0.5
    small = [[(0.1 + 0.3 * x, 0.6 + 0.3 * y) for x, y in line] for line in SEVEN]
    for lines in (SEVEN, small, [[(0.1, 0.5), (0.9, 0.52)]], strokes_of(made.images[0])):
        picture = visit.draw(lines).pixels
        rows, columns = np.nonzero(picture)
        sides = [int(np.ptp(places)) + 1 for places in (rows, columns)]
        assert max(sides) == 20, "the longer side fills the box"
        assert np.abs(centre_of_mass(picture) - 16).max() <= 0.5
        assert picture[[0, 1, -2, -1]].max() == picture[:, [0, 1, -2, -1]].max() == 0, "28 x 28 in 32 x 32"


def test_a_dot_and_a_stroke_to_the_edge_are_pictures(visit: Visit) -> None:
    assert visit.draw([[(0.5, 0.5)]]).pixels.max() == 255
    assert visit.draw([[(-0.2, 0.5), (1.2, 0.5)]]).pixels.max() > 200
    assert np.isfinite(visit.rest().probabilities).all()


def test_the_mouse_draws_and_the_buttons_undo(visit: Visit) -> None:
    first, *rest = visit.places(SEVEN[0])
    mouse = visit.page.mouse
    mouse.move(*first)
    mouse.down()
    for point in rest:
        mouse.move(*point, steps=5)
    assert visit.rest().probabilities.argmax() == 7, "predicted while the button is still down"
    mouse.up()
    mouse.move(0, 0)
    assert visit.text("#best") == "7"
    drawn = visit.rest()
    mouse.click(*visit.places([(0.5, 0.95)])[0])
    assert not np.array_equal(visit.rest().pixels, drawn.pixels)
    visit.page.locator("#undo").click()
    assert np.array_equal(visit.rest().pixels, drawn.pixels)
    visit.page.locator("#clear").click()
    expect(visit.page.locator("#sure")).to_have_text("draw something")
    assert visit.page.locator("#clear").is_disabled()


def test_a_finger_draws_on_a_phone(made: Demo, browser: Browser) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 3, "is_mobile": True, "has_touch": True}
    with visited(browser, made.address, **phone) as visit:
        visit.wait()
        points = [{"x": x, "y": y} for x, y in visit.places([*SEVEN[0][:1], (0.5, 0.2), *SEVEN[0][1:]])]
        touch = visit.page.context.new_cdp_session(visit.page)
        touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": points[:1]})
        for point in points[1:]:
            touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        assert visit.rest().probabilities.argmax() == 7
        scrolled, width = visit.page.evaluate("[scrollY, document.documentElement.scrollWidth]")
        assert (scrolled, width) == (0, 390), "the finger draws and scrolls nothing, and the page fits"
        last = visit.page.locator("#bars li").last.bounding_box()
        assert last and last["y"] + last["height"] <= 844, "drawing and probabilities are seen together"
        assert visit.problems == []


def test_the_keyboard_draws_and_the_answer_is_spoken(visit: Visit) -> None:
    keys = visit.page.keyboard
    visit.page.locator("#pad").focus()
    keys.press("Tab")
    keys.press("Shift+Tab")
    for _ in range(7):
        keys.press("ArrowUp")
    keys.press(" ")
    assert visit.text("#live") == "Pen down."
    for _ in range(14):
        keys.press("ArrowDown")
    keys.press(" ")
    assert visit.rest().probabilities.argmax() == 1
    expect(visit.page.locator("#live")).to_have_text(re.compile("1, .*; then "))  # once the drawing rests
    assert visit.page.locator("#cursor").is_visible()
    keys.press("Backspace")
    assert visit.page.locator("#undo").is_disabled()


def test_another_version_answers_for_the_same_drawing(visit: Visit, made: Demo) -> None:
    drawn = visit.draw(SEVEN)
    assert drawn.version == LENET and visit.page.locator("#layers canvas").count() == 1 + 6 + 6 + 16 + 16
    visit.page.evaluate("window.last = null")
    visit.page.locator("#version").select_option(str(OTHER))
    other = visit.rest()
    assert other.version == OTHER and np.array_equal(other.pixels, drawn.pixels)
    expected = made.packages[OTHER](other.pixels[None, None])[0]
    np.testing.assert_allclose(other.probabilities, expected, atol=1e-4)
    assert visit.page.locator("#layers canvas").count() == 1
    assert visit.text("#maps-note") == "Only LeNet-5 is shown with its feature maps."
    assert "squeezenet1_1" in visit.text("#origin")


def test_maps_light_up_with_the_ink(visit: Visit) -> None:
    lit = """[...document.querySelectorAll("#layers .tiles")].slice(1).map((tiles) => {
      const canvases = [...tiles.querySelectorAll("canvas")];
      const data = canvases.map((one) => one.getContext("2d").getImageData(0, 0, one.width, one.height).data);
      return Math.max(...data.flatMap((values) => [...values].filter((_, i) => i % 4 === 3)));
    })"""
    visit.draw(SEVEN)
    assert visit.page.evaluate(lit) == [255, 255, 255, 255]
    visit.page.locator("#clear").click()
    expect(visit.page.locator("#sure")).to_have_text("draw something")
    assert visit.page.evaluate(lit) == [0, 0, 0, 0]


def test_a_wrong_test_picture_goes_through_the_network(visit: Visit, made: Demo) -> None:
    version = next(one for one in made.manifest.versions if one.version == LENET)
    labels = made.labels
    assert version.mistakes and version.wrong is not None and f" {version.wrong}" in visit.text("#mistakes-note")
    for mistake, button in zip(version.mistakes[:3], visit.page.locator("#mistakes button").all(), strict=False):
        assert labels[mistake.number] == mistake.truth != mistake.predicted
        visit.page.evaluate("window.last = null")
        button.click()
        found = visit.rest()
        assert np.array_equal(found.pixels, fit_arrays(made.images[mistake.number][None, None], 32)[0, 0])
        assert found.probabilities.argmax() == mistake.predicted
        assert abs(found.probabilities[mistake.predicted] - mistake.probability) < 1e-4
        assert button.get_attribute("aria-pressed") == "true"
        assert visit.text("#hint") == f"Test picture {mistake.number:,}"
    visit.draw(SEVEN)
    assert visit.page.locator("#mistakes [aria-pressed=true]").count() == 0


def test_dark_mode_changes_paper_and_ink(visit: Visit) -> None:
    colours = """["body", "#pad"].map((name) => {
      const style = getComputedStyle(document.querySelector(name));
      return [style.backgroundColor, style.color];
    })"""
    lightness = {}
    for scheme in ("light", "dark"):
        visit.page.emulate_media(color_scheme=scheme)
        texts = visit.page.evaluate(colours)
        lightness[scheme] = [[sum(map(int, text[4:-1].split(", "))) / 765 for text in pair] for pair in texts]
    for (paper, ink), (dark_paper, dark_ink) in zip(*lightness.values(), strict=True):
        assert paper > 0.9 > 0.2 > ink and dark_paper < 0.2 < 0.85 < dark_ink


def test_the_page_needs_no_shared_memory_and_no_threads(visit: Visit) -> None:
    visit.draw(SEVEN)
    assert visit.page.evaluate("[crossOriginIsolated, typeof SharedArrayBuffer]") == [False, "undefined"]
    assert visit.page.workers == []


def test_a_script_from_elsewhere_is_refused(made: Demo, browser: Browser) -> None:
    with visited(browser, made.address) as visit:
        visit.wait()
        attempts = """() => {
          const script = document.createElement("script");
          script.textContent = "window.injected = true";
          document.body.append(script);
          const image = document.createElement("img");
          image.src = "http://127.0.0.1:9/x.png";
          document.body.append(image);
          return Boolean(window.injected);
        }"""
        assert visit.page.evaluate(attempts) is False
        visit.page.evaluate("new Promise((resolve) => setTimeout(resolve))")
        refusals = [problem for problem in visit.problems if "Content Security Policy" in problem]
        assert any("script-src" in one for one in refusals) and any("img-src" in one for one in refusals)


def test_a_lost_model_is_said_on_the_page(made: Demo, browser: Browser, tmp_path: Path) -> None:
    shutil.copytree(made.folder, tmp_path / "page")
    (tmp_path / f"page/versions/{LENET}/model.onnx").unlink()
    with served(tmp_path / "page") as address, visited(browser, address) as visit:
        visit.page.locator("#status.failed").wait_for()
        assert f"versions/{LENET}/model.onnx could not be loaded (status 404)" in visit.text("#status")


def test_the_folder_works_below_another_path(made: Demo, browser: Browser, tmp_path: Path) -> None:
    shutil.copytree(made.folder, tmp_path / "site/some where")
    with served(tmp_path / "site") as address, visited(browser, f"{address}some%20where/") as visit:
        visit.wait()
        assert visit.draw(SEVEN).probabilities.argmax() == 7
        assert visit.problems == []
