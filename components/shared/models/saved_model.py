"""The folder that stores a trained network: save and load it.

The folder holds `model.safetensors` (the weights), `history.json` and, written last, `model.json`. The weights and
`model.json` of equal runs are equal, byte by byte.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from components.shared.core.errors import UserError
from components.shared.core.files import new_file, sha256_file
from components.shared.models.document import REMEDY, Architecture, HistoryDocument, ModelDocument
from components.shared.models.factory import build


@dataclass(frozen=True)
class Model:
    """A trained network, in evaluation mode, and the documents that describe it."""

    module: nn.Module
    document: ModelDocument
    history: HistoryDocument

    @property
    def digest(self) -> str:
        """Return the digest of the document and, through it, of the weights."""
        return self.document.checksum

    @property
    def classes(self) -> list[str]:
        """Return the class names, in the order of the logits."""
        return self.document.classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Return (C, H, W)."""
        channels, height, width = self.document.image_shape
        return channels, height, width

    @property
    def mean(self) -> Tensor:
        """Return the mean of the train split per channel of pixels scaled to 0..1 (float32, C)."""
        return torch.tensor(self.document.mean, dtype=torch.float32)

    @property
    def std(self) -> Tensor:
        """Return the standard deviation of the train split per channel of pixels scaled to 0..1 (float32, C)."""
        return torch.tensor(self.document.std, dtype=torch.float32)


def save(folder: Path, network: nn.Module, history: HistoryDocument, **facts: Any) -> None:
    """Write the weights, `history.json` and, last, `model.json`: `facts` and the digest of the weights."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    path = folder / "model.safetensors"
    with new_file(path) as file:  # safetensors writes files that only their owner can read
        file.write(safetensors_bytes(weights))
    history.write(folder / "history.json")
    ModelDocument(**{**facts, "weights_sha256": sha256_file(path)}).sealed().write(folder / "model.json")


def load(path: str | Path) -> Model:
    """Load a model from its folder, in evaluation mode, on the CPU.

    Raises UserError if a file is missing or was changed, or the weights do not fit the architecture.
    """
    folder = Path(path)
    document = ModelDocument.read(folder / "model.json")
    history = HistoryDocument.read(folder / "history.json")
    weights = _read_weights(folder / "model.safetensors", document.weights_sha256)
    module = _build(folder, document.architecture)
    _check_fit(folder, weights, module.state_dict())
    module.load_state_dict(weights)
    return Model(module.eval(), document, history)


def _build(folder: Path, architecture: Architecture) -> nn.Module:
    try:
        return build(architecture)
    except (TypeError, LookupError) as error:  # an argument, or a value of one, that the network does not accept
        raise UserError(f"{folder}/model.json does not describe a network ({error!r})", REMEDY) from None


def _read_weights(path: Path, digest: str) -> dict[str, Tensor]:
    if not path.is_file() or sha256_file(path) != digest:
        raise UserError(f"{path} is missing or differs from its digest in model.json", REMEDY)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is not a safetensors file ({error})", REMEDY) from None


def _check_fit(folder: Path, weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    for name in sorted({*weights, *expected}):
        found, wanted = (tuple(t[name].shape) if name in t else "nothing" for t in (weights, expected))
        if found != wanted:
            raise UserError(f"{folder} holds {found} as {name}, but its architecture has {wanted}", REMEDY)
