"""The optimizers by name: Nesterov's momentum (sgd), AdamW and Muon, all with decoupled weight decay of the matrices.

They are short, and torch.optim has two drawbacks: its first use imports PyTorch's compiler, which takes 4 seconds, and
its Muon refuses convolutions.
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
Rule = Callable[[list[Tensor], list[State]], list[Tensor]]  # gradients and states -> what to subtract, before the rate
Init = Callable[[Tensor], State]  # a parameter -> its state at the start


class Optimizer:
    """Updates a network's weights by one rule; biases and other vectors are never decayed.

    Each operation is applied to all tensors at once, which on a GPU is one kernel for many of them.
    """

    def __init__(self, name: str, network: nn.Module, learning_rate: float, weight_decay: float) -> None:
        """Prepare for the weights that need a gradient; `name` is sgd, adamw or muon."""
        self.rule, init, vector_rate = RULES[name]
        self.learning_rate, self.vector_learning_rate = learning_rate, vector_rate * learning_rate
        self.weight_decay = weight_decay
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.states = [init(parameter) for parameter in self.parameters]

    @torch.no_grad()
    def step(self, share: float) -> None:
        """Take a step at `share` of the learning rate along every gradient, and drop the gradients."""
        for is_matrix, rate in ((True, self.learning_rate), (False, self.vector_learning_rate)):
            chosen = [  # a parameter that the loss does not depend on has no gradient
                (parameter, state)
                for parameter, state in zip(self.parameters, self.states, strict=True)
                if (parameter.ndim >= 2) == is_matrix and parameter.grad is not None
            ]
            if not chosen:
                continue
            parameters: list[Tensor] = [parameter for parameter, _ in chosen]
            states = [state for _, state in chosen]
            steps = self.rule([parameter.grad for parameter in parameters if parameter.grad is not None], states)
            if is_matrix:
                torch._foreach_mul_(parameters, 1 - share * rate * self.weight_decay)
            torch._foreach_sub_(parameters, steps, alpha=share * rate)
        for parameter in self.parameters:
            parameter.grad = None


def init_velocity(parameter: Tensor) -> State:
    """Return the state of Nesterov's gradient and of Muon at the start."""
    return {"velocity": torch.zeros_like(parameter)}


def init_moments(parameter: Tensor) -> State:
    """Return the state of Adam at the start; `count` is a scalar on the CPU."""
    return {"count": torch.zeros(()), "mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}


def nesterov(gradients: list[Tensor], states: list[State], momentum: float = MOMENTUM) -> list[Tensor]:
    """Apply Nesterov's accelerated gradient, in the form of Sutskever et al. 2013 that torch.optim.SGD uses too."""
    velocities = [state["velocity"] for state in states]
    torch._foreach_mul_(velocities, momentum)
    torch._foreach_add_(velocities, gradients)
    return list(torch._foreach_add(gradients, velocities, alpha=momentum))


def adam(gradients: list[Tensor], states: list[State]) -> list[Tensor]:
    """Apply Adam (Kingma and Ba 2015, algorithm 1); with decoupled decay it is AdamW (Loshchilov and Hutter 2019)."""
    counts, means, squares = ([state[name] for state in states] for name in ("count", "mean", "square"))
    first, second = ADAM_BETAS
    torch._foreach_add_(counts, 1)
    torch._foreach_lerp_(means, gradients, 1 - first)
    torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 1 - second)
    steps = [int(count) for count in counts]
    divisors = torch._foreach_div(squares, [1 - second**step for step in steps])
    torch._foreach_sqrt_(divisors)
    torch._foreach_add_(divisors, ADAM_EPSILON)
    return list(torch._foreach_div(torch._foreach_div(means, [1 - first**step for step in steps]), divisors))


def muon(gradients: list[Tensor], states: list[State]) -> list[Tensor]:
    """Apply Muon: Keller Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024).

    It orthogonalizes Nesterov's momentum of matrices; a convolution's weight is the matrix of its flat filters.
    """
    steps = nesterov(gradients, states, MUON_MOMENTUM)
    return [orthogonalize(step.flatten(1)).view(step.shape) if step.ndim >= 2 else step for step in steps]


def orthogonalize(matrix: Tensor) -> Tensor:
    """Return a matrix (float, R x C) with its singular values brought near 1, times sqrt(max(1, R / C)).

    It is a quintic Newton-Schulz iteration with the steps, coefficients and scale of Keller Jordan's Muon (2024).
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


RULES: dict[str, tuple[Rule, Init, float]] = {  # rule, initial state, rate of the vectors
    "sgd": (nesterov, init_velocity, 1.0),
    "adamw": (adam, init_moments, 1.0),
    "muon": (muon, init_velocity, MUON_VECTOR_RATE),
}
