"""gRPC: the same as by REST, in the messages of the protocol."""

from time import perf_counter
from typing import Any, TypeAlias

import grpc
import numpy as np
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.data.dataset import Images
from components.shared.model_server.model import EXTENSIONS, SERVER, Model, configuration, metadata
from components.shared.model_server.program import Served
from components.shared.model_server.tensors import (
    Refused,
    check_input,
    check_outputs,
    images_of_bytes,
    images_of_numbers,
)
from components.shared.registry.triton import DATATYPES

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    500: grpc.StatusCode.INTERNAL,
}
Context: TypeAlias = Any  # grpc.aio.ServicerContext, which has no types


class Rpc(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # its stubs are generated, without types
    """The handlers of a model. What is not here, such as Triton's shared memory, is answered with UNIMPLEMENTED."""

    def __init__(self, model: Model) -> None:
        self._model = model

    async def ServerLive(self, _request: Any, _context: Context) -> Any:
        """Return that the server lives."""
        return service_pb2.ServerLiveResponse(live=True)

    async def ServerReady(self, _request: Any, _context: Context) -> Any:
        """Return whether the server takes requests."""
        return service_pb2.ServerReadyResponse(ready=not self._model.is_stopping)

    async def ServerMetadata(self, _request: Any, _context: Context) -> Any:
        """Return what the server is."""
        return service_pb2.ServerMetadataResponse(name=SERVER, version="2", extensions=EXTENSIONS)

    async def ModelReady(self, request: Any, context: Context) -> Any:
        """Return whether the model takes requests."""
        await self._program(request.name, request.version, context)
        return service_pb2.ModelReadyResponse(ready=not self._model.is_stopping)

    async def ModelMetadata(self, request: Any, context: Context) -> Any:
        """Return inputs and outputs of the model."""
        return service_pb2.ModelMetadataResponse(
            **metadata(await self._program(request.name, request.version, context))
        )

    async def ModelConfig(self, request: Any, context: Context) -> Any:
        """Return the configuration of the model, with the digest of its package."""
        fields = configuration(await self._program(request.name, request.version, context))
        return service_pb2.ModelConfigResponse(config=model_config_pb2.ModelConfig(**fields))

    async def ModelInfer(self, request: Any, context: Context) -> Any:
        """Answer an inference request, and count it."""
        started, code = perf_counter(), 500
        try:
            response = await self._predicted(request)
            code = 200
        except Refused as error:
            code = error.status
            await context.abort(CODES[code], str(error))
        except UserError as error:
            log.info(f"a prediction failed: {error}")
            await context.abort(CODES[500], error.message)
        finally:
            self._model.metrics.requests.labels("grpc", str(code)).inc()
            self._model.metrics.seconds.labels("grpc").observe(perf_counter() - started)
        return response

    async def _program(self, name: str, version: str, context: Context) -> Served:
        try:
            return self._model.program(name, version)
        except Refused as error:
            await context.abort(CODES[error.status], str(error))
            raise  # never: the line above has raised

    async def _predicted(self, request: Any) -> Any:
        program = self._model.program(request.model_name, request.model_version)
        check_outputs(program, [output.name for output in request.outputs])
        images = _images(program, request)
        probabilities = await self._model.predict(program, images)
        output = program.package.output
        tensor = service_pb2.ModelInferResponse.InferOutputTensor(
            name=output.name, datatype=DATATYPES[output.dtype], shape=probabilities.shape
        )
        return service_pb2.ModelInferResponse(
            model_name=program.name,
            model_version=program.version,
            id=request.id,
            outputs=[tensor],
            raw_output_contents=[np.ascontiguousarray(probabilities).tobytes()],
        )


def _images(program: Served, request: Any) -> Images:
    """Return the images of a request, in bytes or as numbers. Raises Refused if the model does not take them."""
    if len(request.inputs) != 1:
        raise Refused(f"one input is expected, {program.package.input.name}, not {len(request.inputs)}")
    (tensor,) = request.inputs
    shape = check_input(program, tensor.name, tensor.datatype, list(tensor.shape))
    if unknown := {*tensor.parameters} - {"binary_data_size"}:  # which KServe's client sends, as by REST
        raise Refused(f"the input has a parameter that is not known: {min(unknown)[:60]}")
    if len(request.raw_input_contents) > 1:
        raise Refused(f"the bytes of {len(request.raw_input_contents)} inputs were sent, and there is one")
    if request.raw_input_contents:
        if tensor.HasField("contents"):
            raise Refused("the input has both contents and raw_input_contents")
        return images_of_bytes(request.raw_input_contents[0], shape)
    return images_of_numbers(list(tensor.contents.uint_contents), shape)
