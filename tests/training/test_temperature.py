"""The temperature that calibrates a network: against SciPy's search, its bounds, and in a trained model."""

from pathlib import Path

import numpy as np
import pytest
import torch

from components.shared.data.dataset import open_dataset
from components.shared.evaluation.classifier import Classifier, on_arrays
from components.shared.models.normalize import normalize
from components.shared.training import temperature as scaling
from tests.trained_digits import trained

RANDOM = np.random.default_rng(0)


def _logits(scale: float, images: int = 5000) -> tuple[np.ndarray, np.ndarray]:
    """Return logits that are `scale` times those of their labels' distribution."""
    true = RANDOM.normal(size=(images, 10)) * 2
    labels = (true + RANDOM.gumbel(size=true.shape)).argmax(axis=1)
    return (true * scale).astype(np.float32), labels


@pytest.mark.parametrize("scale", [0.4, 1, 3])
def test_the_temperature_has_the_least_log_loss(scale: float) -> None:
    from scipy.optimize import minimize_scalar  # which takes half a second
    from scipy.special import log_softmax

    logits, labels = _logits(scale)

    def log_loss(temperature: float) -> float:
        return float(-log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels].mean())

    expected = minimize_scalar(log_loss, bounds=(0.2, 5), method="bounded", options={"xatol": 1e-6}).x
    assert scaling.fit_temperature(logits, labels) == pytest.approx(expected, abs=3e-4)
    assert expected == pytest.approx(scale, rel=0.1)


@pytest.mark.parametrize(("scale", "bound"), [(0.01, 0.2), (100, 5)])
def test_the_temperature_stays_within_its_bounds(scale: float, bound: float) -> None:
    assert scaling.fit_temperature(*_logits(scale)) == pytest.approx(bound, abs=1e-3)
    assert 0.2 <= scaling.fit_temperature(*_logits(scale)) <= 5


def test_a_model_divides_its_logits_by_the_temperature(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("components.shared.training.loop.FEWEST", 1)
    model, data = trained(digits, tmp_path / "model", epochs=2, label_smoothing=0.2), open_dataset(digits)
    temperature = model.document.temperature
    assert 0.2 <= temperature < 1, "smoothed labels make a network less confident than it is right"
    assert f"calibrated on the val split: temperature {temperature:g}" in capsys.readouterr().out
    images = np.concatenate([np.array(part) for part, _ in data.shards("test")])
    with torch.no_grad():
        logits = model.module(normalize(torch.from_numpy(images), model.mean, model.std))
    found = on_arrays(Classifier(model))(images)
    assert np.allclose(found, (logits / temperature).softmax(dim=1), atol=1e-6)
    assert (found.argmax(axis=1) == logits.numpy().argmax(axis=1)).all()


def test_a_small_val_split_is_not_fitted(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert trained(digits, tmp_path / "model").document.temperature == 1
    assert f"not calibrated: the val split has fewer than {scaling.FEWEST} images" in capsys.readouterr().out
