"""What a training starts from: pytest tests/training/test_initialize.py"""

import os
from pathlib import Path

import pytest
import torch

from components.shared.core.errors import UserError
from components.shared.core.files import sha256_file
from components.shared.storage.client import open_store
from tests.servers.s3_server import BUCKET, S3Server
from tests.trained_digits import read_weights, trained

PLAIN = {"rotation": 0.0, "shift": 0.0, "scale": 0.0, "shear": 0.0}


@pytest.mark.slow
def test_training_starts_from_pretrained_weights(small_digits: Path, tmp_path: Path) -> None:
    network = {"network": "squeezenet1_1", "optimizer": "sgd", "learning_rate": 0.001, "epochs": 1, **PLAIN}
    trained(small_digits, tmp_path / "first", **network)
    given = {"pretrained": str(tmp_path / "first"), "frozen_stages": 3}
    model = trained(small_digits, tmp_path / "second", **network, **given)
    before, after = read_weights(tmp_path / "first"), read_weights(tmp_path / "second")
    same = {name for name in before if before[name].equal(after[name])}
    assert "features.0.weight" in same and "features.12.squeeze.weight" not in same
    assert model.document.pretrained_sha256 == sha256_file(tmp_path / "first/model.safetensors")
    with pytest.raises(UserError, match="frozen_stages=99 is more than the "):
        trained(small_digits, tmp_path / "third", **network, frozen_stages=99)


@pytest.mark.slow  # needs the real server
def test_pretrained_weights_come_from_a_store_and_are_checked(
    digits: Path, tmp_path: Path, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    trained(digits, tmp_path / "first", epochs=1)
    store = open_store(f"s3://{BUCKET}/pretrained", os.environ)
    for name in ("model.safetensors", "model.json"):
        store.put_file(tmp_path / "first" / name, f"3/{name}")
    digest = sha256_file(tmp_path / "first/model.safetensors")
    for uri in (store.uri("3"), store.uri("3/model.safetensors") + f"#sha256={digest}"):
        model = trained(digits, tmp_path / "second", epochs=1, pretrained=uri)
        assert model.document.pretrained_sha256 == digest
    with pytest.raises(UserError, match="differs from its digest"):
        trained(digits, tmp_path / "third", epochs=1, pretrained=store.uri("3") + f"#sha256={'0' * 64}")
    with pytest.raises(UserError, match=r"pretrained weights cannot be fetched: .*/4/model\.safetensors"):
        trained(digits, tmp_path / "third", epochs=1, pretrained=store.uri("4"))


@pytest.mark.slow
def test_the_network_is_compiled_when_asked(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[torch.nn.Module] = []

    def compile_network(network: torch.nn.Module) -> torch.nn.Module:
        compiled.append(network)
        return network

    monkeypatch.setattr(torch, "compile", compile_network)
    trained(digits, tmp_path / "model", epochs=1)
    assert not compiled
    trained(digits, tmp_path / "model", epochs=1, torch_compile=True)
    assert len(compiled) == 1
    monkeypatch.setenv("CXX", "no-compiler")
    with pytest.raises(
        UserError, match=r'^torch_compile=True needs no-compiler, .* make images COMPILERS="gcc g\+\+"$'
    ):
        trained(digits, tmp_path / "refused", epochs=1, torch_compile=True)
