"""NASNet-A for mobile devices, 4 @ 1056, from the cells of timm's NASNet-A large: Zoph, Vasudevan, Shlens and Le,
"Learning Transferable Architectures for Scalable Image Recognition", CVPR 2018."""

from timm.models.nasnet import NASNetALarge
from torch import Tensor


class NASNetAMobile(NASNetALarge):
    """NASNet-A with four normal cells between reductions instead of six, and a quarter of the large one's filters.

    As in TF-Slim, a cell after a reduction sees the input of the reduction besides its output; in the large network it
    sees the cell before that.
    """

    def __init__(self, *, num_classes: int, in_chans: int, drop_rate: float) -> None:
        super().__init__(
            num_classes=num_classes,
            in_chans=in_chans,
            drop_rate=drop_rate,
            stem_size=32,
            num_features=1056,
            channel_multiplier=2,
        )
        for number in (4, 5, 10, 11, 16, 17):
            delattr(self, f"cell_{number}")

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (N x C x H x W) to features (N x 1056 x H/32 x W/32)."""
        first = self.conv0(x)
        previous = self.cell_stem_0(first)
        x = self.cell_stem_1(first, previous)
        for numbers, reduction in (
            ((0, 1, 2, 3), self.reduction_cell_0),
            ((6, 7, 8, 9), self.reduction_cell_1),
            ((12, 13, 14, 15), None),
        ):
            for number in numbers:
                x, previous = self.get_submodule(f"cell_{number}")(x, previous), x
            if reduction is not None:
                x, previous = reduction(x, previous), x
        features: Tensor = self.act(x)
        return features
