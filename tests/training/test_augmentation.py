"""The augmentation of whole batches: pytest tests/training/test_augmentation.py"""

from typing import Any

import pytest
import torch
from torch import Tensor

from components.shared.training.augmentation import draw_maps, draw_mix, mixed, warp

NONE: dict[str, Any] = {"rotation": 0.0, "shift": 0.0, "scale": 0.0, "shear": 0.0, "flip": False}


def moved(images: Tensor, seed: int = 0, **limits: Any) -> Tensor:
    return warp(images, draw_maps(len(images), torch.Generator().manual_seed(seed), **{**NONE, **limits}))


def dots(count: int, height: int, width: int, up: int, left: int) -> Tensor:
    """Images (count x 1 x height x width) of one dot so far up and left of the centre, 3 pixels wide."""
    images = torch.zeros(count, 1, height, width)
    y, x = height // 2 - up, width // 2 - left
    images[:, :, y - 1 : y + 2, x - 1 : x + 2] = 1
    return images


def offsets(images: Tensor) -> Tensor:
    """The centre of mass (count x 2: down, right), in pixels from (height // 2, width // 2)."""
    mass = images[:, 0] / images.sum(dim=(1, 2, 3)).view(-1, 1, 1)
    rows, columns = (torch.arange(n) - n // 2 for n in images.shape[2:])
    return torch.stack([(mass.sum(2) * rows).sum(1), (mass.sum(1) * columns).sum(1)], dim=1)


def test_limits_of_0_return_the_images_as_they_are() -> None:
    images = torch.rand(2, 1, 8, 8)
    assert moved(images) is images


def test_equal_seeds_give_equal_augmentations() -> None:
    images = torch.rand(4, 1, 16, 16)
    limits: dict[str, Any] = {"rotation": 10.0, "shift": 2.0, "scale": 0.1, "shear": 0.1}
    assert moved(images, **limits).equal(moved(images, **limits))
    assert not moved(images, **limits).equal(moved(images, seed=1, **limits))


def test_shifts_differ_within_their_limit() -> None:
    found = offsets(moved(dots(200, 24, 40, up=0, left=0), shift=3.0))
    assert found.abs().max() <= 3.01
    assert (found.abs().amax(dim=0) > 2.5).all() and (found.std(dim=0) > 1).all()


def test_rotations_of_wide_images_stay_within_their_limit() -> None:
    start = torch.tensor([-7.5, 0.5])  # the dot of `dots`, from the centre of the image between four pixels
    found = offsets(moved(dots(200, 24, 40, up=8, left=0), rotation=30.0)) + 0.5
    assert torch.allclose(found.norm(dim=1), start.norm(), atol=0.1)
    angles = torch.rad2deg(torch.acos((found @ start) / found.norm(dim=1) / start.norm()))
    assert 28 < angles.max() <= 31


def test_scales_differ_within_their_limit() -> None:
    found = offsets(moved(dots(200, 40, 40, up=8, left=8), scale=0.2)) + 0.5
    assert (found < -7.5 / 1.2 + 0.2).all() and (found > -7.5 / 0.8 - 0.2).all()
    assert (found.std(dim=0) > 0.5).all()


def test_a_shear_moves_rows_sideways() -> None:
    down, right = (offsets(moved(dots(200, 40, 40, up=8, left=0), shear=0.5)) + 0.5).unbind(1)
    assert torch.allclose(down, torch.tensor(-7.5), atol=0.1)
    assert 3 < (right - 0.5).abs().max() < 0.5 * 7.5 + 0.2


def test_pixels_from_outside_repeat_the_border() -> None:
    plain = torch.full((20, 1, 16, 16), 0.7)
    assert torch.allclose(moved(plain, rotation=45.0, shift=5.0, scale=0.3, shear=0.3), plain)


@pytest.mark.parametrize("limit", NONE)
def test_each_limit_alone_changes_the_images(limit: str) -> None:
    images = torch.rand(3, 2, 16, 16)
    result = moved(images, **dict[str, Any]({limit: 0.5}))
    assert result.shape == images.shape and not result.equal(images)


def test_half_of_the_images_are_mirrored() -> None:
    images = torch.rand(200, 1, 8, 8)
    turned = moved(images, flip=True)
    is_mirrored = torch.isclose(turned, images.flip(3), atol=1e-5).flatten(1).all(1)
    is_same = torch.isclose(turned, images, atol=1e-5).flatten(1).all(1)
    assert (is_mirrored ^ is_same).all() and 70 < is_mirrored.sum() < 130


def test_mixup_blends_each_image_with_the_next() -> None:
    mix = draw_mix(torch.Generator().manual_seed(0), mixup=0.4, cutmix=0.0, height=8, width=8)
    images = torch.rand(3, 1, 8, 8)
    assert mix and 0 <= mix.share <= 1
    assert torch.allclose(mixed(images, mix), images * mix.share + images[[1, 2, 0]] * (1 - mix.share))


def test_cutmix_pastes_a_box_of_the_next_image_of_its_share() -> None:
    generator, areas = torch.Generator().manual_seed(0), set()
    for _ in range(20):
        mix = draw_mix(generator, mixup=0.0, cutmix=1.0, height=8, width=6)
        found = mixed(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).repeat(1, 3, 8, 6), mix) if mix else torch.empty(0)
        assert mix and found[0].mean().item() == pytest.approx(1 - mix.share)
        assert found[1].mean().item() == pytest.approx(mix.share)
        areas.add(mix.share)
    assert len(areas) > 5
    assert draw_mix(generator, mixup=0.0, cutmix=0.0, height=8, width=6) is None
