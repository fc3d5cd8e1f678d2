"""The exponential moving average (EMA) of a network's weights, which generalizes better than the last weights."""

import copy

import torch
from torch import Tensor, nn


class WeightAverage:
    """A copy of a network, in evaluation mode, whose weights follow those of the trained one."""

    def __init__(self, trained: nn.Module, decay: float) -> None:
        """Start with the weights of `trained`; a `decay` of 0 follows them at once."""
        self.network, self.decay = copy.deepcopy(trained).eval(), decay
        pairs = list(zip(_tensors(self.network), _tensors(trained), strict=True))
        self._averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]  # counters of batch norms

    @torch.no_grad()
    def update(self, completed_steps: int) -> None:
        """Move the averaged weights towards the trained ones.

        The decay is smaller in the first steps, so that the random weights are soon forgotten, as in TensorFlow's
        ExponentialMovingAverage.
        """
        decay = min(self.decay, (1 + completed_steps) / (10 + completed_steps))
        averages, raws = zip(*self._averaged, strict=True)
        torch._foreach_lerp_(averages, raws, 1 - decay)
        for average, raw in self._copied:
            average.copy_(raw)


def _tensors(network: nn.Module) -> list[Tensor]:
    """Return the weights, and statistics such as those of batch normalization."""
    return [*network.parameters(), *network.buffers()]
