"""What a training starts from: a network with random or pretrained weights, compiled if asked."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import torch
from torch import Tensor, nn

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.core.files import sha256_file
from components.shared.data.dataset import Dataset
from components.shared.models import catalogue, factory
from components.shared.models.document import Architecture
from components.shared.models.pretrained import freeze_stages, load_pretrained
from components.shared.parameters.training import Settings
from components.shared.storage.client import Store, open_store
from components.shared.training.distributed.process_group import ProcessGroup

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
WEIGHTS, DOCUMENT = "model.safetensors", "model.json"
COMPILERS = {
    "cpu": ("CXX", "g++"),
    "cuda": ("CC", "gcc"),
}  # that torch.compile calls: the variable that names it, and its default


def architecture(settings: Settings, data: Dataset) -> Architecture:
    """Return the description from which `factory.build` builds the network, as the model's document holds it."""
    arguments: dict[str, Any] = {name: getattr(settings, name) for name in ("activation", "pooling", "bias")}
    return Architecture(
        name=settings.network, num_classes=len(data.classes), image_shape=list(data.image_shape), **arguments
    )


def check_exportable(settings: Settings, data: Dataset) -> None:
    """Raise UserError if step export could not translate the network; those of the catalogue are known to be well."""
    if settings.network.startswith(catalogue.TIMM):
        from components.shared.models.translation import check_translation

        check_translation(architecture(settings, data))


def compiled(network: nn.Module, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return the compiled network. Raises UserError if the C++ or C compiler that torch.compile calls is missing."""
    variable, name = COMPILERS[device.type]
    name = os.environ.get(variable, name)
    if not shutil.which(name):
        raise UserError(
            f"torch_compile=True needs {name}, which is not installed",
            'give torch_compile=False, or build the image by make images COMPILERS="gcc g++"',
        )
    forward: Callable[[Tensor], Tensor] = torch.compile(network)
    return forward


def start_network(settings: Settings, data: Dataset, group: ProcessGroup) -> tuple[nn.Module, str]:
    """Build the network on its device, with `pretrained` weights and frozen stages; return it and the weights' SHA-256.

    Raises UserError if the weights are missing, do not match the digest or belong to another network, or if the network
    normalizes over the images of a batch and a batch has one image.
    """
    network, sha256 = factory.build(architecture(settings, data)), ""
    if settings.pretrained:
        with tempfile.TemporaryDirectory() as scratch:
            path, expected = _fetch(settings.pretrained, Path(scratch))
            fresh = load_pretrained(network, path, expected)
            sha256 = sha256_file(path / WEIGHTS if path.is_dir() else path)
        log.info(f"started from {settings.pretrained}" + (f"; random: {', '.join(fresh)}" if fresh else ""))
    for stage in freeze_stages(network, settings.frozen_stages):
        stage.eval()
    if settings.batch_size == group.size and any(isinstance(module, BATCH_NORMS) for module in network.modules()):
        raise UserError(
            f"{settings.network} normalizes over the images of a batch, and batch_size={settings.batch_size} "
            "gives each process one image",
            f"give batch_size={2 * group.size} or more",
        )
    # Convolutions are faster in this memory format, on CPUs and on GPUs.
    return network.to(device=group.device, memory_format=torch.channels_last), sha256  # type: ignore[call-overload]


def _fetch(uri: str, scratch: Path) -> tuple[Path, str]:
    """Return the local file or folder that an address names, fetched if need be, and the digest after its #."""
    parts = urlsplit(uri)
    sha256 = dict(parse_qsl(parts.fragment)).get("sha256", "")
    if parts.scheme != "s3":
        return Path(parts.path), sha256
    address = f"s3://{parts.netloc}{parts.path}"
    if not address.endswith(".safetensors"):
        store = open_store(address, os.environ)
        for name in (DOCUMENT, WEIGHTS):
            _get(store, name, scratch / name)
        return scratch, sha256
    folder, _, name = address.rpartition("/")
    _get(open_store(folder, os.environ), name, scratch / WEIGHTS)
    return scratch / WEIGHTS, sha256


def _get(store: Store, name: str, path: Path) -> None:
    """Fetch a file; the document may be missing."""
    if name == DOCUMENT and not store.exists(name):
        return
    try:
        store.get_file(name, path)
    except UserError as error:
        raise type(error)(f"pretrained weights cannot be fetched: {error.message}", error.remedy) from None
