"""Pictures of more than 8 bits: one pair of bounds scales the whole set, and goes with the model to where it serves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from components.export import export
from components.shared.core.errors import UserError
from components.shared.parameters.evaluation import ExportRecipe
from components.shared.parameters.preparation import PreprocessRecipe
from tests.parameters.texts import recipe_text
from tests.steps.test_preprocess import prepare, raw_of
from tests.trained_digits import trained

INPUTS = Path(__file__).parents[1] / "data" / "inputs"
RNG = np.random.default_rng(0)


def write(folder: Path, pictures: NDArray[Any]) -> None:
    folder.mkdir(parents=True)
    for number, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(folder / f"p{number:03}.tif")


def values(low: int, high: int, count: int = 6) -> NDArray[np.uint16]:
    """Pictures of 32 x 32 pixels, each with every value from low to high."""
    ramp = np.linspace(low, high, 1024).round().astype(np.uint16)
    return np.stack([RNG.permutation(ramp).reshape(32, 32) for _ in range(count)])


def two_classes(folder: Path, low: int, high: int, **counts: int) -> None:
    for name in ("a", "b"):
        write(folder / name, values(low, high, **counts))


def test_bounds_are_of_the_pictures_outside_the_test_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two_classes(tmp_path / "source" / "train", 1000, 3000)
    two_classes(tmp_path / "source" / "val", 2000, 4000)
    two_classes(tmp_path / "source" / "test", 0, 60_000)
    dataset = prepare(raw_of(tmp_path / "source", tmp_path), tmp_path / "dataset")
    bounds = dataset.document.value_range
    assert bounds
    assert (1000, 3995) < (bounds.low, bounds.high) < (1005, 4000)
    assert dataset.counts == {"train": 12, "val": 12, "test": 12}
    test, _ = dataset.load("test")
    assert (test == 255).mean() == pytest.approx(1 - 4000 / 60_000, abs=0.01)  # clipped
    log = capsys.readouterr().out
    assert "from 3,996 on white; these are the percentiles 0.1 and 99.9 of the pictures outside the test split" in log
    assert "warning: the bounds span 4.57% of what uint16 can hold" in log


@pytest.mark.slow
def test_bounds_know_the_split_that_the_seed_makes(tmp_path: Path) -> None:
    two_classes(tmp_path / "source", 1000, 3000)
    bright = np.full((32, 32), 60_000, np.uint16)
    Image.fromarray(bright).save(tmp_path / "source" / "a" / "bright.tif")
    raw = raw_of(tmp_path / "source", tmp_path)
    found = set()
    for seed in range(4):
        dataset = prepare(raw, tmp_path / f"dataset{seed}", seed=seed, test_fraction=0.5)
        assert dataset.document.value_range
        is_tested = any(image.min() == 255 for image in dataset.load("test")[0])
        assert dataset.document.value_range.high == pytest.approx(3000 if is_tested else 60_000, abs=5)
        found.add(is_tested)
    assert found == {True, False}


def test_given_bounds_hold_and_are_in_the_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two_classes(tmp_path / "source", 1000, 3000)
    raw = raw_of(tmp_path / "source", tmp_path)
    dataset = prepare(raw, tmp_path / "dataset", value_range="2000,10000")
    assert dataset.document.value_range and dataset.document.value_range.model_dump() == {"low": 2000, "high": 10_000}
    assert dataset.document.parameters and dataset.document.parameters["value_range"] == "2000,10000"
    assert dataset.load("train")[0].max() == 32  # 255 * 1000 / 8000
    log = capsys.readouterr().out
    assert "decoded again" not in log and "warning" not in log


@pytest.mark.parametrize("text", ["5,3", "5,5", "5", "1,2,3", "a,b", "nan,1", "0,inf", "-1e308,1e308"])
def test_bounds_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=f"value_range={text} is not accepted"):
        PreprocessRecipe.of(value_range=text)


def test_8_bits_among_wide_pictures_stay_and_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "source" / "a", values(1000, 3000, 20))
    narrow = RNG.integers(7, 99, (20, 32, 32), dtype=np.uint8)
    write(tmp_path / "source" / "b", narrow)
    dataset = prepare(raw_of(tmp_path / "source", tmp_path), tmp_path / "dataset")
    images, labels = dataset.load("train")
    assert {image.tobytes() for image in images[labels == 1]} <= {image.tobytes() for image in narrow}
    assert images[labels == 0].max() == 255
    assert "warning: pictures of different types of numbers are mixed (20 uint16, 20 uint8)" in capsys.readouterr().out


def test_copies_are_found_on_scaled_pixels(tmp_path: Path) -> None:
    pictures = values(1000, 1010, 40)  # 65,535 shades of gray would make one of each
    write(tmp_path / "source" / "a", pictures)
    write(tmp_path / "source" / "b", np.concatenate([values(1000, 1010, 39), pictures[:1]]))
    dataset = prepare(raw_of(tmp_path / "source", tmp_path), tmp_path / "dataset")
    assert dataset.document.duplicates and dataset.document.duplicates.repeated_images == 1


def test_a_set_of_8_bits_has_no_bounds(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "source" / name, RNG.integers(0, 99, (20, 32, 32), dtype=np.uint8))
    raw = raw_of(tmp_path / "source", tmp_path)
    without = prepare(raw, tmp_path / "without")
    given = prepare(raw, tmp_path / "given", value_range="0,9")
    assert "value_range" not in without.document.fields() and "value_range" not in given.document.fields()
    assert without.digest == given.digest


@pytest.mark.slow
@pytest.mark.parametrize(("name", "low", "high"), [("narrow", 997, 1015), ("twelve", 1100, 3685)])
def test_wide_pictures_are_learnt_and_served(name: str, low: float, high: float, tmp_path: Path) -> None:
    dataset = prepare(raw_of(INPUTS / f"sixteen-bit-{name}.zip", tmp_path), tmp_path / "dataset", test_fraction=0.15)
    assert sum(dataset.counts.values()) == 60
    trained(tmp_path / "dataset", tmp_path / "model", epochs=20, batch_size="8")
    recipe = recipe_text(ExportRecipe, min_accuracy=1.0, min_recall=1.0, threads=1)
    export(dataset=tmp_path / "dataset", model=tmp_path / "model", recipe=recipe, package=tmp_path / "package")
    package = json.loads((tmp_path / "package" / "package.json").read_bytes())
    assert package["value_range"] == {"low": low, "high": high}
    assert package["input"]["dtype"] == "uint8"
    assert json.loads((tmp_path / "model" / "model.json").read_bytes())["value_range"] == package["value_range"]
