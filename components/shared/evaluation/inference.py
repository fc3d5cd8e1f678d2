"""Programs from pixels to probabilities, whatever made them: ONNX Runtime's, and the use of any on a whole split."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.core.resources import inference_batch_size
from components.shared.data.dataset import Images, Labels

BATCH = 256  # at most

Classify = Callable[[Images], NDArray[np.float32]]  # uint8, N x C x H x W -> probabilities, N x classes


def load_onnx(path: Path, threads: int) -> Classify:
    """The program in a file, in ONNX Runtime; it and its calls raise UserError where it is no such program."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it would tell Microsoft of its use, from its import on
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with _explained(path):
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def classify(images: Images) -> NDArray[np.float32]:
        with _explained(path):
            probabilities: NDArray[np.float32] = session.run(["probabilities"], {"images": images})[0]
        return probabilities

    return classify


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    errors = (state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NoSuchFile)
    try:
        yield
    except (*errors, state.NotImplemented, state.RuntimeException) as error:
        raise UserError(f"{path} is no program from images to probabilities ({str(error)[:200]})") from None


def predict(classify: Classify, shards: Sequence[tuple[Images, Labels]], progress: log.Progress) -> NDArray[np.float32]:
    """The probabilities (float32, N x classes) of all images of `shards`, in batches of up to 256."""
    parts = []
    for images, _ in shards:
        size = inference_batch_size(BATCH, images.shape[1:])
        for start in range(0, len(images), size):
            batch = np.array(images[start : start + size])  # a copy: torch wants memory that may be written to
            parts.append(classify(batch))
            progress.advance(len(batch))
    return np.concatenate(parts)
