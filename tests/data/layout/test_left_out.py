"""What is left out of a data set is counted by kind and said in the log, the documents and the report."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from components.download import download
from components.preprocess import preprocess
from components.shared.core.errors import UserError
from components.shared.data.dataset import open_dataset
from components.shared.data.decode import decode
from components.shared.data.layout.left_out import LeftOut, Tally
from components.shared.data.raw import Raw, open_raw
from components.shared.data.sources.local import fingerprint
from components.shared.evaluation.report.report import left_out_of
from components.shared.parameters.preparation import PreprocessRecipe
from runner.summary import StepState, collect
from tests.data.versions import READING, version_of
from tests.sample_files import packed, picture

INPUTS = Path(__file__).parents[1] / "inputs"
PICTURES = {f"{kind}/{number}.png": picture(number) for number, kind in enumerate(("cat", "cat", "dog", "dog"))}
JUNK = {
    "@eaDir/cat/SYNOPHOTO_THUMB_M.jpg": "@eaDir",
    "cat/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg": "@eaDir",
    "#recycle/cat/old.png": "#recycle",
    "dog/.thumbnails/1.png": ".thumbnails",
    "dog/Thumbs.db": "Thumbs.db",
    "cat/._0.png": "._*",
    "__MACOSX/cat/._0.png": "__MACOSX",
    "$RECYCLE.BIN/S-1-5-21/$R.png": "$RECYCLE.BIN",
    "lost+found/#1234.png": "lost+found",
    "cat/.ipynb_checkpoints/0-checkpoint.png": ".ipynb_checkpoints",
    "cat/.DS_Store": ".DS_Store",
    ".git/objects/ab/cdef": ".git",
    "cat/.0.png.swp": "hidden",
}
SIDECARS = ("cat/0.xml", "dog/2.json", "classes.txt", "labels.csv", "cat/0.mat")


def raw_of(data: Path, tmp_path: Path) -> Raw:
    download(
        data=str(data), version=version_of(str(data)), recipe=READING, needs_labels=True, raw=str(tmp_path / "raw")
    )
    return open_raw(tmp_path / "raw")


def kinds(left_out: LeftOut | None, reason: str) -> dict[str, int]:
    assert left_out
    return {files.kind: files.count for files in left_out.files if files.reason == reason}


def names(raw: Raw) -> list[str]:
    return [name for chunk in raw.chunks(3) for name in chunk.names]


def encoded(file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, file_format, **options)
    return file.getvalue()


def prepared(raw: Raw, tmp_path: Path, **settings: object) -> Path:
    recipe = PreprocessRecipe.of(image_size=32, max_bad_images=99, **settings).text()
    preprocess(raw=str(raw.folder), recipe=recipe, prepared_by="", dataset=str(tmp_path / "dataset"))
    return tmp_path / "dataset"


@pytest.fixture(autouse=True)
def _cache(cache: Path) -> Iterator[None]:
    yield


@pytest.mark.parametrize("how", ["folder", "zip", "tar.gz"])
def test_junk_and_sidecars_are_counted_by_kind(tmp_path: Path, how: str) -> None:
    files = PICTURES | {name: picture(9) for name in (*JUNK, *SIDECARS)}
    raw = raw_of(packed(tmp_path, files, how), tmp_path)
    assert (raw.classes, raw.counts, names(raw)) == (["cat", "dog"], {"all": 4}, list(PICTURES))
    expected: dict[str, int] = {}
    for kind in JUNK.values():
        expected[kind] = expected.get(kind, 0) + 1
    assert kinds(raw.document.left_out, "junk") == expected
    assert kinds(raw.document.left_out, "sidecar") == {".xml": 1, ".json": 1, ".txt": 1, ".csv": 1, ".mat": 1}


def test_junk_does_not_change_the_data(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    plain, pets = packed(tmp_path / "plain", PICTURES, "folder"), packed(tmp_path, PICTURES, "folder")
    before = fingerprint(pets)
    digest = raw_of(plain, tmp_path / "plain").digest
    packed(tmp_path, {name: picture(9) for name in JUNK}, "folder")
    assert fingerprint(pets) == before
    assert raw_of(pets, tmp_path).digest == digest


def test_a_junk_folder_that_cannot_be_read_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pets = packed(tmp_path, PICTURES | {"lost+found/x.png": b""}, "folder")
    scan = os.scandir

    def scandir(path: str) -> object:  # as for anybody but root
        if os.fspath(path).endswith("lost+found"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert raw_of(pets, tmp_path).counts == {"all": 4}
    assert f"left out: {pets}/lost+found cannot be read (Permission denied)" in capsys.readouterr().out


def test_synologys_thumbnails_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = raw_of(INPUTS / "synology.zip", tmp_path)
    assert raw.counts == {"all": 28}
    assert "56 files of other programs left out: 56 @eaDir" in capsys.readouterr().out
    dataset = prepared(raw, tmp_path)
    assert left_out_of(open_dataset(dataset).document) == ["56 files of other programs left out: 56 @eaDir"]


@pytest.mark.parametrize("how", ["folder", "zip", "tar.gz"])
def test_a_name_that_does_not_tell_is_decided_by_content(tmp_path: Path, how: str) -> None:
    jpeg, heic = encoded("JPEG"), b"\0\0\0\x18ftypheic" + bytes(100)
    pictures = {
        "cat/1.JFIF": jpeg,
        "cat/2.jpe": jpeg,
        "cat/3.WebP": encoded("WEBP"),
        "cat/4.avif": encoded("AVIF"),
        "dog/5.PNG": encoded("PNG"),
        "dog/6": encoded("GIF"),
        "dog/7.1": encoded("BMP"),
        "dog/8.jpg_large": jpeg,
        "dog/9.img": encoded("TIFF"),
    }
    others = {
        "cat/a": heic,
        "cat/b.x": b"%PDF-1.7",
        "cat/c.mp4": b"\0\0\0\x18ftypisom",
        "cat/empty": b"",
        "cat/d.IIQ": b"II*\0" + bytes(60),
        "dog/d": b"BM",
    }
    raw = raw_of(packed(tmp_path, pictures | others, how), tmp_path)
    assert names(raw) == list(pictures)
    assert kinds(raw.document.left_out, "unreadable") == {".heic": 1, ".pdf": 1, ".iiq": 1}
    assert kinds(raw.document.left_out, "other") == {".mp4": 1, "without a known suffix": 2}
    assert all(decode(content, 32).any() for chunk in raw.chunks(3) for content in chunk.encoded or [])


def test_all_of_jfif_are_read(tmp_path: Path) -> None:
    raw = raw_of(INPUTS / "jfif.zip", tmp_path)
    assert (raw.counts, raw.document.left_out) == ({"all": 48}, LeftOut(taken=48, files=[]))
    assert open_dataset(prepared(raw, tmp_path)).document.bad_images == []


def test_too_many_unreadable_pictures_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = raw_of(INPUTS / "heic.zip", tmp_path)
    sentence = "24 of 48 pictures left out: 24 .heic"
    assert sentence in capsys.readouterr().out
    with pytest.raises(UserError, match=f"{sentence}, more than max_left_out=0.1; convert them to PNG or JPEG, or set"):
        prepared(raw, tmp_path)
    data = open_dataset(prepared(raw, tmp_path, max_left_out=0.5))
    assert sum(data.counts.values()) == 24
    assert left_out_of(data.document) == [sentence]


def test_the_summary_has_what_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "training-1" / "preprocess"
    folder.mkdir(parents=True)
    prepared(raw_of(INPUTS / "heic.zip", tmp_path), folder, max_left_out=1)
    done = StepState(state="done", seconds=1.0)
    summary = collect("training", tmp_path / "run", 0, "done", {}, {"preprocess": done}, {}, None)
    assert summary.dataset and summary.dataset.left_out
    assert summary.dataset.left_out.sentences() == ["24 of 48 pictures left out: 24 .heic"]
    assert '"kind": ".heic"' in summary.to_json().decode()


@pytest.mark.parametrize("how", ["folder", "zip", "tar.gz"])
def test_a_set_without_readable_pictures_says_why(tmp_path: Path, how: str) -> None:
    data = packed(tmp_path, {"cat/1.heic": b"x", "dog/1.NEF": b"x"}, how)
    with pytest.raises(UserError, match=r"\(2 of 2 pictures left out: 1 \.heic, 1 \.nef\); convert them to PNG"):
        raw_of(data, tmp_path)
    data = packed(tmp_path, {"cat/1.png": picture(1), "dog/1.NEF": b"x"}, "zip")
    with pytest.raises(UserError, match=r"no picture of class 'dog' \(1 of 2 pictures left out: 1 \.nef\)"):
        raw_of(data, tmp_path)


def test_many_kinds_take_bounded_memory() -> None:
    tally = Tally()
    for number in range(1000):
        tally.add("other", f".{number}x", f"{number}")
    found = tally.result(1)
    assert len(found.files) == 41 and found.files[0].kind == "of other kinds"
    assert sum(files.count for files in found.files) == 1000
