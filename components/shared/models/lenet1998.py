"""LeNet-5 as published: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition",
Proceedings of the IEEE 86 (1998), section II.B.

The paper gives the background of its images the value -0.1 and their ink 1.175. The pipeline normalizes to mean 0 and
standard deviation 1 (on MNIST about -0.4 and 3.2), an affine map of the same values that C1 can learn to undo.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.shared.core.errors import UserError
from components.shared.models.layers import UNCHANGED

NAME = "lenet5_1998"
AMPLITUDE, SLOPE = 1.7159, 2 / 3  # f(1) = 1 and f(-1) = -1, where the curvature is largest
REJECTION = 1.0  # the j of equation 9, whose value the paper does not give
# Table I: the maps of S2 (rows) that each map of C3 (columns) is connected to.
CONNECTIONS = (
    "X...XXX..XXXX.XX",
    "XX...XXX..XXXX.X",
    "XXX...XXX..X.XXX",
    ".XXX..XXXX..X.XX",
    "..XXX..XXXX.XX.X",
    "...XXX..XXXX.XXX",
)
# The digits 0 to 9 in 7 x 12 pixels: the target outputs of the 84 units of F6.
BITMAPS = """
.#####. ...##.. .#####. .#####. ....##. ####### ..####. ####### .#####. .#####.
##...## ..###.. ##...## ##...## ...###. ##..... .##.... ##...## ##...## ##...##
##...## .####.. .....## .....## ..####. ##..... ##..... .....## ##...## ##...##
##...## ...##.. .....## .....## .##.##. ##..... ##..... ....##. ##...## ##...##
##..### ...##.. ....##. .....## ##..##. ######. ##..... ....##. .##.##. ##...##
##.#.## ...##.. ...##.. ..####. ##..##. .....## ######. ...##.. ..###.. .######
###..## ...##.. ..##... .....## ####### .....## ##...## ...##.. .##.##. .....##
##...## ...##.. .##.... .....## ....##. .....## ##...## ..##... ##...## .....##
##...## ...##.. ##..... .....## ....##. .....## ##...## ..##... ##...## .....##
##...## ...##.. ##..... ##...## ....##. ##...## ##...## .##.... ##...## ....##.
##...## ...##.. ##...## ##...## ....##. ##...## ##...## .##.... ##...## ...##..
.#####. .###### ####### .#####. ...#### .#####. .#####. .##.... .#####. .###...
"""
NUM_BITMAPS = 10
OTHER = "give network=lenet5"


class LeNet5Of1998(nn.Module):
    """LeNet-5 with the layers, connections, squashing, output and loss of the paper: 60,000 weights.

    The logits are the negative penalties of the classes, so that their softmax is the posterior probability of the
    paper's maximum a posteriori criterion, given that the image shows one of the classes. The bitmap of a class is that
    of the digit of its index.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        image_shape: Sequence[int],
        activation: str = "default",
        pooling: str = "default",
        bias: bool = True,
    ) -> None:
        """Build it as published. Raises UserError for another `image_shape`, other parts or more than 10 classes."""
        super().__init__()
        _check(num_classes, tuple(image_shape), activation, pooling, bias)
        self.c1 = nn.Conv2d(1, 6, 5)
        self.s2 = Subsampling(6)
        self.c3 = TableConvolution(CONNECTIONS, 5)
        self.s4 = Subsampling(16)
        self.c5 = nn.Linear(16 * 5 * 5, 120)  # its 5 x 5 windows cover all of S4: a full connection
        self.f6 = nn.Linear(120, 84)
        self.output = EuclideanRBF(bitmaps()[:num_classes])
        for layer in (self.c1, self.c5, self.f6):
            for weights in layer.parameters():
                _initialize(weights, fan_in=layer.weight[0].numel())

    def forward(self, x: Tensor) -> Tensor:
        """Map normalized images (float32, N x 1 x 32 x 32) to logits (float32, N x num_classes), none above 0."""
        x = squash(self.s2(squash(self.c1(x))))  # N x 6 x 14 x 14
        x = squash(self.s4(squash(self.c3(x))))  # N x 16 x 5 x 5
        x = squash(self.f6(squash(self.c5(x.flatten(1)))))  # N x 84
        penalties: Tensor = self.output(x)
        return -penalties

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return equation 9, the mean over the batch of y_label + log(exp(-j) + sum of exp(-y_i)), with logits -y.

        It is the cross entropy with one more class, of rubbish, whose penalty is the constant j: classes whose penalty
        is already larger are not pushed away further. `logits` are float32, N x num_classes; `labels` int64, N.
        """
        rubbish = logits.new_full((len(logits), 1), -REJECTION)
        return functional.cross_entropy(torch.cat([logits, rubbish], dim=1), labels)


class Subsampling(nn.Module):
    """The sum of each 2 x 2 window, times a trainable coefficient, plus a trainable bias, one of each per map."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.coefficient, self.bias = (nn.Parameter(torch.empty(maps)) for _ in range(2))
        for weights in self.parameters():
            _initialize(weights, fan_in=4)

    def forward(self, x: Tensor) -> Tensor:
        """Map N x maps x H x W to N x maps x H / 2 x W / 2."""
        kernels = self.coefficient.view(-1, 1, 1, 1).expand(-1, 1, 2, 2)  # faster than a sum of the window
        return functional.conv2d(x, kernels, self.bias, stride=2, groups=len(self.bias))


class TableConvolution(nn.Module):
    """A convolution whose output maps (the columns of a table) see only some of the input maps (its rows).

    `weight` (connections x size x size) holds the kernels of the connections only, column by column.
    """

    def __init__(self, table: Sequence[str], size: int) -> None:
        super().__init__()
        columns = ["".join(marks) for marks in zip(*table, strict=True)]
        sources = [column.count("X") for column in columns]
        connected = torch.tensor([mark == "X" for column in columns for mark in column])
        self.kernel_indices: Tensor  # for each pair of maps; one past the last if they are not connected
        kernel_indices = torch.where(connected, connected.cumsum(0) - 1, sum(sources))
        self.register_buffer("kernel_indices", kernel_indices, persistent=False)
        self.weight = nn.Parameter(torch.empty(sum(sources), size, size))
        self.bias = nn.Parameter(torch.empty(len(columns)))
        for kernels, bias, count in zip(torch.split(self.weight, sources), self.bias, sources, strict=True):
            _initialize(kernels, fan_in=count * size**2)
            _initialize(bias, fan_in=count * size**2)

    def forward(self, x: Tensor) -> Tensor:
        """Map N x rows x H x W to N x columns x H - size + 1 x W - size + 1."""
        kernels = functional.pad(self.weight, (0, 0, 0, 0, 0, 1)).index_select(
            0, self.kernel_indices
        )  # zeros past the last
        return functional.conv2d(x, kernels.view(len(self.bias), -1, *self.weight.shape[1:]), self.bias)


class EuclideanRBF(nn.Module):
    """The squared Euclidean distances to fixed centres (units x F): the penalties y_i of the classes."""

    def __init__(self, centres: Tensor) -> None:
        super().__init__()
        self.centres: Tensor
        self.register_buffer("centres", centres)

    def forward(self, x: Tensor) -> Tensor:
        """Map N x F to N x units."""
        return (x[:, None] - self.centres).square().sum(dim=2)


def squash(x: Tensor) -> Tensor:
    """Apply the paper's scaled hyperbolic tangent."""
    return AMPLITUDE * torch.tanh(SLOPE * x)


def bitmaps() -> Tensor:
    """Return the digits as centres of the output (float32, 10 x 84): +1 for ink, -1 for paper, row by row."""
    rows = [line.split() for line in BITMAPS.split("\n") if line]
    pictures = ["".join(row[digit] for row in rows) for digit in range(NUM_BITMAPS)]
    return torch.tensor([[1.0 if mark == "#" else -1.0 for mark in picture] for picture in pictures])


@torch.no_grad()
def _initialize(weights: Tensor, fan_in: int) -> None:
    """Draw weights uniformly from -2.4 / fan_in to 2.4 / fan_in."""
    weights.uniform_(-2.4 / fan_in, 2.4 / fan_in)


def _check(num_classes: int, image_shape: tuple[int, ...], activation: str, pooling: str, bias: bool) -> None:
    if image_shape[0] != 1:
        raise UserError(f"{NAME} accepts grey images, not images of {image_shape[0]} channels", OTHER)
    if num_classes > NUM_BITMAPS:
        raise UserError(f"{NAME} has bitmaps of {NUM_BITMAPS} digits, too few for {num_classes} classes", OTHER)
    for name, given in (("activation", activation), ("pooling", pooling)):
        if given not in UNCHANGED:
            raise UserError(
                f"{NAME} is as published and has no {name}={given}", f"give {name}=default or network=lenet5"
            )
    if not bias:
        raise UserError(f"{NAME} is as published and has biases, not bias=False", "give bias=True or network=lenet5")
