"""ImageNet as its authors give it out, in an imitation of a few pictures."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from components.shared.core.errors import UserError
from components.shared.storage.client import open_store
from tests.data.samples.reading import fetched, left_out, rows
from tests.sample_files import picture, tar_bytes
from tests.servers.s3_server import BUCKET, S3Server

WORDNET_IDS = ["n02119789", "n01440764"]  # in the order of the devkit, which is not theirs
TRUTH = b"2\n1\n2\n"
VAL = tar_bytes({f"ILSVRC2012_val_0000000{n}.JPEG": picture(50 + n) for n in (1, 2, 3)}, "w")
TRAIN = tar_bytes(
    {
        f"{wordnet_id}.tar": tar_bytes({f"{wordnet_id}_{n}.JPEG": picture(10 * k + n) for n in (1, 2)}, "w")
        for k, wordnet_id in enumerate(WORDNET_IDS)
    },
    "w",
)


def meta(**changes: Any) -> bytes:
    """Return a meta.mat of two classes, and of one that is above them."""
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    synsets = np.array(
        [(n, name, f"words {n}", 2 * (n == 3)) for n, name in enumerate([*WORDNET_IDS, "n00001740"], 1)], kinds
    )
    file = io.BytesIO()
    scipy.io.savemat(file, {"synsets": synsets, **changes})
    return file.getvalue()


def devkit(truth: bytes = TRUTH, classes: bytes | None = None) -> bytes:
    base = "ILSVRC2012_devkit_t12/data"
    files = {f"{base}/ILSVRC2012_validation_ground_truth.txt": truth, f"{base}/meta.mat": classes or meta()}
    return tar_bytes({"ILSVRC2012_devkit_t12/readme.txt": b"x", **files})


FILES = {
    "ILSVRC2012_img_train.tar": TRAIN,
    "ILSVRC2012_img_val.tar": VAL,
    "ILSVRC2012_devkit_t12.tar.gz": devkit(),
    "ILSVRC2012_img_test_v10102019.tar": tar_bytes({"test/ILSVRC2012_test_00000001.JPEG": picture(90)}, "w"),
    "ILSVRC2012_bbox_val_v3.tgz": b"not read",
}
TRAINED = [
    ("train", wordnet_id, f"ILSVRC2012_img_train/{wordnet_id}/{wordnet_id}_{n}.JPEG", picture(10 * k + n))
    for k, wordnet_id in enumerate(WORDNET_IDS)
    for n in (1, 2)
]
VALIDATED = [
    ("val", WORDNET_IDS[k], f"ILSVRC2012_img_val/ILSVRC2012_val_0000000{n}.JPEG", picture(50 + n))
    for n, k in enumerate((1, 0, 1), 1)
]


@pytest.fixture(autouse=True)
def _cache(cache: Path) -> None:
    """No test changes the user's cache."""


def folder(path: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def test_the_authors_archives_are_read(tmp_path: Path) -> None:
    raw = fetched(folder(tmp_path / "imagenet/archives", FILES).parent, tmp_path / "raw")
    assert (raw.classes, raw.counts) == (sorted(WORDNET_IDS), {"train": 4, "val": 3})
    assert rows(raw) == [*TRAINED, *VALIDATED]
    assert left_out(raw) == [
        "1 picture without a label left out: 1 in ILSVRC2012_img_test_v10102019",
        "1 file that is no picture left out: 1 .tgz",
    ]
    assert not [path for path in (tmp_path / "raw").iterdir() if path.is_dir()]


def test_kaggles_solution_says_the_classes_too(tmp_path: Path) -> None:
    lines = [f"ILSVRC2012_val_0000000{n},{WORDNET_IDS[k]} 1 2 3 4 " for n, k in ((3, 1), (1, 1), (2, 0))]
    solution = "\n".join(["ImageId,PredictionString", *lines]).encode()
    files = {"ILSVRC2012_img_train.tar": TRAIN, "ILSVRC2012_img_val.tar": VAL, "LOC_val_solution.csv": solution}
    assert rows(fetched(folder(tmp_path / "imagenet", files), tmp_path / "raw")) == [*TRAINED, *VALIDATED]


def test_prediction_takes_pictures_without_a_class(tmp_path: Path) -> None:
    files = {name: FILES[name] for name in ("ILSVRC2012_img_val.tar", "ILSVRC2012_img_test_v10102019.tar")}
    raw = fetched(folder(tmp_path / "imagenet", files), tmp_path / "raw", needs_labels=False)
    assert (raw.counts, {label for _, label, *_ in rows(raw)}) == ({"val": 3, "all": 1}, {None})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"ILSVRC2012_devkit_t12.tar.gz": None},
            r"has ILSVRC2012_img_val\.tar without its classes; put the devkit, ILSVRC2012_devkit_t12\.tar\.gz, or Ka",
        ),
        (
            {"ILSVRC2012_devkit_t12.tar.gz": devkit(truth=b"1\n1\n")},
            r"ILSVRC2012_val_00000003\.JPEG is not in ILSVRC2012_validation_ground_truth\.txt, which has 2 lines; give",
        ),
        (
            {"ILSVRC2012_devkit_t12.tar.gz": devkit(truth=b"1\n3\n")},
            r"line 2 of ILSVRC2012_validation_ground_truth\.txt has '3', which meta\.mat does not have; give both",
        ),
        (
            {"ILSVRC2012_devkit_t12.tar.gz": devkit(classes=b"x" * 200)},
            r"meta\.mat of the devkit cannot be read; replace the devkit",
        ),
        (
            {"ILSVRC2012_devkit_t12.tar.gz": devkit(classes=meta(synsets=[1, 2]))},
            r"meta\.mat of the devkit cannot be read; replace the devkit",
        ),
        (
            {"ILSVRC2012_img_train.tar": None},
            "has val without train; give the training pictures, too",
        ),
        (
            {"ILSVRC2012_img_train.tar": TRAIN[:3000] + b"\xff" * 1000 + TRAIN[4000:]},
            r"imagenet: ILSVRC2012_img_train\.tar: n02119789\.tar cannot be read as an archive",
        ),
    ],
)
def test_what_is_missing_or_damaged_is_named(tmp_path: Path, changes: dict[str, bytes | None], message: str) -> None:
    files = {name: content for name, content in {**FILES, **changes}.items() if content is not None}
    with pytest.raises(UserError, match=message):
        fetched(folder(tmp_path / "imagenet", files), tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


@pytest.mark.slow
def test_archives_below_a_prefix_are_read_like_a_folder(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    store = open_store(f"s3://{BUCKET}/imagenet", server.environment)
    for name, content in FILES.items():
        store.put_bytes(content, name)
    assert rows(fetched(f"s3://{BUCKET}/imagenet", tmp_path / "raw")) == [*TRAINED, *VALIDATED]
