"""The image networks of the field, as torchvision or timm build them, without weights; `networks.py` is their table.

The libraries are imported when a network of theirs is built, for that takes seconds.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import nn

from components.shared.core.errors import UserError, did_you_mean
from components.shared.models import catalogue
from components.shared.models.layers import ACTIVATIONS, OWN, POOLINGS

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
    """Make a network for pictures of `image_shape` (C, H, W), whose output is logits (N x num_classes).

    Pictures of less than a third of the published size get a stem that keeps their resolution: it has no strides and
    no max pooling, and 3 x 3 pixels in place of 7 x 7. `activation` takes the place of every ReLU, `pooling` of every
    max pooling; without `bias`, no convolution and no linear layer has one. UserError where there is nothing to
    exchange, or where the network does not take the pictures.
    """
    channels, height, _ = image_shape
    if name.startswith(catalogue.TIMM):
        network = _timm(name, num_classes, image_shape)
    else:
        network = _published(catalogue.ZOO[name], name, num_classes, channels, height)
    if activation not in OWN:
        _exchange_activation(network, name, activation)
    if pooling not in OWN:
        _exchange_pooling(network, f"{name} for pictures of {height} x {height} pixels", pooling)
    if not bias:
        _remove_bias(network)
    return network


def _published(row: catalogue.Network, name: str, num_classes: int, channels: int, size: int) -> nn.Module:
    network = _call(row, row.call or name, num_classes, channels)
    small = row.is_small(size)
    _fit_first_convolution(network, channels, small)
    if small:
        _keep_resolution(network, row.stem)
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
        raise UserError(f"timm {timm.__version__} has no network named {call!r}{did_you_mean(call, names)}")
    network, logits, reason = _tried(call, num_classes, image_shape)
    if reason:
        channels, *pixels = image_shape
        if channels != RGB and not _tried(call, num_classes, (RGB, *pixels))[2]:
            raise UserError(f"{name} takes pictures of {RGB} channels alone, not of {channels}; give another network")
        config = timm.get_pretrained_cfg(call)
        size = f"; it was made for image_size={config.input_size[-1]}" if config else ""
        raise UserError(f"{name} takes no pictures of {' x '.join(map(str, image_shape))} ({reason}){size}")
    if not isinstance(logits, torch.Tensor) or logits.shape != (1, num_classes):
        raise UserError(f"{name} is no classifier: its output is not one row of logits for each picture")
    return network.train()


def _tried(call: str, num_classes: int, image_shape: Sequence[int]) -> tuple[nn.Module, object, str]:
    """A network of timm, what it makes of a black picture, and why it makes nothing of it."""
    import timm

    network = timm.create_model(call, pretrained=False, num_classes=num_classes, in_chans=image_shape[0])
    try:
        with torch.no_grad():
            return network, network.eval()(torch.zeros(1, *image_shape)), ""
    except (RuntimeError, AssertionError) as error:
        return network, None, " ".join(str(error).split()) or type(error).__name__


def _without_functional_relu(densenet: nn.Module) -> nn.Module:
    """The same network and names of weights, with its last ReLU as a module, which can be exchanged."""
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
    """Give the first convolution as many channels as the pictures have and, for small ones, 3 x 3 instead of 7 x 7."""
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
    """Name and module of the convolution that sees the pictures."""
    return next((name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d))


def _keep_resolution(network: nn.Module, stem: Sequence[str]) -> None:
    for name in stem:
        part = network.get_submodule(name)
        if isinstance(part, nn.MaxPool2d):
            network.set_submodule(name, nn.Identity())
            continue
        for module in part.modules():
            if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
                module.stride = (1, 1)


def _exchange_activation(network: nn.Module, name: str, activation: str) -> None:
    if not _exchange(network, (nn.ReLU, nn.ReLU6), lambda _: ACTIVATIONS[activation]()):
        raise UserError(f"{name} has no ReLU to exchange for activation={activation}; give activation=default")


def _exchange_pooling(network: nn.Module, what: str, pooling: str) -> None:
    def other(old: nn.Module) -> nn.Module:
        assert isinstance(old, nn.MaxPool2d)
        return POOLINGS[pooling](old.kernel_size, old.stride, old.padding, ceil_mode=old.ceil_mode)

    if not _exchange(network, (nn.MaxPool2d,), other):
        raise UserError(f"{what} has no max pooling to exchange for pooling={pooling}; give pooling=default")


def _exchange(network: nn.Module, kinds: tuple[type[nn.Module], ...], other: Callable[[nn.Module], nn.Module]) -> int:
    """Put `other(module)` in the place of every module that is exactly one of `kinds`; returns how many."""
    found = [(n, module) for n, module in network.named_modules(remove_duplicate=False) if type(module) in kinds]
    for name, module in found:
        network.set_submodule(name, other(module))
    return len(found)


def _remove_bias(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_parameter("bias", None)
