"""The networks by name, and the facts about each; needs none of the libraries that build them."""

from dataclasses import dataclass
from importlib.metadata import version

from components.shared.core.errors import UserError, did_you_mean

LENETS = ("lenet5", "lenet5_1998")
LENET_SIZE = 32  # height and width of their images in pixels
TIMM = "timm:"  # prefix of the name of any other network of timm
DEFAULT = "default"  # the activation or pooling of the published network

# Parts whose strides are removed for small images, so that the network divides their size by 8 instead of 32
# (SqueezeNet by 4 instead of 16). A max pooling that is named here is removed.
RESNET = ("conv1", "maxpool")
DENSENET = ("features.conv0", "features.pool0")
INCEPTION = ("features.0", "features.3")
INCEPTION_RESNET = ("conv2d_1a", "maxpool_3a")
XCEPTION = ("conv1", "block1")
NASNET = ("conv0", "cell_stem_0", "cell_stem_1.path_1", "cell_stem_1.path_2")
MOBILENET = SQUEEZENET = ("features.0", "features.2")

# Who measured a top-1 accuracy
V1 = "torchvision, weights V1"
TF_SLIM = "TF-Slim"
AUTHORS = "the authors' weights"
PAPER = "the paper"


@dataclass(frozen=True)
class Network:
    """One network, as published for ImageNet and as a library builds it."""

    title: str
    library: str  # torchvision, timm, or `here` for nasnet.py
    size: int  # height and width of its images in pixels, as published
    parameters: int  # with 1000 classes and three channels
    top1: float  # percent of ImageNet's validation split, one crop
    measured: str  # who measured top1
    paper: str  # on arXiv
    stem: tuple[str, ...]  # the parts without strides for small images
    dropout: float = 0.0  # before the head, as in the paper, if the library's default differs
    smallest: int = 8  # pixels that leave something to convolve; 8 is the pipeline's own limit
    call: str = ""  # the name in the library, if it differs

    def is_small(self, size: int) -> bool:
        """Return whether images of `size` pixels are so small that the stem must not reduce them."""
        return 3 * size < self.size


ZOO = {
    "resnet18": Network("ResNet-18", "torchvision", 224, 11_689_512, 69.76, V1, "1512.03385", RESNET),
    "resnet50": Network("ResNet-50", "torchvision", 224, 25_557_032, 76.13, V1, "1512.03385", RESNET),
    "resnet152": Network("ResNet-152", "torchvision", 224, 60_192_808, 78.31, V1, "1512.03385", RESNET),
    "resnext50_32x4d": Network("ResNeXt-50 32x4d", "torchvision", 224, 25_028_904, 77.62, V1, "1611.05431", RESNET),
    "resnext101_32x8d": Network("ResNeXt-101 32x8d", "torchvision", 224, 88_791_336, 79.31, V1, "1611.05431", RESNET),
    "resnext101_64x4d": Network("ResNeXt-101 64x4d", "torchvision", 224, 83_455_272, 79.6, PAPER, "1611.05431", RESNET),
    "seresnet50": Network("SE-ResNet-50", "timm", 224, 28_088_024, 77.63, AUTHORS, "1709.01507", RESNET),
    "senet154": Network("SENet-154", "timm", 224, 115_088_984, 81.32, AUTHORS, "1709.01507", RESNET, 0.2),
    "densenet121": Network("DenseNet-121", "torchvision", 224, 7_978_856, 74.43, V1, "1608.06993", DENSENET),
    "densenet201": Network("DenseNet-201", "torchvision", 224, 20_013_928, 76.90, V1, "1608.06993", DENSENET),
    "inception_v4": Network("Inception-V4", "timm", 299, 42_679_816, 80.2, TF_SLIM, "1602.07261", INCEPTION, 0.2, 23),
    "inception_resnet_v2": Network(
        "Inception-ResNet-V2", "timm", 299, 55_843_464, 80.4, TF_SLIM, "1602.07261", INCEPTION_RESNET, 0.2, 21
    ),
    "xception": Network(
        "Xception", "timm", 299, 22_855_952, 79.0, PAPER, "1610.02357", XCEPTION, 0.5, call="legacy_xception"
    ),
    "nasnet_a_large": Network(
        "NASNet-A (6 @ 4032)", "timm", 331, 88_753_150, 82.7, PAPER, "1707.07012", NASNET, 0.5, call="nasnetalarge"
    ),
    "nasnet_a_mobile": Network("NASNet-A (4 @ 1056)", "here", 224, 5_289_978, 74.0, PAPER, "1707.07012", NASNET, 0.5),
    "mobilenet_v2": Network("MobileNetV2", "torchvision", 224, 3_504_872, 71.88, V1, "1801.04381", MOBILENET),
    "shufflenet_v2_x1_0": Network("ShuffleNetV2 1x", "torchvision", 224, 2_278_604, 69.36, V1, "1807.11164", RESNET),
    "squeezenet1_1": Network("SqueezeNet 1.1", "torchvision", 224, 1_235_496, 58.18, V1, "1602.07360", SQUEEZENET),
}


def library_version(name: str) -> str:
    """Return the name and version of the library that builds a network; empty if its code is ours."""
    library = "timm" if name.startswith(TIMM) else ZOO[name].library if name in ZOO else "here"
    return "" if library == "here" else f"{library} {version(library)}"


def check(name: str, size: int) -> None:
    """Raise UserError if there is no such network, or it does not accept images of `size` x `size` pixels.

    What timm's other networks accept is known only when they are built.
    """
    check_name(name)
    if name in LENETS and size != LENET_SIZE:
        raise UserError(
            f"{name} accepts images of {LENET_SIZE} x {LENET_SIZE} pixels, not {size} x {size}",
            f"prepare them with image_size={LENET_SIZE}",
        )
    smallest = ZOO[name].smallest if name in ZOO else 0
    if size < smallest:
        raise UserError(
            f"{name} accepts images of {smallest} x {smallest} pixels or more, not {size} x {size}",
            f"prepare them with image_size={smallest} or more",
        )


def check_name(name: str) -> None:
    """Raise UserError if there is no such network; the names behind `timm:` are known only to timm."""
    names = (*LENETS, *ZOO)
    if name not in names and not name.startswith(TIMM):
        raise UserError(
            f"there is no network {name!r}{did_you_mean(name, names)}", f"give one of {', '.join(names)}, or {TIMM}NAME"
        )
