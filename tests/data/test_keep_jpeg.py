"""keep=jpeg: pictures are kept as JPEG, trained on in random crops, and judged by their centres."""

import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.download import download
from components.evaluate import evaluate
from components.export import export
from components.shared.core.errors import CorruptDataError, UserError
from components.shared.core.files import sha256_file
from components.shared.core.npy import write_npy
from components.shared.data.dataset import SPLITS, Dataset, open_dataset
from components.shared.data.decode import BadPicture, decoder
from components.shared.data.pictures.kept import decode_kept
from components.shared.data.shard_images import KeptImages
from components.shared.evaluation.exported_model import PackageDocument
from components.shared.parameters.evaluation import EvaluateRecipe, ExportRecipe
from components.shared.prediction.inputs import Inputs
from tests.data.versions import READING, version_of
from tests.kept_pictures import COUNTS, SHORT, SIZE, cut, download_from, prepare_kept, write_photographs
from tests.trained_digits import trained
from tests.training.states import state_after

TRAINING: dict[str, Any] = {"batch_size": "10", "epochs": 2, "flip": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, `raw` data, a `dataset` and a `model`; two pictures are also in test, with a comment."""
    folder = tmp_path_factory.mktemp("kept")
    pictures = write_photographs(folder / "pictures")
    for name in ("000", "030"):
        content = (pictures / f"train/temple/{name}.jpg").read_bytes()
        (pictures / f"test/temple/copy{name}.jpg").write_bytes(content[:2] + b"\xff\xfe\0\6note" + content[2:])
    download_from(pictures, folder / "raw")
    prepare_kept(folder / "raw", folder / "dataset")
    trained(folder / "dataset", folder / "model", **TRAINING)
    return folder


@pytest.fixture
def data(folder: Path) -> Dataset:
    return open_dataset(folder / "dataset")


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """Let the process run on one CPU, if there are several."""
    all_of_them = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(all_of_them)})
    yield
    os.sched_setaffinity(0, all_of_them)


def kept(data: Dataset, split: str) -> list[bytes]:
    """The JPEGs of a split."""
    found: list[bytes] = []
    for images, _ in data.shards(split):
        assert isinstance(images, KeptImages)
        found += images.encoded(slice(None))
    return found


def weights(folder: Path) -> str:
    return sha256_file(folder / "model.safetensors")


def test_small_upright_jpegs_stay_as_they_are(folder: Path, data: Dataset) -> None:
    found, stays = kept(data, "val"), 0
    for path in sorted((folder / "pictures" / "val").rglob("*.jpg")):
        with Image.open(path) as picture:
            if min(picture.size) <= SHORT and not picture.getexif():
                assert path.read_bytes() in found
                stays += 1
    assert 0 < stays < len(found) == COUNTS["val"]


def test_others_are_scaled_down_turned_and_laid_on_white(folder: Path, tmp_path: Path) -> None:
    pixels = np.zeros((80, 160, 4), np.uint8)
    pixels[:, :80] = 255, 0, 0, 255
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right: the left becomes the top
    for split in SPLITS:
        for number, name in enumerate("ab"):
            (tmp_path / "pictures" / split / name).mkdir(parents=True)
            varied = np.roll(pixels, 2 * len(split) + number, axis=1)
            Image.fromarray(varied).save(tmp_path / f"pictures/{split}/{name}/1.png", exif=exif)
    data = prepare_kept(download_from(tmp_path / "pictures", tmp_path / "raw"), tmp_path / "dataset")
    for content in kept(data, "train"):
        with Image.open(io.BytesIO(content)) as picture:
            assert (picture.format, picture.size) == ("JPEG", (SHORT, 2 * SHORT))
            found = np.asarray(picture).astype(int)
        assert abs(found[10:30] - (255, 0, 0)).max() < 10 and found[50:70].min() > 250


def test_copies_are_found_by_decoded_pixels(data: Dataset) -> None:
    copies = data.document.duplicates
    assert copies and copies.copies_dropped == {"train": 2, "val": 0, "test": 0}
    assert data.counts == {**COUNTS, "train": COUNTS["train"] - 2, "test": COUNTS["test"] + 2}


def test_images_are_the_centres_of_what_is_kept(data: Dataset) -> None:
    images, _ = data.load("val")
    for image, content in zip(images, kept(data, "val"), strict=True):
        with Image.open(io.BytesIO(content)) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        height, width = pixels.shape[:2]
        if min(height, width) == SHORT:
            top, left = (height - SIZE) // 2, (width - SIZE) // 2
            centre = pixels[top : top + SIZE, left : left + SIZE]
        else:
            side = round(min(height, width) * SIZE / SHORT)
            top, left = (height - side) // 2, (width - side) // 2
            centre = np.asarray(Image.fromarray(pixels[top : top + side, left : left + side]).resize((SIZE, SIZE)))
        difference = abs(image.transpose(1, 2, 0).astype(int) - centre)
        assert difference.max() == 0 if min(height, width) == SHORT else difference.mean() < 10


def test_mean_and_deviation_are_those_of_the_centres(data: Dataset) -> None:
    images = data.load("train")[0] / 255
    np.testing.assert_allclose(data.document.mean, images.mean(axis=(0, 2, 3)))
    np.testing.assert_allclose(data.document.std, images.std(axis=(0, 2, 3)))


def test_the_same_pictures_give_the_same_files(folder: Path, data: Dataset, tmp_path: Path) -> None:
    again = prepare_kept(folder / "raw", tmp_path / "dataset")
    assert (again.digest, again.document.splits) == (data.digest, data.document.splits)


def test_any_number_of_cpus_gives_the_same_weights(folder: Path, tmp_path: Path, one_cpu: None) -> None:
    trained(folder / "dataset", tmp_path / "model", **TRAINING)
    assert weights(tmp_path / "model") == weights(folder / "model")


def test_a_resumed_training_reads_the_same_crops(data: Dataset) -> None:
    """An epoch has 3 steps."""
    expected = state_after(data, 6, TRAINING)
    for steps in (2, 4):
        ended = state_after(data, 6 - steps, TRAINING, state_after(data, steps, TRAINING))
        assert all(tensor.equal(ended.tensors[name]) for name, tensor in expected.tensors.items())


@pytest.mark.slow
def test_predicted_files_have_the_pixels_of_the_training(folder: Path, data: Dataset, tmp_path: Path) -> None:
    """The package alone says that its images are crops."""
    evaluate(
        dataset=folder / "dataset",
        model=folder / "model",
        recipe=EvaluateRecipe.of(min_accuracy=0.0, min_recall=0.0, behavior_images=10, threads=1).text(),
        **{name: tmp_path / name for name in ("metrics", "classification", "report", "evaluation")},
    )
    export(
        dataset=folder / "dataset",
        model=folder / "model",
        recipe=ExportRecipe.of(min_accuracy=0.0, min_recall=0.0, threads=1).text(),
        package=tmp_path / "package",
    )
    package = PackageDocument.read(tmp_path / "package" / "package.json")
    found = {
        name: image
        for batch in Inputs(folder / "raw", package).batches()
        for name, image in zip(batch.names, batch.images, strict=True)
    }
    val = np.stack([found[name] for name in sorted(found) if "/val/" in f"/{name}"])
    np.testing.assert_array_equal(val, data.load("val")[0])
    prepared = np.concatenate([batch.images for batch in Inputs(folder / "dataset", package).batches()])
    np.testing.assert_array_equal(prepared, np.concatenate([data.load(split)[0] for split in SPLITS]))
    prepare_kept(folder / "raw", tmp_path / "whole", keep="raw")
    with pytest.raises(UserError, match=r"was prepared with keep=raw, and the model's data was not"):
        Inputs(tmp_path / "whole", package)


def test_offsets_that_do_not_rise_are_reported(folder: Path, data: Dataset, tmp_path: Path) -> None:
    shutil.copytree(folder / "dataset", tmp_path / "dataset")
    (shard,) = data.document.splits["val"].shards
    assert shard.offsets
    path = tmp_path / "dataset" / shard.offsets.path
    offsets = np.load(path)
    offsets[[3, 4]] = offsets[[4, 3]]
    write_npy(path, offsets)
    changed = shard.model_copy(
        update={"offsets": shard.offsets.model_copy(update={"sha256": sha256_file(path)})}, deep=True
    )
    with pytest.raises(CorruptDataError, match=r"holds offsets that do not rise; prepare the dataset again"):
        Dataset(tmp_path / "dataset", data.document).open_shard(changed)


def test_pixels_without_files_are_refused(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    download(data="digits", version=version_of("digits"), recipe=READING, needs_labels=True, raw=str(raw))
    with pytest.raises(UserError, match=r"keep=jpeg, but the data set has pixels and no .*; give keep=raw"):
        prepare_kept(raw, tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


def jpeg(number: int, **options: Any) -> bytes:
    file = io.BytesIO()
    cut(number, 0).save(file, "JPEG", quality=90, **options)
    return file.getvalue()


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_is_cut_off_is_bad(progressive: bool) -> None:
    whole = jpeg(4, progressive=progressive)
    assert len(whole) > 1000
    with decoder(SIZE, crop=True) as decode:
        for length in (len(whole) // 2, len(whole) - 100, len(whole) - 2):
            with pytest.raises(BadPicture, match="it is broken"):
                decode.decode(whole[:length])


def test_a_jpeg_with_needless_bytes_is_kept_as_it_is() -> None:
    whole = jpeg(4)
    with decoder(SIZE, crop=True) as decode:
        sound = decode.decode(whole).kept
        for content in (whole + b"more", whole[:-2] + b"\0" * 7 + whole[-2:]):
            found = decode.decode(content).kept
            assert sound and found and (found.data, found.digest) == (content, sound.digest)


def test_a_jpeg_of_a_rare_subsampling_is_encoded_again() -> None:
    content = bytearray(jpeg(4, subsampling="4:4:4"))
    content[content.index(b"\xff\xc0") + 11] = 0x31  # brightness: three times as wide as colour
    with decoder(SIZE, crop=True) as decode, Image.open(io.BytesIO(content)) as picture:
        kept = decode.decode(bytes(content)).kept
        assert kept and kept.data != content
        difference = decode_kept(kept.data).astype(int) - np.asarray(picture)
    assert abs(difference).mean() < 10


def test_jpegs_that_are_cut_off_are_counted(tmp_path: Path) -> None:
    for split in SPLITS:
        for number in range(6):
            path = tmp_path / "pictures" / split / "ab"[number % 2] / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            content = jpeg(4 * (6 * SPLITS.index(split) + number))
            path.write_bytes(content[:-100] if (split, number) == ("train", 3) else content)
    raw = download_from(tmp_path / "pictures", tmp_path / "raw")
    with pytest.raises(UserError, match=r"train/b/3\.jpg cannot be used: it is broken \(image file is truncated"):
        prepare_kept(raw, tmp_path / "dataset")
    data = prepare_kept(raw, tmp_path / "without", max_bad_images=1)
    assert data.counts == {"train": 5, "val": 6, "test": 6}
    assert data.document.bad_images and len(data.document.bad_images) == 1


def test_a_picture_too_long_for_a_jpeg_is_named(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(4):
            cut(number, 0).save(tmp_path / f"pictures/{name}/{number}.png")
    Image.new("L", (70_000, 2)).save(tmp_path / "pictures/a/long.png")
    raw = download_from(tmp_path / "pictures", tmp_path / "raw")
    with pytest.raises(UserError, match=r"long\.png cannot be used: scaled down, it is 70,000 pixels long, and a JPEG"):
        prepare_kept(raw, tmp_path / "dataset")
