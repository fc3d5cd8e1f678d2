"""The names of images: by digest if the present code was pushed, else by its version."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from components.shared.container_images import NAMES, image, image_version, is_pinned
from components.shared.core.errors import UserError

DIGEST = f"registry.example.org/torch2kubeflow/data@sha256:{'a' * 64}"


def _pushed(path: Path, version: str, names: Sequence[str] = NAMES) -> Path:
    path.write_text(json.dumps({"version": version, "images": dict.fromkeys(names, DIGEST)}))
    return path


def test_a_pushed_image_is_named_by_its_digest(tmp_path: Path) -> None:
    name = image("data", _pushed(tmp_path / "images.json", image_version()))
    assert name == DIGEST
    assert is_pinned(name)


def test_an_image_of_other_code_is_not_taken(tmp_path: Path) -> None:
    for names in (NAMES, ("data", "torch")):  # as earlier versions had them
        name = image("data", _pushed(tmp_path / "images.json", "000000000000", names))
        assert name == f"torch2kubeflow/data:{image_version()}"
        assert not is_pinned(name)


def test_a_push_of_fewer_images_by_earlier_code_is_no_damage(tmp_path: Path) -> None:
    earlier = _pushed(tmp_path / "images.json", "000000000000", ("data", "torch"))
    assert image("serve", earlier) == f"torch2kubeflow/serve:{image_version()}"
    with pytest.raises(UserError, match=r"images\.json is damaged"):
        image("data", _pushed(tmp_path / "images.json", image_version(), ("data", "torch")))


def test_without_a_push_the_tag_follows_the_code(tmp_path: Path) -> None:
    assert image("torch", tmp_path / "images.json") == f"torch2kubeflow/torch:{image_version()}"


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"version": [], "images": {"data": 1}}', f'{{"version": [], "images": {{"data": "{DIGEST}"}}}}'],
)
def test_a_damaged_record_of_a_push_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "images.json").write_text(text)
    with pytest.raises(UserError, match=r"images\.json is damaged; delete it, and run `make push` again"):
        image("data", tmp_path / "images.json")


def test_a_record_without_one_of_the_images_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"images\.json is damaged"):
        image("data", _pushed(tmp_path / "images.json", image_version(), ("data", "torch")))
