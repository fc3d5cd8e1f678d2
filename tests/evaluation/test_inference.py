"""Predictions in batches: pytest tests/evaluation/test_inference.py"""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from components.shared.core import log
from components.shared.core.resources import inference_batch_size
from components.shared.data.dataset import open_dataset
from components.shared.evaluation.inference import predict
from tests.dataset_writer import DatasetWriter


@pytest.mark.slow
@pytest.mark.parametrize(("size", "images"), [(32, 256), (224, 20), (4096, 1)])
def test_inference_batches_are_smaller_for_large_images(tmp_path: Path, size: int, images: int) -> None:
    assert inference_batch_size(256, (3, size, size)) == images
    seen: list[int] = []

    def classify(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        seen.append(len(batch))
        return np.zeros((len(batch), 2), np.float32)

    counts = {"train": 0, "val": 0, "test": images + 1}
    writer = DatasetWriter(tmp_path, classes=["a"], image_shape=(3, size, size), counts=counts, shard_bytes=9 * size**2)
    writer.append("test", np.zeros((images + 1, 3, size, size), np.uint8), np.zeros(images + 1, np.int64))
    writer.finish(name="blank", seconds={})
    predict(classify, open_dataset(tmp_path), log.Progress("test", images + 1, "images"))
    assert seen == [images, 1]
