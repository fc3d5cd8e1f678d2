"""Weights that were trained before: loading them into a network of other classes or channels, and freezing stages."""

import math
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from components.shared.core.errors import UserError
from components.shared.core.files import read_json, sha256_file
from components.shared.models.saved_model import FORMAT
from components.shared.models.zoo import first_convolution

SHOWN = 3  # names in a message
COUNTER = "num_batches_tracked"  # of a batch norm, which some files lack


def load_pretrained(network: nn.Module, path: str | Path, sha256: str = "") -> list[str]:
    """Load the safetensors file at `path`, or `model.safetensors` in that folder, into `network`.

    Returns the names of the weights that stay as they were: the head's, where the file's is for another number of
    classes or there is none. A first convolution of another number of channels is summed up for one channel, else
    repeated and scaled. UserError where the file does not have the digest `sha256` or that of the `model.json` beside
    it, or holds the weights of another architecture.
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
    """Keep the weights of the first `count` stages as they are, and return these stages.

    The caller sets them to evaluation mode after every `network.train()`, so that the statistics of their batch norms
    stay too. UserError where the network has fewer stages before its head.
    """
    found = stages(network)
    if count > len(found):
        raise UserError(
            f"frozen_stages={count} is more than the {len(found)} stages before the head: {', '.join(found)}"
        )
    frozen = list(found.values())[:count]
    for stage in frozen:
        stage.requires_grad_(False)
    return frozen


def stages(network: nn.Module) -> dict[str, nn.Module]:
    """The parts with weights before the head, by name and in order; `features` counts as its own parts."""
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
        raise UserError(f"{file} is not there; give a safetensors file, or a folder with model.safetensors")
    document = path / "model.json"
    digests = {sha256, read_json(document, FORMAT)["weights_sha256"] if document.is_file() else ""} - {""}
    if digests and digests != {sha256_file(file)}:
        raise UserError(f"{file} differs from its digest {' and '.join(sorted(digests))}; fetch it again")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise UserError(f"{file} is no safetensors file ({error}); convert the weights") from None


def _head(network: nn.Module) -> str:
    """The name of the last layer with weights, with a dot at its end."""
    return [f"{n}." for n, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]


def _for_channels(weight: Tensor, channels: int) -> Tensor:
    """Filters (out x in x kh x kw) for another number of channels, with equal sums."""
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
            f"{path} has {shapes[first][0]} as {first} where the network has {shapes[first][1]}: its first layer is "
            "another for small pictures; prepare them with a larger image_size"
        )
    if wrong:
        told = ", ".join(f"{name} ({shapes[name][0]}, here {shapes[name][1]})" for name in wrong[:SHOWN])
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise UserError(f"{path} holds the weights of another network: {told}{more} do not fit")


def _shape(weights: Mapping[str, Tensor], name: str) -> str:
    return " x ".join(map(str, weights[name].shape)) if name in weights else "nothing"
