"""Load pretrained weights into a network, also of other classes or channels, and freeze its stages."""

import math
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from components.shared.core.errors import UserError
from components.shared.core.files import sha256_file
from components.shared.models.document import ModelDocument
from components.shared.models.zoo import first_convolution

SHOWN = 3  # names, in a message
COUNTER = "num_batches_tracked"  # of batch norms; some files lack it


def load_pretrained(network: nn.Module, path: str | Path, sha256: str = "") -> list[str]:
    """Load the safetensors file at `path`, or `model.safetensors` in that folder, into `network`.

    Returns the names of the weights that stay random: those of the head, if the file has no head or one of another
    number of classes. A first convolution of another number of channels is summed up for one channel, else repeated and
    scaled. Raises UserError if the file does not match the digest `sha256` or that of the `model.json` in its folder,
    or holds the weights of another architecture.
    """
    weights = _read(Path(path), sha256)
    expected = network.state_dict()
    first = f"{first_convolution(network)[0]}.weight"
    if first in weights:
        weights[first] = _for_channels(weights[first], expected[first].shape[1])
    head = {name for name in {*weights, *expected} if name.startswith(_head(network))}
    fits = all(_shape(weights, name) == _shape(expected, name) for name in head)
    backbone = weights if fits else {name: weight for name, weight in weights.items() if name not in head}
    fresh = set() if fits else head
    _check_fit(path, backbone, {name: expected[name] for name in expected if name not in fresh}, first)
    network.load_state_dict({name: backbone.get(name, weight) for name, weight in expected.items()})
    return sorted(fresh & {*expected})


def freeze_stages(network: nn.Module, count: int) -> list[nn.Module]:
    """Freeze the weights of the first `count` stages, and return these stages.

    The caller must set them to evaluation mode after every `network.train()`, so that the statistics of their batch
    norms are frozen too. Raises UserError if the network has fewer stages before its head.
    """
    found = stages(network)
    if count > len(found):
        raise UserError(
            f"frozen_stages={count} is more than the {len(found)} stages before the head: {', '.join(found)}",
            f"give frozen_stages={len(found)} or less",
        )
    frozen = list(found.values())[:count]
    for stage in frozen:
        stage.requires_grad_(False)
    return frozen


def stages(network: nn.Module) -> dict[str, nn.Module]:
    """Return the parts with weights before the head, by name and in order; the parts of `features` count singly."""
    parts = {
        name: part
        for parent, child in network.named_children()
        for name, part in (
            ((f"{parent}.{n}", p) for n, p in child.named_children()) if parent == "features" else [(parent, child)]
        )
    }
    head = _head(network)
    return {n: p for n, p in parts.items() if any(True for _ in p.parameters()) and not head.startswith(f"{n}.")}


def _read(path: Path, sha256: str) -> dict[str, Tensor]:
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{file} does not exist", "give a safetensors file, or a folder with model.safetensors")
    document = path / "model.json"
    digests = {sha256, ModelDocument.read(document).weights_sha256 if document.is_file() else ""} - {""}
    if digests and digests != {sha256_file(file)}:
        raise UserError(f"{file} differs from its digest {' and '.join(sorted(digests))}", "fetch it again")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise UserError(f"{file} is not a safetensors file ({error})", "convert the weights") from None


def _head(network: nn.Module) -> str:
    """Return the name of the last layer with weights, and a dot."""
    return [f"{n}." for n, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]


def _for_channels(weight: Tensor, channels: int) -> Tensor:
    """Fit filters (out x in x kh x kw) to another number of channels, with the same sum over them."""
    given = weight.shape[1]
    if given == channels:
        return weight
    if channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = weight.repeat(1, math.ceil(channels / given), 1, 1)[:, :channels]
    return repeated * (given / channels)


def _check_fit(path: str | Path, weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], first: str) -> None:
    shapes = {name: (_shape(weights, name), _shape(expected, name)) for name in sorted({*weights, *expected})}
    wrong = [name for name, (found, wanted) in shapes.items() if found != wanted and not name.endswith(COUNTER)]
    if wrong == [first]:
        raise UserError(
            f"{path} has {shapes[first][0]} as {first}, but the network has {shapes[first][1]}: its first layer "
            "differs for small images",
            "prepare the images with a larger image_size",
        )
    if wrong:
        differences = ", ".join(f"{name} ({shapes[name][0]}, here {shapes[name][1]})" for name in wrong[:SHOWN])
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise UserError(
            f"{path} holds the weights of another network: {differences}{more} do not fit",
            "give the network that they were trained with, or other weights",
        )


def _shape(weights: Mapping[str, Tensor], name: str) -> str:
    return " x ".join(map(str, weights[name].shape)) if name in weights else "nothing"
