"""Raw files become a dataset: every image once, in its split, of one size; and bad data is reported."""

import errno
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from components.download import download
from components.preprocess import preprocess
from components.shared.core.errors import UserError
from components.shared.data.dataset import SPLITS, Dataset, Images, open_dataset
from components.shared.data.raw import write_raw
from components.shared.parameters.preparation import PreprocessRecipe
from tests.data.versions import READING, version_of
from tests.disk_use import small_disk
from tests.parameters.texts import recipe_text

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)
SETTINGS = {"image_size": 32, "val_fraction": 0.1, "test_fraction": 0.2, "max_bad_images": 0, "seed": 0}
NO_STORE = {"store": "", "handover_mib": 0}


def prepare(raw: Path, dataset: Path, **settings: Any) -> Dataset:
    recipe = recipe_text(PreprocessRecipe, **{**SETTINGS, **NO_STORE, **settings})
    preprocess(raw=str(raw), recipe=recipe, prepared_by="", dataset=str(dataset))
    return open_dataset(dataset)


def raw_of(source: Path, tmp_path: Path) -> Path:
    raw = tmp_path / "raw"
    download(data=source.as_uri(), version=version_of(source.as_uri()), recipe=READING, needs_labels=True, raw=str(raw))
    return raw


def noise(count: int, size: int = 12, channels: int = 1) -> Images:
    return RNG.integers(0, 256, (count, channels, size, size), dtype=np.uint8)


def write_pictures(folder: Path, images: Images, stem: str = "p") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        Image.fromarray(pixels).save(folder / f"{stem}{number:03}.png")


def write_idx(folder: Path, prefix: str, images: Images, labels: NDArray[Any]) -> None:
    folder.mkdir(exist_ok=True)
    count, _, height, width = images.shape
    header = np.array([0x803, count, height, width], ">i4").tobytes()
    (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
    header = np.array([0x801, count], ">i4").tobytes()
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels.astype(np.uint8).tobytes())


def ordered(images: Images) -> list[bytes]:
    """Return the images as sorted bytes, for comparison in any order."""
    return sorted(image.tobytes() for image in images)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = tmp_path_factory.mktemp("digits") / "raw"
    download(data="digits", version=version_of("digits"), recipe=READING, needs_labels=True, raw=str(raw))
    return raw


@pytest.fixture(scope="module")
def prepared(digits: Path) -> Dataset:
    return prepare(digits, digits.parent / "dataset")


def test_every_digit_is_in_one_split(prepared: Dataset) -> None:
    assert prepared.image_shape == (1, 32, 32)
    copies = prepared.document.duplicates
    assert copies
    assert sum(prepared.counts.values()) + sum(copies.copies_dropped.values()) == 1797
    assert len(prepared.classes) == 10


def test_digits_are_enlarged_by_whole_factors(prepared: Dataset) -> None:
    images, _ = prepared.load("test")
    np.testing.assert_array_equal(images, images[:, :, ::4, ::4].repeat(4, 2).repeat(4, 3))


def test_held_out_splits_are_stratified_exactly(prepared: Dataset) -> None:
    totals = np.sum([prepared.document.splits[split].class_counts for split in SPLITS], axis=0)
    test = np.floor(totals * 0.2 + 0.5)
    assert prepared.document.splits["test"].class_counts == test.tolist()
    assert prepared.document.splits["val"].class_counts == np.floor((totals - test) * 0.1 + 0.5).tolist()


def test_mean_and_std_are_of_the_training_split(prepared: Dataset) -> None:
    scaled = prepared.load("train")[0] / 255
    assert prepared.document.mean[0] == pytest.approx(scaled.mean())
    assert prepared.document.std[0] == pytest.approx(scaled.std())


def test_folder_holds_only_shards_sheet_and_document(prepared: Dataset) -> None:
    names = {path.name.split("-")[0] for path in prepared.folder.iterdir()}
    assert names == {"train", "val", "test", "samples.png", "index.parquet", "dataset.json"}
    with Image.open(prepared.folder / "samples.png") as sheet:
        assert sheet.width < 1000


def test_document_describes_the_datasets_origin(digits: Path, prepared: Dataset) -> None:
    document, raw = prepared.document, json.loads((digits / "raw.json").read_bytes())
    assert (document.name, document.source) == (raw["name"], "digits")
    assert document.raw_digest == raw["digest"]
    assert document.parameters == SETTINGS
    assert document.bad_images == []
    assert set(document.seconds) == {"download", "preprocess"}


def test_same_seed_gives_the_same_files(digits: Path, prepared: Dataset, tmp_path: Path) -> None:
    again = prepare(digits, tmp_path / "again")
    for path in prepared.folder.iterdir():
        if path.name != "dataset.json":
            assert path.read_bytes() == (again.folder / path.name).read_bytes()
    assert again.digest == prepared.digest


def test_another_seed_gives_other_splits(digits: Path, prepared: Dataset, tmp_path: Path) -> None:
    other = prepare(digits, tmp_path / "other", seed=1)
    assert other.counts == prepared.counts
    assert ordered(other.load("test")[0]) != ordered(prepared.load("test")[0])


def test_test_split_of_the_source_stays_in_order(tmp_path: Path) -> None:
    train, test = noise(200, 28), noise(30, 28)
    write_idx(tmp_path / "source", "train", train, np.arange(200) % 4)
    write_idx(tmp_path / "source", "t10k", test, np.arange(30) % 4)
    dataset = prepare(raw_of(tmp_path / "source", tmp_path), tmp_path / "dataset")
    images, labels = dataset.load("test")
    np.testing.assert_array_equal(images, np.pad(test, ((0, 0), (0, 0), (2, 2), (2, 2))))
    np.testing.assert_array_equal(labels, np.arange(30) % 4)
    assert dataset.counts == {"train": 180, "val": 20, "test": 30}
    assert dataset.document.splits["val"].class_counts == [5, 5, 5, 5]


def test_picture_folders_give_classes_and_splits(tmp_path: Path) -> None:
    for split in SPLITS:
        for name in ("cat", "dog"):
            write_pictures(tmp_path / "source" / split / name, noise(3, channels=3))
    dataset = prepare(raw_of(tmp_path / "source", tmp_path), tmp_path / "dataset", image_size=12)
    assert dataset.classes == ["cat", "dog"]
    assert dataset.counts == {"train": 6, "val": 6, "test": 6}
    assert dataset.image_shape == (3, 12, 12)
    with Image.open(tmp_path / "source" / "val" / "dog" / "p001.png") as picture:
        np.testing.assert_array_equal(dataset.load("val")[0][4], np.asarray(picture).transpose(2, 0, 1))


def two_classes(source: Path, count: int = 10, channels: int = 1) -> None:
    for name in ("cat", "dog"):
        write_pictures(source / name, noise(count, channels=channels))


def test_grayscale_pictures_give_one_channel(tmp_path: Path) -> None:
    two_classes(tmp_path / "source")
    dataset = prepare(raw_of(tmp_path / "source", tmp_path), tmp_path / "dataset")
    assert dataset.image_shape == (1, 32, 32)


def test_one_colour_picture_gives_all_three_channels(tmp_path: Path) -> None:
    two_classes(tmp_path / "source")
    write_pictures(tmp_path / "source" / "dog", noise(1, channels=3), stem="colour")
    dataset = prepare(raw_of(tmp_path / "source", tmp_path), tmp_path / "dataset")
    images = np.concatenate([dataset.load(split)[0] for split in SPLITS])
    assert images.shape[1] == 3
    assert (images != images[:, :1]).any(axis=(1, 2, 3)).sum() == 1


def test_copies_across_splits_are_dropped_and_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = noise(20)
    for split, chosen in [("train", range(12)), ("val", (0, 1, 12, 13)), ("test", (1, 2, 13, 14, 14))]:
        for name, shade in (("cat", np.uint8(0)), ("dog", np.uint8(1))):
            write_pictures(tmp_path / "source" / split / name, images[list(chosen)] ^ shade)
    dataset = prepare(raw_of(tmp_path / "source", tmp_path), tmp_path / "dataset")
    assert dataset.counts == {"train": 2 * 9, "val": 2 * 2, "test": 2 * 5}
    copies = dataset.document.duplicates
    assert copies and copies.model_dump() == {
        "repeated_images": 2 * 5,
        "of_these_with_conflicting_labels": 0,
        "copies_dropped": {"train": 2 * 3, "val": 2 * 2, "test": 0},
        "copies_kept_within_split": {"train": 0, "val": 0, "test": 2},
    }
    assert "dropped copies across splits: 6 from train, 4 from val" in capsys.readouterr().out


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Forty pictures, three of them bad."""
    two_classes(tmp_path / "source", 20)
    whole = io.BytesIO()
    Image.fromarray(noise(1)[0, 0]).save(whole, "PNG")
    (tmp_path / "source" / "cat" / "a-empty.png").write_bytes(b"")
    (tmp_path / "source" / "cat" / "b-cut.png").write_bytes(whole.getvalue()[:-40])
    (tmp_path / "source" / "dog" / "c-text.png").write_bytes(b"404 not found")
    return raw_of(tmp_path / "source", tmp_path)


@pytest.mark.parametrize("image_size", [32, 1024])  # all pictures in one chunk, and five at a time
@pytest.mark.parametrize(("allowed", "named"), [(0, "a-empty"), (1, "b-cut"), (2, "c-text")])
def test_bad_picture_is_reported_and_leaves_nothing(
    damaged: Path, tmp_path: Path, allowed: int, named: str, image_size: int
) -> None:
    with pytest.raises(UserError, match=rf"{named}\.png cannot be used: .*max_bad_images"):
        prepare(damaged, tmp_path / "out" / "dataset", max_bad_images=allowed, image_size=image_size)
    assert list((tmp_path / "out").iterdir()) == []


def test_allowed_bad_pictures_are_skipped_and_listed(
    damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = prepare(damaged, tmp_path / "dataset", max_bad_images=3)
    assert "warning: 3 broken pictures left out; the first is cat/a-empty.png: the file is" in capsys.readouterr().out
    assert sum(dataset.counts.values()) == 40
    bad_images = dataset.document.bad_images or []
    assert [entry.name.rpartition("/")[2] for entry in bad_images] == [
        "a-empty.png",
        "b-cut.png",
        "c-text.png",
    ]
    assert [entry.reason[:12] for entry in bad_images] == [
        "the file is ",
        "it is broken",
        "it is in no ",
    ]


def test_class_too_small_to_split_is_reported(tmp_path: Path) -> None:
    two_classes(tmp_path / "source")
    write_pictures(tmp_path / "source" / "emu", noise(2))
    with pytest.raises(UserError, match=r"'emu' has 0 images in the val split, of 2 in all .*add pictures of it"):
        prepare(raw_of(tmp_path / "source", tmp_path), tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


def test_class_missing_from_the_test_split_is_reported(tmp_path: Path) -> None:
    write_idx(tmp_path / "source", "train", noise(40), np.arange(40) % 4)
    write_idx(tmp_path / "source", "t10k", noise(9), np.arange(9) % 3)
    with pytest.raises(UserError, match="'3' has 0 images in the test split"):
        prepare(raw_of(tmp_path / "source", tmp_path), tmp_path / "dataset")


def test_class_without_own_training_images_is_reported(tmp_path: Path) -> None:
    images = noise(40)
    write_idx(tmp_path / "source", "train", images, np.arange(40) % 4)
    write_idx(tmp_path / "source", "t10k", np.concatenate([images[::4], noise(3)]), np.array([0] * 10 + [1, 2, 3]))
    with pytest.raises(UserError, match=r"'0' has 0 images in the train split, .*copies"):
        prepare(raw_of(tmp_path / "source", tmp_path), tmp_path / "dataset")


def test_single_class_is_reported(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_idx(raw, "train", noise(20), np.zeros(20))
    files = sorted(path.name for path in raw.iterdir())
    splits = {"train": {"images": files[0], "labels": files[1]}}
    write_raw(
        raw,
        name="cats",
        source="cats",
        version="v",
        kind="idx",
        classes=["cat"],
        counts={"train": 20},
        files=files,
        seconds=1.0,
        splits=splits,
    )
    with pytest.raises(UserError, match=r"cats has too few classes \(\['cat'\]\)"):
        prepare(raw, tmp_path / "dataset")


@pytest.mark.parametrize(
    "settings",
    [
        {"image_size": 0},
        {"val_fraction": 0.0},
        {"test_fraction": float("nan")},
        {"max_bad_images": -1},
        {"seed": -1},
        {"handover_mib": -1},
    ],
)
def test_parameter_out_of_range_is_reported(digits: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(UserError, match=f"{name}="):
        prepare(digits, tmp_path / "dataset", **settings)


def test_incomplete_output_of_a_killed_run_is_replaced(digits: Path, prepared: Dataset, tmp_path: Path) -> None:
    for name in ("dataset", "dataset.partial"):
        (tmp_path / name / "scratch").mkdir(parents=True)
        (tmp_path / name / "train-00000.images.npy").write_bytes(b"half")
    dataset = prepare(digits, tmp_path / "dataset")
    assert dataset.digest == prepared.digest
    assert {path.name for path in dataset.folder.iterdir()} == {path.name for path in prepared.folder.iterdir()}


MEASURED = """
import re, sys
from components.preprocess import preprocess
from components.shared.data.preparation import join
join.MEMORY_MIB = 64  # which is all used by 400,000 rows, as what it is by default is by millions
preprocess(raw=sys.argv[1], recipe=sys.argv[2], prepared_by="", dataset=sys.argv[3])
print("peak", re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    peaks = []
    for count in (50_000, 400_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        write_idx(folder / "source", "train", noise(count, 28), np.arange(count) % 10)
        raw = raw_of(folder / "source", folder)
        recipe = recipe_text(PreprocessRecipe, test_fraction=0.1)
        command = [sys.executable, "-c", MEASURED, str(raw), recipe, str(folder / "dataset")]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        peaks.append(int(ran.stdout.split()[-1]))
        shutil.rmtree(folder)
    assert peaks[1] < 1.3 * peaks[0]  # 64 bytes for each image would exceed it; the peak itself varies by 10 %


# Too small for the buffer, for the buffer's end, and for buffer and shards together (1,797 images of 1 KiB).
@pytest.mark.parametrize("size", [2**16, 1_700 * 2**10, 3 * 2**20])
def test_full_disk_is_reported_and_leaves_nothing(digits: Path, tmp_path: Path, size: int) -> None:
    with small_disk(tmp_path / "disk", size) as disk:
        with pytest.raises(OSError, match="No space left") as caught:
            prepare(digits, disk / "dataset")
        assert caught.value.errno == errno.ENOSPC
        assert list(disk.iterdir()) == []
