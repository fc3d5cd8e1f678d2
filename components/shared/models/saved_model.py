"""The folder that stores a trained network: save and load it.

The folder holds `model.safetensors` (the weights), `history.json` (the epochs and the seconds, which differ from run to
run) and, written last, `model.json`: architecture, classes, image shape, mean and std, the digests of weights and
dataset, how the weights were trained, and the checksum of the document itself. The weights and `model.json` of equal
runs are equal, byte by byte.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from components.shared.core.errors import UserError
from components.shared.core.files import Document, new_file, read_json, sha256_file, sha256_json, write_json
from components.shared.core.schema import (
    are_names,
    check_fields,
    is_count,
    is_list,
    is_map,
    is_number,
    is_sha256,
    is_size,
)
from components.shared.models.factory import build

FORMAT = "torch2kubeflow/model"
HISTORY_FORMAT = "torch2kubeflow/history"
EPOCH_FIELDS = {  # that the report shows
    *("epoch", "train_loss", "val_loss", "val_accuracy", "seconds"),
    *("images_per_second", "data_wait", "memory_mib", "peak_share"),
}
REMEDY = "train the model again"


@dataclass(frozen=True)
class Model:
    """A trained network, in evaluation mode, and the document that describes it."""

    module: nn.Module
    document: Document
    history: Document

    @property
    def digest(self) -> str:
        """Return the digest of the document and, through it, of the weights."""
        return sha256_json(self.document)

    @property
    def classes(self) -> list[str]:
        """Return the class names, in the order of the logits."""
        return list(self.document["classes"])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Return (C, H, W)."""
        channels, height, width = self.document["image_shape"]
        return channels, height, width

    @property
    def mean(self) -> Tensor:
        """Return the mean of the train split per channel of pixels scaled to 0..1 (float32, C)."""
        return torch.tensor(self.document["mean"], dtype=torch.float32)

    @property
    def std(self) -> Tensor:
        """Return the standard deviation of the train split per channel of pixels scaled to 0..1 (float32, C)."""
        return torch.tensor(self.document["std"], dtype=torch.float32)


def save(folder: Path, model: nn.Module, document: Document, history: Document) -> None:
    """Write weights, `history.json` and, last, `model.json`; add the formats and the digest of the weights."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    path = folder / "model.safetensors"
    with new_file(path) as file:  # safetensors writes files that only their owner can read
        file.write(safetensors_bytes(weights))
    write_json(folder / "history.json", {"format": HISTORY_FORMAT, **history})
    whole = {"format": FORMAT, **document, "weights_sha256": sha256_file(path)}
    write_json(folder / "model.json", {**whole, "checksum": sha256_json(whole)})


def load(path: str | Path) -> Model:
    """Load a model from its folder, in evaluation mode, on the CPU.

    Raises UserError if a file is missing or was changed, or the weights do not fit the architecture.
    """
    folder = Path(path)
    document = _read_document(folder / "model.json")
    history = read_json(folder / "history.json", HISTORY_FORMAT)
    check_fields(history, _HISTORY_FIELDS, str(folder / "history.json"), REMEDY)
    weights = _read_weights(folder / "model.safetensors", document["weights_sha256"])
    module = _build(folder, document["architecture"])
    _check_fit(folder, weights, module.state_dict())
    module.load_state_dict(weights)
    return Model(module.eval(), document, history)


def _read_document(path: Path) -> Document:
    document = read_json(path, FORMAT)
    checksum = document.pop("checksum", None)
    if sha256_json(document) != checksum:
        raise UserError(f"{path} differs from its checksum", REMEDY)
    check_fields(document, _FIELDS, str(path), REMEDY)
    return document


def _build(folder: Path, architecture: Document) -> nn.Module:
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


def _is_architecture(value: object, num_classes: int, image_shape: list[int]) -> bool:
    match value:
        case {"name": str(), "num_classes": classes, "image_shape": shape}:
            return bool(classes == num_classes and shape == image_shape)
    return False


def _is_epoch(value: object) -> bool:
    return is_map(value, is_number) and isinstance(value, dict) and value.keys() >= EPOCH_FIELDS


# In this order: each rule may rely on those above it.
_FIELDS: dict[str, Callable[[Document], bool]] = {
    "classes": lambda d: are_names(d["classes"]),
    "image_shape": lambda d: is_list(d["image_shape"], is_size, 3),
    "mean": lambda d: is_list(d["mean"], is_number, d["image_shape"][0]),
    "std": lambda d: is_list(d["std"], is_number, d["image_shape"][0]) and min(d["std"]) > 0,
    "architecture": lambda d: _is_architecture(d["architecture"], len(d["classes"]), d["image_shape"]),
    "weights_sha256": lambda d: is_sha256(d["weights_sha256"]),
    "checkpoint_key": lambda d: is_sha256(d["checkpoint_key"]),
}
_HISTORY_FIELDS: dict[str, Callable[[Document], bool]] = {
    "epochs": lambda d: is_list(d["epochs"], _is_epoch),
    "best_epoch": lambda d: is_count(d["best_epoch"]),
    "checkpoints": lambda d: is_list(d["checkpoints"], is_count),
    "seconds": lambda d: is_map(d["seconds"], is_number),
}
