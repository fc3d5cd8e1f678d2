"""The table of names and schemes: what `data` may be, and that a new scheme is one module and one line."""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from components.download import download
from components.shared.core.errors import UserError
from components.shared.data.raw import open_raw
from components.shared.data.sources import schemes
from components.shared.data.sources.digits import Digits, read_digits
from components.shared.data.sources.http import UrlSource
from components.shared.data.sources.local import LocalSource
from components.shared.data.sources.mirrors import CatalogueSource
from components.shared.data.sources.s3 import S3Archive, S3Prefix
from components.shared.data.sources.schemes import DATA_SETS, SOURCES, Source, open_source
from components.shared.parameters.table import Parameters
from tests.data.sources import toy_source
from tests.data.versions import READING, version_of


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new scheme: its module in the folder of sources, and its line in the table."""
    monkeypatch.setitem(sys.modules, f"{schemes.__package__}.toy", toy_source)
    monkeypatch.setitem(SOURCES, "toy://", "toy")


@pytest.mark.usefixtures("toy")
def test_a_new_scheme_is_one_module_and_one_line(tmp_path: Path) -> None:
    version = version_of("toy://6")
    download(data="toy://6", version=version, recipe=READING, needs_labels=True, raw=str(tmp_path / "raw"))
    raw = open_raw(tmp_path / "raw")
    assert (raw.source, raw.document.version, raw.counts, raw.classes) == (
        "toy://6",
        "toy 6",
        {"train": 6},
        ["even", "odd"],
    )


@pytest.mark.usefixtures("toy")
def test_a_new_scheme_is_pinned(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="data=toy://6 was toy 5 when the run began and is toy 6 now; run it again"):
        download(data="toy://6", version="toy 5", recipe=READING, needs_labels=True, raw=str(tmp_path / "raw"))


@pytest.mark.usefixtures("toy")
def test_the_error_lists_a_new_scheme() -> None:
    with pytest.raises(UserError, match=r"give mnist, .*, digits, a https://, s3://, file:// or toy:// URI, or a path"):
        open_source("gs://bucket/pets")


@pytest.mark.parametrize("data", ["gs://bucket/pets", "mnits", "", "https", "HTTPS://example.org/a.zip"])
def test_other_names_and_schemes_are_refused(data: str) -> None:
    for refuse in (open_source, lambda data: Parameters.of(data=data)):
        with pytest.raises(UserError, match=f"data={data} is not accepted; give mnist, .* a https://, .* or a path"):
            refuse(data)


@pytest.mark.parametrize("module", sorted(set(SOURCES.values())))
def test_each_module_opens_sources(module: str) -> None:
    assert callable(import_module(f"{schemes.__package__}.{module}").open_source)


def test_sources_follow_the_protocol(tmp_path: Path) -> None:
    address = "https://example.org/a.zip"
    sources: list[Source] = [Digits(), CatalogueSource("mnist"), UrlSource(address), LocalSource(tmp_path)]
    sources += [S3Archive("s3://bucket/a.zip"), S3Prefix("s3://bucket/a")]
    assert all(callable(source.version) and callable(source.fetch) for source in sources)


@pytest.mark.slow
def test_the_digits_are_those_that_scikit_learn_loads() -> None:
    from sklearn.datasets import load_digits  # which takes a second

    expected, found = load_digits(), read_digits()
    assert np.array_equal(found[0], expected.images) and np.array_equal(found[1], expected.target)


def test_names_need_no_network() -> None:
    assert DATA_SETS == ("mnist", "fashion-mnist", "kmnist", "cifar10", "digits")
    assert len({open_source(name).version() for name in DATA_SETS}) == len(DATA_SETS)
