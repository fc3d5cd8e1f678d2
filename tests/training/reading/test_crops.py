"""Random crops lie in the picture, and are a function of seed, epoch and picture alone."""

import io
import math
import random

import numpy as np
import pytest
import torch
from PIL import Image

from components.shared.core.errors import CorruptDataError
from components.shared.training.reading.crops import AREA, ASPECT, Box, RandomCrops, draw_box
from tests.kept_pictures import cut


def encoded(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG")
    return file.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), [(256, 341), (500, 256), (40, 40)])
def test_crops_are_drawn_as_by_torchvision(width: int, height: int) -> None:
    from torchvision.transforms import RandomResizedCrop  # takes seconds, and Triton along

    boxes = [draw_box(width, height, (0, 1, number)) for number in range(1000)]
    assert all(0 <= box.left <= width - box.width and 0 <= box.top <= height - box.height for box in boxes)
    assert all(box.width > 0 and box.height > 0 for box in boxes)
    random.seed(0)
    torch.manual_seed(0)
    picture = torch.empty(1, height, width)
    others = [RandomResizedCrop.get_params(picture, [*AREA], [*ASPECT]) for _ in boxes]
    found, expected = (
        np.array([(w * h / (width * height), math.log(w / h), x / width, y / height) for y, x, h, w in drawn])
        for drawn in ([(box.top, box.left, box.height, box.width) for box in boxes], others)
    )
    share = np.linspace(0.05, 0.95, 10)
    assert abs(np.quantile(found, share, axis=0) - np.quantile(expected, share, axis=0)).max() < 0.1


def test_a_picture_in_which_no_crop_fits_gives_its_middle() -> None:
    assert draw_box(1000, 10, (0, 1, 2)) == Box(493, 0, 13, 10)
    assert draw_box(10, 1000, (0, 1, 2)) == Box(0, 493, 10, 13)


def test_a_crop_depends_on_seed_epoch_and_picture_alone() -> None:
    pictures = [encoded(cut(number, 0)) for number in range(6)]
    crops, numbers = RandomCrops((3, 16, 16), seed=3), [5, 8, 13, 21, 34, 55]
    whole = crops.decode(pictures, numbers, 2)
    assert whole.shape == (6, 3, 16, 16) and whole.dtype == torch.uint8
    assert RandomCrops((3, 16, 16), seed=3).decode(pictures[:1:-1], numbers[:1:-1], 2).equal(whole[2:].flip(0))
    others = (
        crops.decode(pictures, numbers, 3),
        crops.decode(pictures, [1 + number for number in numbers], 2),
        RandomCrops((3, 16, 16), seed=4).decode(pictures, numbers, 2),
    )
    assert not any(other[place].equal(whole[place]) for other in others for place in range(6))


def test_gray_pictures_have_the_channels_of_the_data_set() -> None:
    pictures = [encoded(cut(1, 0).convert("L")), encoded(cut(1, 0).convert("L").convert("RGB"))]
    wide = RandomCrops((3, 16, 16), seed=0).decode(pictures, [0, 0], 1)
    narrow = RandomCrops((1, 16, 16), seed=0).decode(pictures, [0, 0], 1)
    assert narrow[0].equal(narrow[1]) and wide.equal(narrow.expand(2, 3, 16, 16))


def test_a_crop_shows_what_is_in_its_box() -> None:
    picture = cut(1, 1)
    (crop,) = RandomCrops((3, 16, 16), seed=0).decode([encoded(picture)], [7], 1)
    left, top, width, height = draw_box(*picture.size, (0, 1, 7))
    with Image.open(io.BytesIO(encoded(picture))) as decoded:
        part = decoded.crop((left, top, left + width, top + height)).resize((16, 16), Image.Resampling.BILINEAR)
    assert abs(crop.permute(1, 2, 0).numpy().astype(int) - np.asarray(part)).max() <= 1


def test_a_damaged_picture_is_reported() -> None:
    with pytest.raises(CorruptDataError, match=r"^a picture cannot be decoded \(.*; prepare the dataset again"):
        RandomCrops((3, 16, 16), seed=0).decode([b"no picture"], [0], 1)
