"""The index of prepared data, against a real S3 server: what is there stays young, and what is gone is noticed."""

from io import BytesIO
from typing import Any

import pytest

from components.resolve import resolve
from components.shared.data.prepared_index import FOLDER, PreparedData
from components.shared.storage.client import Store
from runner.registry.retention import Retention
from tests.servers.s3_server import BUCKET, S3Server

RECIPE = "a" * 64
DATASET = f"datasets/{RECIPE}/dataset.json"

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("s3_variables")]


@pytest.fixture
def prepared(uri: str, store: Store, s3_variables: None) -> PreparedData:
    """The dataset of a version, which the run `first` has put into the store."""
    store.put_bytes(b"{}", DATASET)
    found = PreparedData(uri, "pets", "v1", {"image_size": 32}, "c0de")
    found.record(RECIPE, True, "first")
    return found


def test_what_is_there_becomes_young(prepared: PreparedData, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    put = Store.put_bytes

    def put_and_note(self: Store, content: bytes, name: str, **options: Any) -> str:
        written.append(name)
        return put(self, content, name, **options)

    monkeypatch.setattr(Store, "put_bytes", put_and_note)
    assert prepared.renew() == "first"
    assert written == [DATASET] and store.get_bytes(DATASET)[0] == b"{}"


def test_what_is_handed_on_whole_need_not_be_there(prepared: PreparedData, store: Store) -> None:
    prepared.record(RECIPE, False, "first")
    store.remove(DATASET)
    assert prepared.renew() == "first"
    assert not list(Retention(store, 0).unneeded(None)), "or the next run would prepare it again"


def test_what_was_removed_is_noticed_and_not_brought_back(prepared: PreparedData, store: Store) -> None:
    store.remove(DATASET)
    assert prepared.renew() == ""
    assert not store.exists(DATASET)


def test_what_is_removed_meanwhile_is_not_brought_back(
    prepared: PreparedData, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = Store.get_bytes

    def get_then_remove(self: Store, name: str, *limit: int) -> tuple[bytes, str]:
        found = get(self, name, *limit)
        if name == DATASET:
            store.remove(DATASET)
        return found

    monkeypatch.setattr(Store, "get_bytes", get_then_remove)
    assert prepared.renew() == ""
    assert not store.exists(DATASET)


@pytest.mark.parametrize(
    ("source", "version", "image_size", "code"),
    [("dogs", "v1", 32, "c0de"), ("pets", "v2", 32, "c0de"), ("pets", "v1", 64, "c0de"), ("pets", "v1", 32, "c1de")],
)
@pytest.mark.usefixtures("prepared")
def test_other_data_settings_or_code_have_an_entry_of_their_own(
    uri: str, source: str, version: str, image_size: int, code: str
) -> None:
    assert PreparedData(uri, "pets", "v1", {"image_size": 32}, "c0de").renew() == "first"
    assert PreparedData(uri, source, version, {"image_size": image_size}, code).renew() == ""


@pytest.mark.parametrize("digest", [{}, {"sha256": "0" * 64}], ids=["written", "rotten"])
@pytest.mark.parametrize("is_dataset", [False, True], ids=["entry", "dataset"])
def test_a_damaged_entry_is_as_good_as_none(
    prepared: PreparedData, store: Store, server: S3Server, digest: dict[str, str], is_dataset: bool
) -> None:
    (entry,) = store.list(FOLDER)
    key = store.uri(DATASET if is_dataset else entry.name).removeprefix(f"s3://{BUCKET}/")
    server.client.put_object(BUCKET, key, BytesIO(b"{"), 1, metadata={**digest})
    is_noticed = bool(digest) or not is_dataset  # what a dataset's document says, step preprocess checks
    assert prepared.renew() == ("" if is_noticed else "first")


def test_a_damaged_entry_is_said(prepared: PreparedData, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    (entry,) = store.list(FOLDER)
    store.put_bytes(b"{", entry.name)
    assert prepared.renew() == ""
    assert store.uri(entry.name) in capsys.readouterr().out


def test_the_present_run_prepares_what_is_not_in_the_store(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUN_ID", "second")
    assert resolve(graph="training", data="digits", store=uri, options={}).prepared_by == "second"
    assert resolve(graph="training", data="digits", store="", options={}).prepared_by == ""


@pytest.mark.usefixtures("prepared")
def test_pruning_removes_entries_that_lead_nowhere(store: Store) -> None:
    assert not [found for found in Retention(store, 0).unneeded(None) if "index" in found.description]
    store.remove(DATASET)
    assert not list(Retention(store, 1).unneeded(None)), "a young one may be followed by its dataset"
    (found,) = Retention(store, 0).unneeded(None)
    found.remove()
    assert not list(store.list(FOLDER))


@pytest.mark.parametrize("folder", ["units", "sources"])
def test_pruning_removes_what_many_pods_left(folder: str, store: Store) -> None:
    for name in ("1.tar", "source.json"):
        store.put_bytes(name.encode(), f"{folder}/{RECIPE}/{name}")
    assert not list(Retention(store, 1).unneeded(None))
    (found,) = Retention(store, 0).unneeded(None)
    assert (
        f"2 {'files of the units' if folder == 'units' else 'files of the archive'} {RECIPE[:12]}" in found.description
    )
    found.remove()
    assert not list(store.list(folder))
