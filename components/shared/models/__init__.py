"""The networks by name, and the self-describing folder that holds a trained one.

The folder holds `model.safetensors` (the weights), `history.json` (the epochs and the seconds: what differs from run
to run) and, written last, `model.json`: architecture, classes, image shape, mean and std, the digests of weights and
dataset, how the weights were trained, and the checksum of the document itself. The weights and `model.json` of equal
runs are equal, byte by byte.
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

from components.shared.errors import UserError
from components.shared.files import Document, new_file, read_json, sha256_file, sha256_json, write_json
from components.shared.models.lenet import LeNet5

FORMAT = "torch2kubeflow/model"
HISTORY_FORMAT = "torch2kubeflow/history"
NETWORKS: dict[str, type[nn.Module]] = {"lenet5": LeNet5}


@dataclass(frozen=True)
class Model:
    """A trained network, in evaluation mode, and the document that describes it."""

    module: nn.Module
    document: Document
    history: Document

    @property
    def digest(self) -> str:
        """The digest of the document and, through it, of the weights."""
        return sha256_json(self.document)

    @property
    def classes(self) -> list[str]:
        """The class names, in the order of the logits."""
        return list(self.document["classes"])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.document["image_shape"]
        return channels, height, width

    @property
    def mean(self) -> Tensor:
        """The training split's mean per channel of pixels scaled to 0..1 (float32, C)."""
        return torch.tensor(self.document["mean"], dtype=torch.float32)

    @property
    def std(self) -> Tensor:
        """The training split's standard deviation per channel of pixels scaled to 0..1 (float32, C)."""
        return torch.tensor(self.document["std"], dtype=torch.float32)


def build(architecture: Mapping[str, Any]) -> nn.Module:
    """Make the network that `architecture` describes: its `name` and the arguments of its class.

    The weights are random, drawn from torch's generator. UserError where the name is unknown or the network refuses
    the image shape.
    """
    arguments = dict(architecture)
    name = arguments.pop("name")
    if name not in NETWORKS:
        raise UserError(f"no network is named {name!r}; there are {', '.join(NETWORKS)}")
    return NETWORKS[name](**arguments)


def save(folder: Path, model: nn.Module, document: Document, history: Document) -> None:
    """Write weights, `history.json` and, last, `model.json`, to which formats and the weights' digest are added."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    path = folder / "model.safetensors"
    with new_file(path) as file:  # safetensors' own writer makes files that only their owner can read
        file.write(safetensors_bytes(weights))
    write_json(folder / "history.json", {"format": HISTORY_FORMAT, **history})
    whole = {"format": FORMAT, **document, "weights_sha256": sha256_file(path)}
    write_json(folder / "model.json", {**whole, "checksum": sha256_json(whole)})


def load(path: str | Path) -> Model:
    """Read a model's folder and put it together, in evaluation mode, on the CPU.

    UserError where a file is missing or not as it was written, or the weights do not fit the architecture.
    """
    folder = Path(path)
    document = _read_document(folder / "model.json")
    history = read_json(folder / "history.json", HISTORY_FORMAT)
    weights = _read_weights(folder / "model.safetensors", document["weights_sha256"])
    module = build(document["architecture"])
    _check_fit(folder, weights, module.state_dict())
    module.load_state_dict(weights)
    return Model(module.eval(), document, history)


def _read_document(path: Path) -> Document:
    document = read_json(path, FORMAT)
    checksum = document.pop("checksum", None)
    if sha256_json(document) != checksum:
        raise UserError(f"{path} differs from its checksum; train the model again")
    return document


def _read_weights(path: Path, digest: str) -> dict[str, Tensor]:
    if not path.is_file() or sha256_file(path) != digest:
        raise UserError(f"{path} is missing or differs from its digest in model.json; train the model again")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is no safetensors file ({error}); train the model again") from None


def _check_fit(folder: Path, weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    for name in sorted({*weights, *expected}):
        found, wanted = (tuple(t[name].shape) if name in t else "nothing" for t in (weights, expected))
        if found != wanted:
            raise UserError(
                f"{folder} holds {found} as {name} where its architecture has {wanted}; train the model again"
            )
