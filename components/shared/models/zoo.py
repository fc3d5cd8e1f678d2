"""Build the networks of `catalogue.py`'s table by torchvision or timm, with random weights.

A library is imported only when a network of it is built, because that takes seconds.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from components.shared.core.errors import UserError, did_you_mean
from components.shared.models import catalogue
from components.shared.models.layers import UNCHANGED, remove_bias, replace_activation, replace_pooling

RGB = 3  # channels


def build(
    name: str,
    *,
    num_classes: int,
    image_shape: Sequence[int],
    activation: str = "default",
    pooling: str = "default",
    bias: bool = True,
) -> nn.Module:
    """Build a network for images of `image_shape` (C, H, W), whose output is logits (N x num_classes).

    For images of less than a third of the published size the stem preserves the resolution: it has no strides and no
    max pooling, and kernels of 3 x 3 pixels instead of 7 x 7. `activation` replaces every ReLU, `pooling` every max
    pooling; without `bias`, no convolution and no linear layer has one. Raises UserError if there is nothing to
    replace, or the network does not accept the images.
    """
    channels, height, _ = image_shape
    if name.startswith(catalogue.TIMM):
        network = _timm(name, num_classes, image_shape)
    else:
        network = _published(catalogue.ZOO[name], name, num_classes, channels, height)
    if activation not in UNCHANGED:
        replace_activation(network, name, activation)
    if pooling not in UNCHANGED:
        replace_pooling(network, f"{name} for images of {height} x {height} pixels", pooling)
    if not bias:
        remove_bias(network)
    return network


def _published(row: catalogue.Network, name: str, num_classes: int, channels: int, size: int) -> nn.Module:
    network = _call(row, row.call or name, num_classes, channels)
    small = row.is_small(size)
    _fit_first_convolution(network, channels, small)
    if small:
        _preserve_resolution(network, row.stem)
    return network


def _call(row: catalogue.Network, call: str, num_classes: int, channels: int) -> nn.Module:
    if row.library == "torchvision":
        import torchvision

        network: nn.Module = torchvision.models.get_model(call, weights=None, num_classes=num_classes)
        return _without_functional_relu(network) if call.startswith("densenet") else network
    if row.library == "timm":
        import timm

        return timm.create_model(
            call, pretrained=False, num_classes=num_classes, in_chans=channels, drop_rate=row.dropout
        )
    from components.shared.models.nasnet import NASNetAMobile

    return NASNetAMobile(num_classes=num_classes, in_chans=channels, drop_rate=row.dropout)


def _timm(name: str, num_classes: int, image_shape: Sequence[int]) -> nn.Module:
    import timm

    call, names = name.removeprefix(catalogue.TIMM), timm.list_models()
    if call not in names:
        raise UserError(
            f"timm {timm.__version__} has no network named {call!r}{did_you_mean(call, names)}",
            "give a name that timm.list_models() shows",
        )
    network, logits, reason = _try(call, num_classes, image_shape)
    if reason:
        channels, *pixels = image_shape
        if channels != RGB and not _try(call, num_classes, (RGB, *pixels))[2]:
            raise UserError(f"{name} accepts only images of {RGB} channels, not of {channels}", "give another network")
        config = timm.get_pretrained_cfg(call)
        remedy = f"prepare them with image_size={config.input_size[-1]}" if config else "give another image_size"
        raise UserError(f"{name} does not accept images of {' x '.join(map(str, image_shape))} ({reason})", remedy)
    if not isinstance(logits, torch.Tensor) or logits.shape != (1, num_classes):
        raise UserError(
            f"{name} is not a classifier: its output is not a row of logits per image", "give another network"
        )
    return network.train()


def _try(call: str, num_classes: int, image_shape: Sequence[int]) -> tuple[nn.Module, object, str]:
    """Return a network of timm, its output for a black image, and the reason if it has none."""
    import timm

    network = timm.create_model(call, pretrained=False, num_classes=num_classes, in_chans=image_shape[0])
    try:
        with torch.no_grad():
            return network, network.eval()(torch.zeros(1, *image_shape)), ""
    except (RuntimeError, AssertionError) as error:
        return network, None, " ".join(str(error).split()) or type(error).__name__


def _without_functional_relu(densenet: nn.Module) -> nn.Module:
    """Return the same network and names of weights, with its last ReLU as a module, which can be replaced."""
    return nn.Sequential(
        OrderedDict(
            features=densenet.get_submodule("features"),
            relu=nn.ReLU(inplace=True),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=densenet.get_submodule("classifier"),
        )
    )


def _fit_first_convolution(network: nn.Module, channels: int, small: bool) -> None:
    """Give the first convolution the channels of the images and, for small images, 3 x 3 pixels instead of 7 x 7."""
    name, old = first_convolution(network)
    shrinks = small and old.kernel_size == (7, 7)
    if old.in_channels == channels and not shrinks:
        return
    new = nn.Conv2d(
        channels,
        old.out_channels,
        3 if shrinks else cast(tuple[int, int], old.kernel_size),
        stride=cast(tuple[int, int], old.stride),
        padding=1 if shrinks else cast(tuple[int, int], old.padding),
        bias=old.bias is not None,
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    network.set_submodule(name, new)


def first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d]:
    """Return name and module of the convolution that sees the images."""
    return next((name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d))


def _preserve_resolution(network: nn.Module, stem: Sequence[str]) -> None:
    for name in stem:
        part = network.get_submodule(name)
        if isinstance(part, nn.MaxPool2d):
            network.set_submodule(name, nn.Identity())
            continue
        for module in part.modules():
            if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
                module.stride = (1, 1)
