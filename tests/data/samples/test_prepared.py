"""However the same pictures come, they become the same prepared data, and inputs to predict."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.preprocess import preprocess
from components.shared.core.errors import UserError
from components.shared.data.dataset import Dataset, open_dataset
from components.shared.data.raw import Raw
from components.shared.parameters.preparation import PreprocessRecipe
from components.shared.prediction.inputs import Inputs
from tests.data.samples.reading import fetched
from tests.sample_files import packed, picture, tar_bytes
from tests.small_packages import package_of

PICTURES = {f"{('train', 'test')[n // 60]}/c{n % 2}/{n:03}.png": picture(n) for n in range(120)}
PICTURES = {name: PICTURES[name] for name in sorted(PICTURES)}


@pytest.fixture(autouse=True)
def _cache(cache: Path) -> None:
    """No test changes the user's cache."""


def prepared(raw: Raw, max_bad_images: int = 0) -> Dataset:
    folder = raw.folder.with_name(f"{raw.folder.name}-data")
    text = PreprocessRecipe(max_bad_images=max_bad_images).text()
    preprocess(raw=str(raw.folder), recipe=text, prepared_by="", dataset=str(folder))
    return open_dataset(folder)


def sources(folder: Path) -> dict[str, Path]:
    """Write the same pictures as a folder, as shards, as Parquet, and with a manifest."""
    found = {"folder": packed(folder, PICTURES, "folder")}
    for split in ("train", "test"):
        of_split = {name: content for name, content in PICTURES.items() if name.startswith(split)}
        shard: dict[str, bytes] = {}
        rows = []
        for name, content in of_split.items():
            key, label = name.replace("/", "-").removesuffix(".png"), int(name.split("/")[1][1:])
            shard |= {f"{key}.cls": f"c{label}".encode(), f"{key}.png": content}
            rows.append({"image": {"bytes": content, "path": name}, "label": f"c{label}"})
        for kind, suffix in (("shards", "tar"), ("parquet", "parquet")):
            found[kind] = folder / kind
            (folder / kind).mkdir(exist_ok=True)
            path = folder / kind / f"{split}-000.{suffix}"
            if kind == "shards":
                path.write_bytes(tar_bytes(shard, "w"))
            else:
                pq.write_table(pa.Table.from_pylist(rows), path)
    lines = [f"{name},{name.split('/')[1]},{name.split('/')[0]}" for name in PICTURES]
    found["manifest"] = found["folder"] / "pictures.csv"
    return found if found["manifest"].write_text("path,label,split\n" + "\n".join(lines)) else {}


@pytest.mark.slow
def test_the_same_pictures_become_the_same_data(tmp_path: Path) -> None:
    data = {kind: prepared(fetched(path, tmp_path / f"raw-{kind}")) for kind, path in sources(tmp_path).items()}
    assert {found.digest for found in data.values()} == {data["folder"].digest}
    assert {tuple(found.classes) for found in data.values()} == {("c0", "c1")}
    package = package_of(classes=["c0", "c1"], image_shape=(1, 16, 16))
    for kind in ("shards", "parquet", "manifest"):
        inputs = Inputs(tmp_path / f"raw-{kind}", package)
        batches = list(inputs.batches())
        assert inputs.count == sum(len(batch.names) for batch in batches) == len(PICTURES)
        assert {label for batch in batches for label in batch.labels} == {"c0", "c1"}


def test_an_empty_member_of_a_tar_is_a_bad_picture(tmp_path: Path) -> None:
    shard = {"999.cls": b"1", "999.png": b""}
    for number in range(60):
        shard |= {f"{number:03}.cls": b"%d" % (number % 2), f"{number:03}.png": picture(number)}
    (tmp_path / "set.tar").write_bytes(tar_bytes(shard, "w"))
    raw = fetched(tmp_path / "set.tar", tmp_path / "raw")
    with pytest.raises(UserError, match=r"picture 999\.png cannot be used: the file is empty"):
        prepared(raw)
    bad = prepared(raw, max_bad_images=1).document.bad_images
    assert bad is not None and [(image.name, image.reason) for image in bad] == [("999.png", "the file is empty")]
