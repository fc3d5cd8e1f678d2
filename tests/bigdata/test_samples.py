"""The list of a source, and the pictures that pods read by it, are what one pod has that reads the source whole."""

import json
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.shared.core.errors import TransientError, UserError
from components.shared.data.decode import Decoded, Decoder
from components.shared.data.layout.reading import Reading
from components.shared.data.sources.schemes import open_listed_source
from components.shared.storage.client import Store
from tests.bigdata.parts import listed, prepared, prepared_alone
from tests.bigdata.test_archives import assert_same
from tests.data.samples import test_imagenet, test_parquet
from tests.data.samples.reading import fetched, rows
from tests.sample_files import picture, tar_bytes, zip_bytes
from tests.servers.web_server import WebServer

Files = Mapping[str, bytes]


def shard(first: int, count: int, label: Callable[[int], Files]) -> bytes:
    """Return a tar of WebDataset."""
    files: dict[str, bytes] = {}
    for number in range(first, first + count):
        files[f"{number:04}.png"] = picture(number)
        files |= {f"{number:04}.{extension}": content for extension, content in label(number).items()}
    return tar_bytes(files, "w")


def by_number(number: int) -> Files:
    return {"cls": str(number % 3).encode(), "txt": b"a pet"}


def by_name(number: int) -> Files:
    return {"json": json.dumps({"label": ["dog", "cat"][number % 2]}).encode()}


def shards(folder: Path) -> Files:
    del folder
    return {
        "classnames.txt": b"cat\ndog\nfox\n",
        "val-000.tar": shard(40, 10, by_number),
        "train-000.tar": shard(0, 20, by_number),
        "train-001.tar": shard(20, 20, by_number),
    }


def hugging_face(folder: Path) -> Files:
    """Return Parquet files in groups of two rows, of which some have no bytes."""
    test_parquet.dataset(folder)
    columns = test_parquet.labelled(10, 11, 12) | {"image": test_parquet.images(10, None, 12)}
    test_parquet.write(folder / "data/train-00002-of-00003.parquet", columns, test_parquet.FEATURES)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def archives(folder: Path) -> Files:
    del folder
    train, test = ({f"{kind}/{n}.png": picture(n + len(kind)) for kind in ("cat", "fox!")} for n in (0, 9))
    zipped = zip_bytes({name.encode(): content for name, content in train.items()})
    return {"train.zip": zipped, "test.tar": tar_bytes(test, "w"), "notes.txt": b"x"}


SOURCES: dict[str, Callable[[Path], Files]] = {
    "webdataset": shards,
    "parquet": hugging_face,
    "archives": archives,
    "imagenet": lambda _: test_imagenet.FILES,
}


def read(data: str, store: str = "", **reading: Any) -> list[tuple[str, str | None, str, bytes]]:
    """Return split, class, name and content of each picture of a source that is listed."""
    source = open_listed_source(data)
    description, pictures = source.listing(Reading(**reading), store)
    found = [*pictures]
    contents = source.read(found)
    return [
        (one.split, description["classes"][one.label], one.name, content)
        for one, content in zip(found, contents, strict=True)
    ]


def put(files: Files, folder: Path, store: Store) -> None:
    """Store files in a folder and below the prefix `data`."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        store.put_file(folder / name, f"data/{name}")


@pytest.mark.parametrize("kind", SOURCES)
def test_pods_read_what_one_pod_reads(kind: str, store: Store, tmp_path: Path) -> None:
    put(SOURCES[kind](tmp_path / "made"), tmp_path / "data", store)
    whole = fetched(store.uri("data"), tmp_path / "raw")
    assert rows(whole) == read(store.uri("data")) == read(str(tmp_path / "data"))
    for data in (store.uri("data"), str(tmp_path / "data")):
        description, _ = open_listed_source(data).listing(Reading(), "")
        assert (description["name"], description["classes"]) == (whole.name, whole.classes)
        assert description["left_out"] == whole.document.left_out


@pytest.mark.parametrize("kind", ["webdataset", "json", "parquet", "imagenet", "manifest"])
def test_a_single_file_is_read_as_one_pod_reads_it(
    kind: str, store: Store, web_server: WebServer, tmp_path: Path
) -> None:
    train = test_parquet.write(tmp_path / "train.parquet", test_parquet.labelled(1, 2, 3), test_parquet.FEATURES)
    files = {
        "webdataset": ("pets.tar", shard(0, 20, by_number)),
        "json": ("pets.tar", shard(0, 20, by_name)),
        "parquet": ("pets.parquet", train.read_bytes()),
        "imagenet": ("imagenet.tar", tar_bytes(dict(test_imagenet.FILES), "w")),
        "manifest": ("pets.csv", b"path,label\n" + b"".join(_row(store, n) for n in range(20))),
    }
    name, content = files[kind]
    put({name: content}, tmp_path / "data", store)
    web_server.files[f"/{name}"] = content
    for number, data in enumerate([store.uri(f"data/{name}"), f"{web_server.url}/{name}"]):
        assert rows(fetched(data, tmp_path / f"raw{number}")) == read(data)


def _row(store: Store, number: int) -> bytes:
    store.put_bytes(picture(number), f"pictures/{number}.png")
    return f"{store.uri(f'pictures/{number}.png')},{number % 3}\n".encode()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_manifest_is_read_as_one_pod_reads_it(kind: str, store: Store, tmp_path: Path) -> None:
    table = {"path": [f"img/{n}.png" for n in range(20)], "label": [f"c{n % 2}" for n in range(20)]}
    table["split"] = ["train", "test"] * 10
    files = {f"img/{n}.png": picture(n) for n in range(19)}  # one is missing
    if kind == "csv":
        columns = ([name, *values] for name, values in table.items())
        files["pets.csv"] = "\n".join(",".join(row) for row in zip(*columns, strict=True)).encode()
    else:
        pq.write_table(pa.table(table), tmp_path / "pets.parquet")
        files["pets.parquet"] = (tmp_path / "pets.parquet").read_bytes()
    put(files, tmp_path / "data", store)
    for number, data in enumerate([store.uri(f"data/pets.{kind}"), str(tmp_path / f"data/pets.{kind}")]):
        whole = fetched(data, tmp_path / f"raw{number}")
        assert rows(whole) == read(data) and len(rows(whole)) == 19
        assert open_listed_source(data).listing(Reading(), "")[0]["left_out"] == whole.document.left_out


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_samples_are_prepared_as_by_one_pod(kind: str, store: Store, uri: str, tmp_path: Path) -> None:
    put(SOURCES[kind](tmp_path / "made"), tmp_path / "data", store)
    source = store.uri("data")
    settings = {"val_fraction": 0.2, "test_fraction": 0.2}
    listing = listed(source, uri, tmp_path / "listing", **settings)
    assert_same(prepared(listing, [1, 0], tmp_path / "many"), prepared_alone(source, tmp_path))


def test_a_table_is_listed_without_its_pictures(web_server: WebServer, tmp_path: Path) -> None:
    noise = [{"bytes": np.random.default_rng(n).bytes(300_000), "path": f"{n}.png"} for n in range(6)]
    columns = {"image": pa.array(noise, test_parquet.IMAGE), "label": pa.array([0, 1] * 3)}
    path = test_parquet.write(tmp_path / "train.parquet", columns, test_parquet.FEATURES)
    web_server.files["/train.parquet"] = path.read_bytes()
    _, pictures = open_listed_source(f"{web_server.url}/train.parquet").listing(Reading(), "")
    assert [picture.name for picture in pictures] == [f"train.parquet/{n}/{n}.png" for n in range(6)]
    parts = [asked["Range"].removeprefix("bytes=").split("-") for asked in web_server.asked]
    assert sum(int(last) + 1 - int(first) for first, last in parts) < path.stat().st_size / 2


@pytest.mark.slow
def test_a_table_that_lacks_a_picture_is_listed_in_little_memory(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    noise = [None, *(random.bytes(20_000) for _ in range(1999))]
    table = pa.table({"image": pa.array(noise, pa.binary()), "label": pa.array([0, 1] * 1000)})
    path = tmp_path / "train.parquet"
    pq.write_table(table, path, compression="none", use_dictionary=False, write_batch_size=16, data_page_size=2**16)
    source = open_listed_source(str(path))
    tracemalloc.start()
    _, pictures = source.listing(Reading(), "")
    assert sum(1 for _ in pictures) == 1999
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < path.stat().st_size * 0.7


@pytest.mark.slow
def test_pictures_of_a_table_are_measured_by_reading_it_once(
    web_server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("preparation.unit", "parts.listing"):
        monkeypatch.setattr(f"components.shared.data.{module}.SPLIT_ROWS", 1024)
    random = np.random.default_rng(0)
    starts = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0")
    noise = [starts[number % 2] + random.bytes(20_000) for number in range(600)]
    table = pa.table({"image": pa.array(noise, pa.binary()), "label": pa.array([0, 1] * 300)})
    path = tmp_path / "train.parquet"
    pq.write_table(table, path, compression="none", use_dictionary=False, write_batch_size=16, data_page_size=2**16)
    web_server.files["/train.parquet"] = path.read_bytes()
    decode_all, decoded = Decoder.each, list[bytes]()

    def each(decoder: Decoder, pictures: Sequence[bytes]) -> list[Decoded]:
        decoded.extend(pictures)
        return decode_all(decoder, pictures)

    monkeypatch.setattr(Decoder, "each", each)
    listed(f"{web_server.url}/train.parquet", "", tmp_path / "listing")
    assert decoded == noise[::2], "the others begin as JPEGs do"
    asked = [headers["Range"] for headers in web_server.asked if "Range" in headers]
    parts = [part.removeprefix("bytes=").split("-") for part in asked]
    assert sum(int(last) + 1 - int(first) for first, last in parts) < path.stat().st_size * 1.5


def test_a_row_or_a_picture_that_changed_is_reported(store: Store, tmp_path: Path) -> None:
    put(hugging_face(tmp_path / "made"), tmp_path / "data", store)
    pets = {"pets.csv": b"path,label\n1.png,a\n2.png,b\n", "1.png": picture(1), "2.png": picture(2)}
    put({f"pets/{name}": content for name, content in pets.items()}, tmp_path / "data", store)
    sources = {"data/pets/pets.csv": "data/pets/1.png", "data/data": "data/data/train-00000-of-00002.parquet"}
    for name, changed in sources.items():
        source = open_listed_source(store.uri(name))
        pictures = [*source.listing(Reading(), "")[1]]
        store.put_bytes(store.get_bytes(changed)[0] + b"\0", changed)
        with pytest.raises(TransientError, match=rf"{changed} changed while it was read; run it again"):
            [*source.read(pictures)]
        store.remove(changed)
        with pytest.raises(TransientError, match=rf"{changed} changed while it was read; run it again"):
            [*source.read(pictures)]


def test_an_archive_in_a_zip_is_refused(tmp_path: Path) -> None:
    inner = tar_bytes({"cat/1.png": picture(1), "dog/1.png": picture(2)}, "w")
    (tmp_path / "pets.zip").write_bytes(zip_bytes({b"train.tar": inner}))
    with pytest.raises(UserError, match=r"train\.tar is in a zip, .* alone; pack it as zip or as plain tar"):
        read(str(tmp_path / "pets.zip"))
