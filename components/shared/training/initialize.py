"""What a training starts from: a network, with random or trained weights, and the way in which it computes."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import torch
from torch import Tensor, nn

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.core.files import Document, sha256_file
from components.shared.data.dataset import Dataset
from components.shared.models import factory
from components.shared.models.pretrained import freeze_stages, load_pretrained
from components.shared.storage.client import Store, open_store
from components.shared.training.settings import Settings

WEIGHTS, DOCUMENT = "model.safetensors", "model.json"
COMPILERS = {"cpu": ("CXX", "g++"), "cuda": ("CC", "gcc")}  # of PyTorch's code: the variable with its name, and that


def architecture(settings: Settings, data: Dataset) -> Document:
    """What components/shared/models builds the network from, as it stands in the model's document."""
    return {
        "name": settings.network,
        "num_classes": len(data.classes),
        "image_shape": list(data.image_shape),
        "activation": settings.activation,
        "pooling": settings.pooling,
        "bias": settings.bias,
    }


def is_bfloat16(settings: Settings, device: torch.device) -> bool:
    """Whether the network computes in bfloat16; its weights are float32 all the same."""
    return {"auto": device.type == "cuda", "bfloat16": True, "float32": False}[settings.precision]


def autocast(settings: Settings, device: torch.device) -> torch.autocast:
    """A block in which the network computes in the precision of the settings."""
    return torch.autocast(device.type, torch.bfloat16, enabled=is_bfloat16(settings, device))


def compiled(network: nn.Module, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The network as torch.compile makes it; UserError where the compiler that it calls is not there."""
    variable, name = COMPILERS[device.type]
    name = os.environ.get(variable, name)
    if not shutil.which(name):
        raise UserError(
            f"torch_compile=True needs {name}, which is not here; give torch_compile=False, or make the image with "
            'make images COMPILERS="gcc g++"'
        )
    forward: Callable[[Tensor], Tensor] = torch.compile(network)
    return forward


def start_network(settings: Settings, data: Dataset) -> tuple[nn.Module, str]:
    """Build the network, with `pretrained` weights and frozen stages where asked for; it, and the weights' SHA-256.

    UserError where the weights are not there, not those of the digest, or of another network.
    """
    network, sha256 = factory.build(architecture(settings, data)), ""
    if settings.pretrained:
        with tempfile.TemporaryDirectory() as scratch:
            path, expected = _fetch(settings.pretrained, Path(scratch))
            fresh = load_pretrained(network, path, expected)
            sha256 = sha256_file(path / WEIGHTS if path.is_dir() else path)
        log.info(f"starts from {settings.pretrained}" + (f"; anew: {', '.join(fresh)}" if fresh else ""))
    for stage in freeze_stages(network, settings.frozen_stages):
        stage.eval()
    return network, sha256


def _fetch(uri: str, scratch: Path) -> tuple[Path, str]:
    """The local file or folder that an address names, and the digest behind its #."""
    parts = urlsplit(uri)
    sha256 = dict(parse_qsl(parts.fragment)).get("sha256", "")
    if parts.scheme != "s3":
        return Path(parts.path), sha256
    place = f"s3://{parts.netloc}{parts.path}"
    if not place.endswith(".safetensors"):
        store = open_store(place, os.environ)
        for name in (DOCUMENT, WEIGHTS):
            _get(store, name, scratch / name)
        return scratch, sha256
    folder, _, name = place.rpartition("/")
    _get(open_store(folder, os.environ), name, scratch / WEIGHTS)
    return scratch / WEIGHTS, sha256


def _get(store: Store, name: str, path: Path) -> None:
    if not store.exists(name) and name == DOCUMENT:
        return
    try:
        store.get_file(name, path)
    except UserError as error:
        raise UserError(f"pretrained weights cannot be fetched: {error}") from None
