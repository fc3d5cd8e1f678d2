"""Archives of which no part can be read alone are read once, into plain tars in the store, by which pods read them."""

import gzip
import io
from pathlib import Path
from typing import Any

import pytest

from components.shared.core.errors import TransientError, UserError
from components.shared.data.archives import shards
from components.shared.data.layout.reading import Reading
from components.shared.data.sources.schemes import open_listed_source
from components.shared.storage.client import Store
from tests.bigdata.parts import listed, prepared, prepared_alone
from tests.bigdata.test_archives import assert_same, pictures, tarred
from tests.bigdata.test_samples import by_number, read, shard
from tests.data.archives.hostile import COMPRESS, bomb
from tests.data.samples.reading import fetched, rows
from tests.sample_files import picture, tar_bytes
from tests.servers.web_server import WebServer, cut_after, etag, whole

COMPRESSED = [suffix for suffix in COMPRESS if suffix != ".tar"]


@pytest.fixture(autouse=True)
def small_tars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tars of a few pictures."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 2000)


def stored(store: Store) -> dict[str, str]:
    """Return the names and ETags of what is in the store for sources."""
    return {entry.name: entry.etag for entry in store.list("sources")}


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_a_compressed_tar_is_read_as_one_pod_reads_it(suffix: str, store: Store, uri: str, tmp_path: Path) -> None:
    path = tmp_path / f"pets{suffix}"
    path.write_bytes(COMPRESS[suffix](tarred()))
    store.put_file(path, f"data/{path.name}")
    for number, data in enumerate([store.uri(f"data/{path.name}"), str(path)]):
        whole_set = fetched(data, tmp_path / f"raw{number}")
        assert read(data, uri) == rows(whole_set)
        assert open_listed_source(data).listing(Reading(), uri)[0]["left_out"] == whole_set.document.left_out
    assert len([name for name in stored(store) if name.endswith(".tar")]) == 10


def test_a_compressed_tar_is_prepared_as_by_one_pod(store: Store, uri: str, tmp_path: Path) -> None:
    store.put_bytes(gzip.compress(tarred()), "data/pets.tar.gz")
    source = store.uri("data/pets.tar.gz")
    assert_same(
        prepared(listed(source, uri, tmp_path / "listing"), [1, 0], tmp_path / "many"),
        prepared_alone(source, tmp_path),
    )


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "compressed"])
def test_a_server_without_parts_is_read_once(
    compress: Any, web_server: WebServer, store: Store, uri: str, tmp_path: Path
) -> None:
    web_server.files["/pets.tar"] = compress(tar_bytes(dict(pictures()), "w"))
    web_server.script = [whole] * 100
    data = f"{web_server.url}/pets.tar"
    found = read(data, uri)
    sent = [asked for asked in web_server.asked if "Range" not in asked]
    assert len(sent) == 4, "to look at the start, and once to the end"
    first, web_server.asked = stored(store), []
    assert read(data, uri) == found == rows(fetched(data, tmp_path / "raw"))
    assert stored(store) == first, "nothing is written again"


def test_what_is_there_is_not_written_again(
    store: Store, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pets.tar.gz"
    path.write_bytes(gzip.compress(tarred()))
    found, before = read(str(path), uri), stored(store)
    lost = next(name for name in before if name.endswith(".tar"))
    store.remove(lost)
    put, written = Store.put_file, []

    def put_file(self: Store, path: str | Path, name: str, sha256: str = "") -> str:
        written.append(name)
        return put(self, path, name, sha256)

    monkeypatch.setattr(Store, "put_file", put_file)
    assert read(str(path), uri) == found
    assert written == [lost] and stored(store) == before


def test_a_changed_archive_is_read_again(store: Store, uri: str, tmp_path: Path) -> None:
    path = tmp_path / "pets.tar.gz"
    path.write_bytes(tar_bytes(dict(pictures())))
    before = read(str(path), uri)
    path.write_bytes(tar_bytes(dict(list(pictures())[:-3])))
    assert read(str(path), uri) == before[:-2]


def test_a_stream_that_is_cut_goes_on(web_server: WebServer, uri: str, tmp_path: Path, waits: list[float]) -> None:
    body = tar_bytes(dict(pictures()), "w")
    web_server.files["/pets.tar"] = body
    data = f"{web_server.url}/pets.tar"
    web_server.script = [*[whole] * 4, cut_after(3000), cut_after(20_000), *[whole] * 20]
    assert [row[2] for row in read(data, uri)] == [row[2] for row in rows(fetched(data, tmp_path / "raw"))]
    assert len(waits) == 2


def test_a_stream_that_changes_is_refused(web_server: WebServer, uri: str, waits: list[float]) -> None:
    body = tar_bytes(dict(pictures()), "w")
    web_server.files["/pets.tar"] = body

    def changed(handler: Any) -> None:
        handler.reply(200, body, ETag=etag(b"another"))

    web_server.script = [*[whole] * 4, cut_after(3000), changed]
    with pytest.raises(TransientError, match=r"pets\.tar changed while it was read; run it again"):
        read(f"{web_server.url}/pets.tar", uri)
    assert len(waits) == 1


def test_compressed_tars_beside_plain_ones_are_read(store: Store, uri: str, tmp_path: Path) -> None:
    train, test = ({f"{kind}/{n}.png": picture(n + k) for k, kind in enumerate("ab")} for n in (0, 7))
    store.put_bytes(tar_bytes(train), "data/train.tar.gz")
    store.put_bytes(tar_bytes(test, "w"), "data/test.tar")
    data = store.uri("data")
    assert read(data, uri) == rows(fetched(data, tmp_path / "raw"))


def test_labels_and_what_is_left_out_survive(store: Store, uri: str, tmp_path: Path) -> None:
    plain = io.BytesIO(shard(0, 20, by_number)).getvalue()
    others = {"a.mp4": b"v" * 2**21, "b.heic": bytes(5000), ".hidden": b"x" * 500, "classnames.txt": b"a\nb\nc\n"}
    body = plain.rstrip(b"\0")
    path = tmp_path / "pets.tar.gz"
    path.write_bytes(gzip.compress(body + bytes(-len(body) % 512) + tar_bytes(others, "w")))
    whole_set = fetched(str(path), tmp_path / "raw")
    assert read(str(path), uri) == rows(whole_set)
    assert open_listed_source(str(path)).listing(Reading(), uri)[0]["left_out"] == whole_set.document.left_out
    assert sum(entry.size for entry in store.list("sources")) < 2**21


def test_archives_that_cannot_be_repacked_are_refused(web_server: WebServer, store: Store, uri: str) -> None:
    web_server.files |= {"/pets.zip": b"PK\3\4", "/pets.tar.gz": tar_bytes(dict(pictures()))}
    web_server.script = [whole] * 2
    with pytest.raises(UserError, match=r"pets\.zip is a zip at a server that sends no parts of a file; pack"):
        read(f"{web_server.url}/pets.zip", uri)
    with pytest.raises(UserError, match=r"pets\.tar\.gz cannot be read in parts, .*; set store=s3://bucket/prefix"):
        read(f"{web_server.url}/pets.tar.gz", "")
    web_server.files["/bomb.tar.gz"] = bomb(".tar.gz")
    with pytest.raises(UserError, match=r"bomb\.tar\.gz unpacks to more than 200 times its size"):
        read(f"{web_server.url}/bomb.tar.gz", uri)
    assert not [name for name in stored(store) if name.endswith(".json")]


def test_a_table_with_labels_is_kept_whole(store: Store, uri: str, tmp_path: Path) -> None:
    files = {f"{kind}/{number}.png": picture(number) for number in range(4) for kind in "ab"}
    labels = [f"{'cat' if '1' in name or '2' in name else 'dog'},{name}" for name in files]
    elsewhere = [f"cat,{number:01000}.png" for number in range(1200)]  # more than a label's most bytes
    table = "\n".join(["label,path", *labels[:3], *elsewhere, *labels[3:]])
    path = tmp_path / "pets.tar.gz"
    path.write_bytes(tar_bytes(files | {"labels.tab": table.encode()}))
    assert {row[1] for row in read(str(path), uri)} == {"a", "b"}, "without the table, which is cut in the store"
    found = read(str(path), uri, labels="labels.tab")
    assert {row[1] for row in found} == {"cat", "dog"} and len(found) == len(files)
    assert found == rows(fetched(path, tmp_path / "raw", labels="labels.tab"))
