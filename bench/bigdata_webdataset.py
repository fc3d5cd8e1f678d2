"""Prepare pictures as a WebDataset pipeline does, for bench/bigdata.py: in the environment .venv-webdataset.

.venv-webdataset/bin/python bench/bigdata_webdataset.py FILE.tar FOLDER SIZE COUNT

Each picture is decoded and resized with the operation of components/shared/data/decode.py, encoded as `.npy`, and
written with its class to tar shards. Prints the CPU seconds until the first picture.
"""

import io
import itertools
import json
import sys
import time
from typing import Any

import numpy as np
import webdataset as wds
from PIL import Image

SHARD_BYTES = 128 * 2**20


def main() -> None:
    """Write the shards."""
    source, folder, size, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    startup = time.process_time()
    samples = itertools.islice(wds.WebDataset(source, shardshuffle=False), count)
    with wds.ShardWriter(f"{folder}/%06d.tar", maxsize=SHARD_BYTES, maxcount=10**9, verbose=0) as sink:
        for sample in samples:
            sink.write(_prepared(sample, size))
    print(json.dumps({"startup": startup}))


def _prepared(sample: dict[str, Any], size: int) -> dict[str, Any]:
    with Image.open(io.BytesIO(sample["jpg"])) as image:
        image.draft(None, (2 * size, 2 * size))
        pixels = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=2.0))
    return {"__key__": sample["__key__"], "npy": pixels, "cls": sample["__key__"].partition("/")[0]}


if __name__ == "__main__":
    main()
