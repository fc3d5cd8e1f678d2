"""Build a network by its name; `catalogue.py` lists what is known of each without building it."""

from torch import nn

from components.shared.models import catalogue, zoo
from components.shared.models.document import Architecture
from components.shared.models.lenet import LeNet5
from components.shared.models.lenet1998 import LeNet5Of1998

NETWORKS: dict[str, type[nn.Module]] = {"lenet5": LeNet5, "lenet5_1998": LeNet5Of1998}


def build(architecture: Architecture) -> nn.Module:
    """Build the network of this name; the other members are the arguments of its class or of `zoo.build`.

    The weights are random, drawn from torch's generator. Raises UserError if the name is unknown or the network refuses
    the image shape.
    """
    arguments = dict(architecture)
    name = arguments.pop("name")
    catalogue.check(name, architecture.image_shape[1])
    return NETWORKS[name](**arguments) if name in NETWORKS else zoo.build(name, **arguments)
