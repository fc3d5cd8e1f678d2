"""Trace a network for any batch size, and translate it to ONNX."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import onnx
import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.models import factory
from components.shared.models.document import Architecture

OLDEST_OPSET = 18  # into which torch.onnx translates itself; it converts what it has translated to newer ones
BATCH = ({0: Dim("batch")},)  # the sizes of the input that vary


def trace(classifier: nn.Module, image_shape: Sequence[int], name: str) -> ExportedProgram:
    """Return a classifier of images (uint8, N x C x H x W) as a program. Raises UserError if it cannot be traced."""
    example = torch.zeros(2, *image_shape, dtype=torch.uint8)
    with _garbage_collection_paused():
        try:
            program = torch.export.export(classifier, (example,), dynamic_shapes=BATCH)
        except (RuntimeError, ValueError) as error:
            raise _refusal(f"torch.export cannot trace {name} for batches of any size", error) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it contains paths of this machine
    return program


def translate(program: ExportedProgram, name: str, opset: int) -> onnx.ModelProto:
    """Return a program of `trace` in ONNX, in the oldest format that has the operator set `opset`.

    Raises UserError if it cannot be expressed there.
    """
    with _garbage_collection_paused():
        try:
            translated = torch.onnx.export(
                program,
                dynamic_shapes=BATCH,
                input_names=["images"],
                output_names=["probabilities"],
                opset_version=opset,
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise _refusal(f"{name} cannot be translated to ONNX", error) from error
    assert translated is not None
    graph: onnx.ModelProto = translated.model_proto
    found = next(entry.version for entry in graph.opset_import if not entry.domain)
    if found != opset:  # torch.onnx only logs that it could not convert
        message = f"{name} cannot be translated to onnx_opset={opset}, only to {found}"
        raise UserError(message, f"give onnx_opset={found}, or another network")
    graph.ir_version = onnx.helper.find_min_ir_version_for(graph.opset_import)
    return graph


def check_translation(architecture: Architecture) -> None:
    """Raise UserError if a network cannot be translated to ONNX, before it is trained.

    It takes seconds, once for the trials of a pod, and leaves the generator of random numbers as it is.
    """
    _check_translation(architecture.model_dump_json())


@cache
def _check_translation(document: str) -> None:
    architecture = Architecture.model_validate_json(document)
    log.info(f"checking that {architecture.name} can be translated to ONNX")
    with torch.random.fork_rng(devices=[]):
        network = factory.build(architecture).eval()
    translate(trace(_OfPixels(network), architecture.image_shape, architecture.name), architecture.name, OLDEST_OPSET)


class _OfPixels(nn.Module):
    """A network that takes images (uint8)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(images.float())
        return logits.softmax(dim=1)


def _refusal(message: str, error: BaseException) -> UserError:
    while error.__cause__:  # the first has advice for the authors of the exporter
        error = error.__cause__
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    return UserError(f"{message} ({reason[:200]})", "give another network")


@contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    """Import torch.export and the ONNX exporter a fifth faster: the collector would traverse their many objects."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
