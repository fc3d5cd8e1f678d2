"""The readers of samples, WebDataset and Parquet, each with small valid inputs."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.download import download
from components.shared.data.raw import open_raw
from components.shared.data.sources.schemes import open_source
from components.shared.parameters.preparation import ReadingRecipe
from tests.fuzz.mutations import sealed_tar
from tests.fuzz.target import Target
from tests.sample_files import picture, tar_bytes

LABELS = [0, 1, 0, 1]
FEATURES = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}


def parquet(folder: Path) -> Target:
    """A Parquet file with pictures, in Hugging Face's layout."""
    return Target(
        [_parquet("none"), _parquet("snappy", FEATURES)], lambda content: _read(folder / "a.parquet", content)
    )


def webdataset(folder: Path) -> Target:
    """A shard of WebDataset; the checksums of its headers are made valid."""
    classes = {f"{number}.cls": str(label).encode() for number, label in enumerate(LABELS)}
    pictures = {f"{number}.png": picture(number) for number in range(len(LABELS))}
    fields = {f"{number}.json": json.dumps({"label": label}).encode() for number, label in enumerate(LABELS)}
    seeds = [tar_bytes(dict(sorted({**pictures, **other}.items())), "w") for other in (classes, fields)]
    return Target(seeds, lambda content: _read(folder / "a.tar", sealed_tar(content)))


def _read(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    raw = path.parent / "raw"
    with redirect_stdout(io.StringIO()):
        version, recipe = open_source(str(path)).version(), ReadingRecipe().text()
        download(data=str(path), version=version, recipe=recipe, needs_labels=True, raw=str(raw))
        found = open_raw(raw)
        assert sum(len(chunk.labels) for chunk in found.chunks(3)) == sum(found.counts.values())


def _parquet(compression: str, features: object = None) -> bytes:
    images = [{"bytes": picture(number), "path": f"{number}.png"} for number in range(len(LABELS))]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(images, kind), "label": pa.array(LABELS, pa.int64())})
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=2, compression=compression)
    return file.getvalue()
