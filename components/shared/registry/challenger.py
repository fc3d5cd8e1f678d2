"""Is a challenger better than the champion? McNemar's test on the test images that each classifies correctly.

A champion that was evaluated on another test split is scored on the challenger's first, by ONNX Runtime.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.shared.core import log
from components.shared.core.errors import CorruptDataError, UserError
from components.shared.data.dataset import Dataset
from components.shared.evaluation.inference import batch_size, load_onnx, predict
from components.shared.evaluation.mcnemar import mcnemar
from components.shared.evaluation.memory_probe import check_need, measure_need
from components.shared.registry.champion import Verdict, times_decided
from components.shared.registry.document import Figures, RegistryDocument
from components.shared.registry.registry import RegisteredModel
from components.shared.storage.errors import NoSuchObject, Unreadable


class Incomparable(Exception):
    """Two versions cannot be compared on the same images; the text gives the reason."""


def digest_of_test_split(data: Dataset) -> str:
    """Return the digest that identifies the test split of a dataset."""
    return data.document.splits["test"].digest


def champion_judge(
    model: RegisteredModel,
    version: int,
    data: Dataset,
    predictions: NDArray[np.float32],
    significance: float,
    threads: int,
    scratch: Path,
) -> Callable[[RegistryDocument], Verdict]:
    """Return a function that decides by the registry document whether `version` replaces the champion.

    It is called again if the document has changed meanwhile, and scores each champion only once. `predictions` are the
    challenger's probabilities (float32, N x classes) on the test split of `data`.
    """

    @cache
    def score(champion: int) -> tuple[NDArray[np.bool_], bool]:
        return _score_champion(model, champion, data, threads, scratch)

    def judge(registry: RegistryDocument) -> Verdict:
        champion = registry.champion
        if champion is None:
            return Verdict(True, None, "there was no champion before")
        try:
            theirs, rescored = score(champion)
        except (Incomparable, NoSuchObject) as error:
            command = f"python pipeline.py models promote {model.name} {version}"
            return Verdict(False, None, f"not compared: {error}; to make it the champion anyway: {command}")
        ours = _correct(predictions, data)
        n01, n10, p_value = mcnemar(theirs, ours)
        figures = Figures(
            champion=champion,
            champion_accuracy=float(theirs.mean()),
            challenger_accuracy=float(ours.mean()),
            images=len(ours),
            n01=n01,
            n10=n10,
            p_value=p_value,
            significance=float(significance),
            rescored=rescored,
            decided_before=times_decided(registry.decisions, digest_of_test_split(data)),
        )
        return Verdict(figures.challenger_wins, figures, figures.reason)

    return judge


def _correct(predictions: NDArray[np.float32], data: Dataset) -> NDArray[np.bool_]:
    """Return which test images (bool, N) are classified correctly by probabilities (float32, N x classes)."""
    correct: NDArray[np.bool_] = predictions.argmax(axis=1) == data.labels("test")
    return correct


def _score_champion(
    model: RegisteredModel, champion: int, data: Dataset, threads: int, scratch: Path
) -> tuple[NDArray[np.bool_], bool]:
    """Return which test images (bool, N) the champion classifies correctly, and whether it had to be scored on them."""
    try:
        document = model.read_version(champion)
        if document.classes != data.classes:
            raise Incomparable(f"version {champion} has other classes")
        shape = document.input.sizes
        if shape != list(data.image_shape):
            raise Incomparable(f"version {champion} reads images of shape {shape}, not {list(data.image_shape)}")
        keep = document.provenance.data.parameters.get("keep", "raw")
        if keep != data.document.keep:
            raise Incomparable(f"version {champion} was trained with keep={keep}, not {data.document.keep}")
        if document.provenance.test_split_digest == digest_of_test_split(data):
            return _correct(model.versions.read_predictions(document, data.counts["test"]), data), False
        path = scratch / "model.onnx"
        model.versions.download(document, model.versions.onnx_path, path)
    except (CorruptDataError, Unreadable) as error:
        raise Incomparable(str(error)) from None
    return _correct(_predict(champion, path, data, threads), data), True


def _predict(champion: int, path: Path, data: Dataset, threads: int) -> NDArray[np.float32]:
    """Return the champion's probabilities on the test split, by its ONNX file at `path`, which is then deleted."""
    log.info(f"the test split has changed: scoring version {champion} on it")
    progress = log.Progress("scoring", data.counts["test"], "images")
    try:
        classify, batch = load_onnx(path, threads), min(batch_size(data.image_shape), data.counts["test"])
        check_need([measure_need(classify, data.image_shape, batch)], "it", data.image_shape, batch)
        found = predict(classify, data, progress)
    except UserError as error:
        raise Incomparable(f"version {champion} cannot be scored on the new test split: {error}") from None
    finally:
        path.unlink()
    if found.shape != (data.counts["test"], len(data.classes)):
        raise Incomparable(f"version {champion} returns probabilities of shape {found.shape}")
    return found
