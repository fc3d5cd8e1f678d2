"""Shards in the store are read through a cache of limited size, and only if they match their digest."""

import hashlib
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from components.shared.core.errors import CorruptDataError, UserError
from components.shared.data.dataset import SPLITS, Shard, ShardFile, open_dataset, write_document
from components.shared.data.shard_cache import ABANDONED_SECONDS, CACHE_VARIABLE, StoredShards
from components.shared.data.shard_room import NoRoom
from components.shared.storage.client import open_store
from tests.conftest import ROOT
from tests.dataset_writer import DatasetWriter
from tests.servers.s3_server import BUCKET, Proxy, S3Server

SHAPE = (1, 64, 64)
SHARD_BYTES = 100 * 4096  # of pixels
COUNTS = {"train": 1000, "val": 100, "test": 300}  # 14 shards
IMAGES = np.random.default_rng(0).integers(0, 256, (max(COUNTS.values()), *SHAPE), np.uint8)

pytestmark = pytest.mark.slow  # each needs the real server


@pytest.fixture(scope="module")
def local(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local dataset whose shards are in the store, too."""
    folder = tmp_path_factory.mktemp("local")
    writer = DatasetWriter(folder, classes=["a", "b"], image_shape=SHAPE, counts=COUNTS, shard_bytes=SHARD_BYTES)
    for split, count in COUNTS.items():
        writer.append(split, IMAGES[:count] + SPLITS.index(split), np.arange(count) % 2)
    writer.finish(name="noise", seconds={})
    store = open_store(f"s3://{BUCKET}/shards", server.environment)
    for entry in open_dataset(folder).files():
        store.put_file(folder / entry.path, f"{entry.sha256}.npy")
    return folder


@pytest.fixture
def remote(local: Path, s3_proxy: Proxy, tmp_path: Path) -> Path:
    """The dataset as a remote one: the folder holds only its document."""
    folder = tmp_path / "remote"
    folder.mkdir()
    write_document(folder, open_dataset(local).document.model_copy(update={"shards": f"s3://{BUCKET}/shards"}))
    return folder


@pytest.fixture
def shard_cache(cache: Path) -> Path:
    return cache / "shards"


def held(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def entries(folder: Path) -> list[ShardFile]:
    return list(open_dataset(folder).files())


def assert_same(folder: Path, local: Path) -> None:
    for split in SPLITS:
        for found, expected in zip(open_dataset(folder).load(split), open_dataset(local).load(split), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_a_remote_dataset_downloads_each_shard_once(remote: Path, local: Path, s3_proxy: Proxy) -> None:
    for _ in range(2):
        assert_same(remote, local)
    assert len(s3_proxy.asked) == len({entry.sha256 for entry in entries(local)})
    assert [path.name for path in remote.iterdir()] == ["dataset.json"]
    assert open_dataset(remote).is_remote and not open_dataset(local).is_remote


def test_the_cache_does_not_wait_for_the_disk(remote: Path, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each shard is checked when it is opened, so that one that a loss of power has cut is downloaded again."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    assert_same(remote, local)
    assert synced == []


def test_taking_images_fetches_only_their_shards(remote: Path, s3_proxy: Proxy) -> None:
    np.testing.assert_array_equal(open_dataset(remote).take("train", [250, 205]), IMAGES[[250, 205]])
    assert len(s3_proxy.asked) == 1


@pytest.mark.parametrize("mebibytes", [0, 1, 3])
def test_the_cache_stays_within_its_limit(
    remote: Path, local: Path, shard_cache: Path, monkeypatch: pytest.MonkeyPatch, mebibytes: int
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(mebibytes))
    data, most = open_dataset(remote), 0
    for split in SPLITS:
        for _ in data.shards(split):
            most = max(most, held(shard_cache))
    assert most <= max(mebibytes * 2**20, 2 * (SHARD_BYTES + 1024))  # those of this turn and of the one before
    assert_same(remote, local)


def test_the_least_recently_used_shard_is_removed(
    remote: Path, shard_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "1")  # two shards of images, and many of labels
    shards = StoredShards(f"s3://{BUCKET}/shards")
    first, second, third = [entry for entry in entries(remote) if entry.bytes > 2**18][:3]
    for age, entry in enumerate((second, first)):
        shards.open(entry.sha256, entry.bytes).close()
        os.utime(shard_cache / entry.sha256, (1000 + age, 1000 + age))
    shards.open(second.sha256, second.bytes).close()  # so that the first is the least recently used
    shards.open(third.sha256, third.bytes).close()
    assert {path.name for path in shard_cache.iterdir()} == {second.sha256, third.sha256}


def test_reading_in_batches_keeps_few_shards_on_the_disk(
    remote: Path, shard_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So evaluate, export and register read a test split; a file that is mapped needs the disk though it is removed."""
    monkeypatch.setenv(CACHE_VARIABLE, "0")
    found, mapped = [], []
    for images, _ in open_dataset(remote).batches("train", 30):
        found.append(np.array(images))
        lines = Path("/proc/self/maps").read_text().splitlines()
        mapped.append({line.split(maxsplit=5)[5] for line in lines if str(shard_cache) in line})
    np.testing.assert_array_equal(np.concatenate(found), IMAGES)
    assert 0 < max(map(len, mapped)) <= 4, "images and labels of a shard and of the next one"


def test_a_mapped_shard_is_removed_only_afterwards(
    remote: Path, shard_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take its place on the disk all the same, and another process would fetch it again."""
    monkeypatch.setenv(CACHE_VARIABLE, "2")
    stored = StoredShards(f"s3://{BUCKET}/shards")
    shards = [images for images, _ in open_dataset(remote).shards("train")]
    images = [entry for entry in entries(remote) if entry.path.startswith("train-") and "images" in entry.path]
    used = {entry.sha256: entry.bytes for entry in images}
    assert stored.free_bytes() == 2 * 2**20 - sum(used.values()) < 0
    assert stored.free_bytes(besides=used) == 2 * 2**20
    with pytest.raises(NoRoom):
        stored.reserve(1)
    stored.reserve(1, besides=used).close()
    open_dataset(remote).take("test", [0])
    assert used.keys() < {path.name for path in shard_cache.iterdir()}
    np.testing.assert_array_equal(np.concatenate([images[:] for images in shards]), IMAGES)
    del shards
    stored.reserve(2**20).close()
    assert stored.free_bytes() == 2 * 2**20 and held(shard_cache) <= 2**20


def test_a_shard_damaged_in_the_cache_is_downloaded_again(
    remote: Path, local: Path, shard_cache: Path, s3_proxy: Proxy
) -> None:
    assert_same(remote, local)
    fetched = len(s3_proxy.asked)
    flipped, cut = [shard_cache / entry.sha256 for entry in entries(remote)[:2]]
    flipped.write_bytes(flipped.read_bytes()[:-1] + b"?")
    cut.write_bytes(cut.read_bytes()[:-1])
    assert_same(remote, local)
    assert len(s3_proxy.asked) == fetched + 2


READER = """
import sys
from components.shared.data.dataset import SPLITS, open_dataset
for _ in range(4):
    for split in SPLITS:
        shards = open_dataset(sys.argv[1]).shards(split)
        print(sum(int(images[:].sum()) + int(labels.sum()) for images, labels in shards))
"""


MAPPER = """
import sys
from components.shared.data.dataset import open_dataset
shards = list(open_dataset(sys.argv[1]).shards("train"))
sys.stdout.write(".")
sys.stdout.flush()
sys.stdin.read()
"""


def test_processes_share_a_cache_that_is_too_small(
    remote: Path, local: Path, shard_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "1")
    command = [sys.executable, "-c", READER, str(remote)]
    readers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    expected = [sum(int(a.sum()) for a in open_dataset(local).load(split)) for split in SPLITS]
    for reader in readers:
        output, _ = reader.communicate(timeout=300)
        assert reader.returncode == 0
        assert [int(line) for line in output.split()] == 4 * expected
    at_once = len(readers) * (SHARD_BYTES + 128)  # each may have downloaded one at the same time
    assert held(shard_cache) <= 2**20 + at_once


def test_who_looks_for_free_bytes_does_not_use_them(remote: Path, local: Path, shard_cache: Path) -> None:
    assert_same(remote, local)
    stored = StoredShards(f"s3://{BUCKET}/shards")
    with ThreadPoolExecutor(4) as threads:
        found = {*threads.map(lambda _: stored.free_bytes(), range(200))}
    assert found == {stored.cache_bytes}


def test_processes_that_map_a_split_fetch_it_once(remote: Path, s3_proxy: Proxy) -> None:
    command = [sys.executable, "-c", MAPPER, str(remote)]
    mappers = [subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(4)]
    for mapper in mappers:
        assert mapper.stdout and mapper.stdout.read(1) == b"."
    deleted = [mapper for mapper in mappers if "(deleted)" in Path(f"/proc/{mapper.pid}/maps").read_text()]
    for mapper in mappers:
        mapper.communicate(b"end", timeout=60)
    assert not deleted
    assert len(s3_proxy.asked) == len({entry.sha256 for entry in entries(remote) if "train" in entry.path})


def test_abandoned_downloads_are_removed(remote: Path, shard_cache: Path) -> None:
    shard_cache.mkdir(parents=True)
    left, fresh = shard_cache / f"{'a' * 64}.b2", shard_cache / f"{'c' * 64}.d4.77.partial"
    for path in (left, fresh):
        path.write_bytes(b"half")
    long_ago = time.time() - ABANDONED_SECONDS - 60
    os.utime(left, (long_ago, long_ago))
    next(open_dataset(remote).shards("val"))
    assert not left.exists()
    assert fresh.exists()  # another process may still be writing


def test_files_of_others_in_the_cache_are_left_alone(
    remote: Path, shard_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "0")
    shard_cache.mkdir(parents=True)
    names = {"notes.txt", "notes", "a" * 63, f"{'a' * 64}.partial/x"}
    for path in [shard_cache / name for name in names]:
        path.parent.mkdir(exist_ok=True)
        path.touch()
        os.utime(path, (1000, 1000))
    for _ in open_dataset(remote).shards("val"):
        pass
    assert names <= {str(path.relative_to(shard_cache)) for path in shard_cache.rglob("*")}


def overwrite(server: S3Server, entry: ShardFile, content: bytes) -> None:
    server.client.put_object(BUCKET, f"shards/{entry.sha256}.npy", BytesIO(content), len(content))


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_corrupt_shard_in_the_store_is_reported_and_not_cached(
    remote: Path, local: Path, shard_cache: Path, server: S3Server, damage: str
) -> None:
    entry = entries(remote)[0]
    content = (local / entry.path).read_bytes()
    remedy = "" if damage == "gone" else "delete it, and "
    if damage == "gone":
        server.client.remove_object(BUCKET, f"shards/{entry.sha256}.npy")
    else:
        overwrite(server, entry, content[:-1] + (bytes([content[-1] ^ 1]) if damage == "flipped" else b""))
    try:
        with pytest.raises(
            CorruptDataError,
            match=rf"{entry.sha256}\.npy cannot be used .*; {remedy}prepare the dataset again, .* another handover_mib",
        ):
            open_dataset(remote).load("train")
        assert list(shard_cache.iterdir()) == []
    finally:
        overwrite(server, entry, content)


def first_shard(folder: Path) -> Shard:
    return open_dataset(folder).document.splits["val"].shards[0]


def replace_labels(folder: Path, labels: ShardFile) -> None:
    """Write other labels of the first shard into the document."""
    document = open_dataset(folder).document
    document.splits["val"].shards[0] = first_shard(folder).model_copy(update={"labels": labels})
    write_document(folder, document)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_document_with_a_wrong_size_is_refused(remote: Path, change: int) -> None:
    labels = first_shard(remote).labels
    replace_labels(remote, labels.model_copy(update={"bytes": labels.bytes + change}))
    with pytest.raises(CorruptDataError, match=r"it has 928 bytes, not"):
        open_dataset(remote).load("val")


def test_an_object_of_another_type_is_refused(remote: Path, server: S3Server) -> None:
    hostile = BytesIO()
    np.save(hostile, np.array([{"a": 1}], object), allow_pickle=True)
    content = hostile.getvalue()
    sha256 = hashlib.sha256(content).hexdigest()
    labels = ShardFile(path="val-00000.labels.npy", sha256=sha256, bytes=len(content))
    overwrite(server, labels, content)
    replace_labels(remote, labels)
    with pytest.raises(CorruptDataError, match="not a NumPy array of shape"):
        open_dataset(remote).load("val")


def test_an_invalid_cache_size_is_reported(remote: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "4 GiB")
    with pytest.raises(UserError, match=f"{CACHE_VARIABLE}=4 GiB is not a size; give a whole number of MiB"):
        open_dataset(remote).load("val")
