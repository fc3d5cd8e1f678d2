"""The table of names and schemes: what `data` may be, and that a new scheme is one module and one line."""

from importlib import import_module
from pathlib import Path

import pytest

from components.download import download
from components.resolve import resolve
from components.shared.core.errors import UserError
from components.shared.data.raw import open_raw
from components.shared.data.sources.schemes import DATA_SETS, SOURCES, open_source
from components.shared.parameters import check

TOY = "tests.data.sources.toy_source"


def test_a_new_scheme_is_one_module_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "toy://", TOY)
    version = resolve(store="", data="toy://6")
    download(data="toy://6", version=version, raw=str(tmp_path / "raw"))
    raw = open_raw(tmp_path / "raw")
    assert (raw.source, raw.document["version"], raw.counts, raw.classes) == (
        "toy://6",
        "toy 6",
        {"train": 6},
        ["even", "odd"],
    )
    with pytest.raises(UserError, match="data=toy://6 was toy 6 when the run began and is toy 7 now; run it again"):
        monkeypatch.setattr(f"{TOY}.ToySource.version", lambda _: "toy 7")
        download(data="toy://6", version=version, raw=str(tmp_path / "raw"))


def test_the_error_lists_a_new_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "toy://", TOY)
    with pytest.raises(UserError, match=r"give mnist, .*, digits, a https://, s3://, file:// or toy:// URI, or a path"):
        open_source("gs://bucket/pets")


@pytest.mark.parametrize("data", ["gs://bucket/pets", "mnits", "", "https", "HTTPS://example.org/a.zip"])
def test_other_names_and_schemes_are_refused(data: str) -> None:
    for refuse in (open_source, lambda data: check(data=data)):
        with pytest.raises(UserError, match=f"data={data} is not accepted; give mnist, .* a https://, .* or a path"):
            refuse(data)


@pytest.mark.parametrize("module", sorted(set(SOURCES.values())))
def test_each_module_opens_sources(module: str) -> None:
    assert callable(import_module(module).open_source)


def test_names_need_no_network() -> None:
    assert DATA_SETS == ("mnist", "fashion-mnist", "kmnist", "cifar10", "digits")
    assert len({open_source(name).version() for name in DATA_SETS}) == len(DATA_SETS)
