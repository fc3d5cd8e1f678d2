"""The model as both protocols see it: what serves, whether it is ready, what it predicts, and what is said of it."""

import json
from typing import Any

from components.shared.data.dataset import Images
from components.shared.evaluation.metrics import Probabilities
from components.shared.model_server.batching import Batcher
from components.shared.model_server.champion import Current
from components.shared.model_server.metrics import Metrics
from components.shared.model_server.options import Options
from components.shared.model_server.program import Served
from components.shared.model_server.tensors import check_asked, described
from components.shared.registry import triton

SERVER = "torch2kubeflow"
EXTENSIONS = ("binary_tensor_data", "model_configuration")
PLATFORM = "onnxruntime_onnx"


class Model:
    """What serves."""

    def __init__(self, current: Current, options: Options, metrics: Metrics) -> None:
        self._current, self.options, self.metrics = current, options, metrics
        self.is_stopping = False
        self._batcher = Batcher(options.max_batch, options.max_delay, metrics)
        metrics.serves(current.served)

    def program(self, name: str, version: str) -> Served:
        """Return the program that serves now. Raises Refused if another model or version is asked for."""
        check_asked(self._current.served, name, version)
        return self._current.served

    async def predict(self, program: Served, images: Images) -> Probabilities:
        """Return what the program predicts. Raises UserError if it fails."""
        return await self._batcher.predict(program, images)

    async def follow(self) -> None:
        """Replace the program when there is a new champion, for ever."""
        await self._current.follow(self.metrics, self.options.poll)

    def close(self) -> None:
        """End what it has started."""
        self._batcher.close()


def metadata(program: Served) -> dict[str, Any]:
    """Return the metadata of a program."""
    return {
        "name": program.name,
        "versions": [program.version],
        "platform": PLATFORM,
        "inputs": [described(program.package.input)],
        "outputs": [described(program.package.output)],
    }


def configuration(program: Served) -> dict[str, Any]:
    """Return the configuration of a program as Triton tells it, with the package's digest and the classes."""
    package = program.package
    return {
        "name": program.name,
        "platform": PLATFORM,
        "max_batch_size": triton.MAX_BATCH,
        "input": [{"name": package.input.name, "data_type": "TYPE_UINT8", "dims": package.input.sizes}],
        "output": [{"name": package.output.name, "data_type": "TYPE_FP32", "dims": package.output.sizes}],
        "parameters": {
            triton.DIGEST: {"string_value": package.digest},
            "classes": {"string_value": json.dumps(package.classes)},
        },
    }
