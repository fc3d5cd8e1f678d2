"""Inference: load an ONNX model, and run any classifier of pixels over the test split."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.core.resources import inference_batch_size
from components.shared.data.dataset import Dataset, Images

BATCH = 256  # images, at most

Classify = Callable[[Images], NDArray[np.float32]]  # uint8, N x C x H x W -> probabilities, N x classes


def load_onnx(path: Path, threads: int) -> Classify:
    """Load an ONNX model. It, and each call of the result, raises UserError if it cannot classify the images."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # otherwise it reports its use to Microsoft, from its import on
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave their CPUs to others
    with _onnx_errors(path):
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def classify(images: Images) -> NDArray[np.float32]:
        with _onnx_errors(path):
            probabilities: NDArray[np.float32] = session.run(["probabilities"], {"images": images})[0]
        return probabilities

    return classify


@contextmanager
def _onnx_errors(path: Path) -> Iterator[None]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    errors = (state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NoSuchFile)
    try:
        yield
    except (*errors, state.NotImplemented, state.RuntimeException) as error:
        raise UserError(
            f"{path} is not a model from images to probabilities ({str(error)[:200]})", "export the model again"
        ) from None


def batch_size(image_shape: Sequence[int]) -> int:
    """Return how many images of a shape (C, H, W) are predicted at once.

    It depends on nothing else, since another number would change the last digits of the probabilities.
    """
    return inference_batch_size(BATCH, image_shape)


def predict(classify: Classify, data: Dataset, progress: log.Progress) -> NDArray[np.float32]:
    """Return the probabilities (float32, N x classes) of the test split, predicted in batches."""
    parts = []
    for images, _ in data.batches("test", batch_size(data.image_shape)):
        parts.append(classify(np.array(images)))  # a copy, because torch warns of read-only memory
        progress.advance(len(images))
    return np.concatenate(parts)
