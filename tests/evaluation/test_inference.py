"""Predictions in batches: pytest tests/evaluation/test_inference.py"""

import numpy as np
import pytest
from numpy.typing import NDArray

from components.shared.core import log
from components.shared.core.resources import inference_batch_size
from components.shared.evaluation.inference import predict


@pytest.mark.parametrize(("size", "images"), [(32, 256), (224, 20), (4096, 1)])
def test_inference_batches_are_smaller_for_large_images(size: int, images: int) -> None:
    assert inference_batch_size(256, (3, size, size)) == images
    pictures = np.broadcast_to(np.zeros(1, np.uint8), (images + 1, 3, size, size))
    seen: list[int] = []

    def classify(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        seen.append(len(batch))
        return np.zeros((len(batch), 2), np.float32)

    predict(classify, [(pictures, np.zeros(images + 1, np.int64))], log.Progress("test", images + 1, "images"))
    assert seen == [images, 1]
