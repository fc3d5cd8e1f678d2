"""The rules about several parameters."""

import pytest

from components.shared.core.errors import UserError
from components.shared.parameters.table import Parameters


def test_a_network_is_known_and_takes_the_image_size() -> None:
    Parameters.of(network="lenet5", image_size=32)
    with pytest.raises(UserError, match="there is no network 'lenet6'"):
        Parameters.of(network="lenet6")
    with pytest.raises(UserError, match="lenet5 accepts images of 32 x 32 pixels"):
        Parameters.of(network="lenet5", image_size=64)
