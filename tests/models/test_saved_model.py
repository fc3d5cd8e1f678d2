"""The folder that stores a trained network: pytest tests/models/test_saved_model.py"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from components.shared.core.errors import UserError
from components.shared.core.files import sha256_file, sha256_json
from components.shared.models import factory, saved_model
from tests.models.documents import LENET, architecture, epoch, facts, history


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    saved_model.save(tmp_path, factory.build(LENET), history(), **facts(LENET))
    return tmp_path


def rewrite(folder: Path, **fields: Any) -> None:
    """Change model.json as a careful forger would: with a right checksum."""
    document = {**json.loads((folder / "model.json").read_text()), **fields}
    del document["checksum"]
    (folder / "model.json").write_text(json.dumps({**document, "checksum": sha256_json(document)}))


def test_a_saved_model_gives_the_same_logits_when_loaded(tmp_path: Path) -> None:
    network, images = factory.build(LENET), torch.rand(4, 1, 32, 32)
    saved_model.save(tmp_path, network.to(memory_format=torch.channels_last), history(), **facts(LENET))
    model = saved_model.load(tmp_path)
    assert torch.allclose(model.module(images), network(images), atol=1e-6)
    assert not model.module.training
    assert (model.classes, model.image_shape) == (list("0123456789"), (1, 32, 32))
    assert model.mean.tolist() == pytest.approx([0.1]) and model.std.tolist() == pytest.approx([0.3])


def test_weights_are_as_readable_as_their_document(saved: Path) -> None:
    assert (saved / "model.safetensors").stat().st_mode == (saved / "model.json").stat().st_mode


@pytest.mark.parametrize("name", ["model.json", "history.json", "model.safetensors"])
def test_a_folder_without_one_of_its_files_is_refused(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        saved_model.load(saved)


def test_changed_weights_are_refused(saved: Path) -> None:
    weights = bytearray((saved / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (saved / "model.safetensors").write_bytes(weights)
    with pytest.raises(UserError, match="differs from its digest"):
        saved_model.load(saved)


def test_a_changed_document_is_refused(saved: Path) -> None:
    path = saved / "model.json"
    path.write_text(path.read_text().replace('"relu"', '"tanh"'))
    with pytest.raises(UserError, match="differs from its checksum"):
        saved_model.load(saved)


@pytest.mark.parametrize("key", [None, "0" * 63, "../" + "0" * 61, "0" * 64 + "\n"])
def test_a_checkpoint_key_that_is_not_a_digest_is_refused(saved: Path, key: object) -> None:
    rewrite(saved, checkpoint_key=key)
    with pytest.raises(UserError, match=r"model\.json has no valid field 'checkpoint_key'"):
        saved_model.load(saved)


def test_weights_of_another_shape_are_refused_by_name(saved: Path) -> None:
    rewrite(saved, architecture=dict(architecture(num_classes=7)), classes=list("abcdefg"))
    with pytest.raises(UserError, match=r"\(10,\) as output\.bias, .* has \(7,\)"):
        saved_model.load(saved)


def test_missing_and_unknown_weights_are_refused_by_name(saved: Path) -> None:
    save_file({"c1.weight": torch.zeros(6, 1, 5, 5), "stranger": torch.zeros(1)}, saved / "model.safetensors")
    rewrite(saved, weights_sha256=sha256_file(saved / "model.safetensors"))
    with pytest.raises(UserError, match=r"nothing as c1\.bias"):
        saved_model.load(saved)


def test_a_file_that_is_not_safetensors_is_refused(saved: Path) -> None:
    (saved / "model.safetensors").write_bytes(b"pickle")
    rewrite(saved, weights_sha256=sha256_file(saved / "model.safetensors"))
    with pytest.raises(UserError, match="is not a safetensors file"):
        saved_model.load(saved)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"epochs": [epoch(2).model_dump()]}, "epochs"),
        ({"epochs": [{**epoch().model_dump(), "val_loss": "low"}]}, r"epochs\.0\.val_loss"),
        ({"best_epoch": 2}, "best_epoch"),
        ({"seconds": {}}, r"seconds\.train"),
    ],
)
def test_a_history_of_no_whole_training_is_refused(saved: Path, changes: dict[str, Any], field: str) -> None:
    path = saved / "history.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(UserError, match=f"history.json has no valid field '{field}'; train the model again"):
        saved_model.load(saved)
