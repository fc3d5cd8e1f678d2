"""The rules about several parameters."""

import pytest

from components.shared.core.errors import UserError
from components.shared.parameters.preparation import PreprocessRecipe
from components.shared.parameters.table import Parameters


def test_a_network_is_known_and_takes_the_image_size() -> None:
    Parameters.of(network="lenet5", image_size=32)
    with pytest.raises(UserError, match="there is no network 'lenet6'"):
        Parameters.of(network="lenet6")
    with pytest.raises(UserError, match="lenet5 accepts images of 32 x 32 pixels"):
        Parameters.of(network="lenet5", image_size=64)


def test_pixels_without_files_are_not_kept_as_jpeg() -> None:
    Parameters.of(data="s3://bucket/photos", keep="jpeg")
    for data in ("mnist", "cifar10", "digits"):
        with pytest.raises(UserError, match=f"keep=jpeg, but data={data} has pixels and no files .*; give keep=raw"):
            Parameters.of(data=data, keep="jpeg")


def test_what_is_kept_determines_a_dataset_only_if_it_is_set() -> None:
    assert "keep" not in PreprocessRecipe.of().determining()
    assert "keep" not in PreprocessRecipe.of(keep="raw").determining()
    assert PreprocessRecipe.of(keep="jpeg").determining()["keep"] == "jpeg"
