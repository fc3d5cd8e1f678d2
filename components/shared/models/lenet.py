"""LeNet-5, the network of LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition",
Proceedings of the IEEE 86 (1998), section II.B."""

from collections.abc import Sequence

from torch import Tensor, nn

from components.shared.models.layers import ACTIVATIONS, POOLINGS, UNCHANGED


class LeNet5(nn.Module):
    """LeNet-5 by the paper's layer names: C1, S2, C3, S4, C5, F6 and the output, on normalized images of 32 x 32.

    Four things differ from 1998: C3 is connected to all maps of S2; the subsampling layers have no trainable
    coefficients; there is one activation after each pair of convolution and subsampling (with max pooling, the same as
    one between them, and less work); the output is linear (logits) instead of Euclidean radial basis functions. With
    biases, one channel and 10 classes it has 61,706 weights.
    """

    def __init__(
        self, *, num_classes: int, image_shape: Sequence[int], activation: str, pooling: str, bias: bool
    ) -> None:
        """Build it for `image_shape` (C, 32, 32), by default with ReLU and max pooling."""
        super().__init__()
        channels = image_shape[0]
        self.c1 = nn.Conv2d(channels, 6, 5, bias=bias)
        pool = POOLINGS["max" if pooling in UNCHANGED else pooling]
        self.s2 = pool(2)
        self.c3 = nn.Conv2d(6, 16, 5, bias=bias)
        self.s4 = pool(2)
        self.c5 = nn.Linear(16 * 5 * 5, 120, bias=bias)  # its 5 x 5 windows cover all of S4: a full connection
        self.f6 = nn.Linear(120, 84, bias=bias)
        self.output = nn.Linear(84, num_classes, bias=bias)
        self.activation = ACTIVATIONS["relu" if activation in UNCHANGED else activation]()

    def forward(self, x: Tensor) -> Tensor:
        """Map normalized images (float32, N x C x 32 x 32) to logits (float32, N x num_classes)."""
        x = self.activation(self.s2(self.c1(x)))  # N x 6 x 14 x 14
        x = self.activation(self.s4(self.c3(x)))  # N x 16 x 5 x 5
        x = self.activation(self.c5(x.flatten(1)))  # N x 120
        logits: Tensor = self.output(self.activation(self.f6(x)))
        return logits
