"""The optimizers by name: Nesterov's momentum (sgd), AdamW and Muon, all with decoupled weight decay of the matrices.

Written out here, for they are short: the first use of torch.optim imports PyTorch's compiler, 4 seconds of a training
of 12, and its Muon refuses convolutions.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

MOMENTUM = 0.9
ADAM_BETAS = (0.9, 0.999)
ADAM_EPSILON = 1e-8
MUON_MOMENTUM = 0.95
MUON_VECTOR_RATE = 2.5  # the rate of the biases, as a multiple of the matrices' rate
NEWTON_SCHULZ_STEPS = 5
NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)

State = dict[str, Tensor]
Rule = Callable[[Tensor, State], Tensor]  # a gradient and what the rule remembers of earlier ones -> a step down
Memory = Callable[[Tensor], State]  # a parameter -> what its rule remembers at the start


class Optimizer:
    """Updates a network's weights by one rule; biases and other vectors are never decayed."""

    def __init__(self, name: str, network: nn.Module, learning_rate: float, weight_decay: float) -> None:
        """`name` is sgd, adamw or muon."""
        self.rule, memory, vector_rate = RULES[name]
        self.learning_rate, self.vector_learning_rate = learning_rate, vector_rate * learning_rate
        self.weight_decay = weight_decay
        self.parameters = list(network.parameters())
        self.states = [memory(parameter) for parameter in self.parameters]

    @torch.no_grad()
    def step(self, share: float) -> None:
        """Take a step at `share` of the learning rate along every gradient there is, and drop the gradients."""
        for parameter, state in zip(self.parameters, self.states, strict=True):
            if parameter.grad is None:
                continue  # the loss does not depend on it
            step = self.rule(parameter.grad, state)
            if parameter.ndim >= 2:
                rate = share * self.learning_rate
                parameter.mul_(1 - rate * self.weight_decay)
            else:
                rate = share * self.vector_learning_rate
            parameter.sub_(step, alpha=rate)
            parameter.grad = None


def velocity_memory(parameter: Tensor) -> State:
    """What Nesterov's gradient and Muon remember."""
    return {"velocity": torch.zeros_like(parameter)}


def adam_memory(parameter: Tensor) -> State:
    """What Adam remembers; `count` is a scalar on the CPU."""
    return {"count": torch.zeros(()), "mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}


def nesterov(gradient: Tensor, state: State, momentum: float = MOMENTUM) -> Tensor:
    """Nesterov's accelerated gradient, in the form of Sutskever et al. 2013 that torch.optim.SGD uses too."""
    velocity = state["velocity"].mul_(momentum).add_(gradient)
    return gradient.add(velocity, alpha=momentum)


def adam(gradient: Tensor, state: State) -> Tensor:
    """Kingma and Ba, "Adam" (2015), algorithm 1; with decoupled decay it is AdamW (Loshchilov and Hutter 2019)."""
    first, second = ADAM_BETAS
    count = state["count"].add_(1)
    mean = state["mean"].lerp_(gradient, 1 - first)
    square = state["square"].lerp_(gradient.square(), 1 - second)
    steps = int(count)
    return mean / (1 - first**steps) / ((square / (1 - second**steps)).sqrt() + ADAM_EPSILON)


def muon(gradient: Tensor, state: State) -> Tensor:
    """Keller Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024).

    Nesterov's momentum, orthogonalised where it is a matrix; a convolution's weight is the matrix of its flat filters.
    """
    step = nesterov(gradient, state, MUON_MOMENTUM)
    return orthogonalise(step.flatten(1)).view(step.shape) if step.ndim >= 2 else step


def orthogonalise(matrix: Tensor) -> Tensor:
    """The matrix (float, R x C) with its singular values brought near 1, times sqrt(max(1, R / C)).

    A quintic Newton-Schulz iteration with the number of steps, coefficients and scale of Keller Jordan's Muon (2024).
    """
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    rows, columns = matrix.shape
    x = matrix.T if rows > columns else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.T if rows > columns else x
    return x * float(max(1, rows / columns) ** 0.5)


RULES: dict[str, tuple[Rule, Memory, float]] = {
    "sgd": (nesterov, velocity_memory, 1.0),
    "adamw": (adam, adam_memory, 1.0),
    "muon": (muon, velocity_memory, MUON_VECTOR_RATE),
}
