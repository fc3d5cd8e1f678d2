"""A trained model and what it predicts on the test split, as steps evaluate and export both need them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.data.dataset import Dataset, Labels, open_dataset
from components.shared.evaluation.classifier import Classifier, on_arrays
from components.shared.evaluation.inference import batch_size, predict
from components.shared.evaluation.memory_probe import check_need, measure_need
from components.shared.models import saved_model


def open_trained(dataset: str | Path, model: str | Path) -> tuple[Dataset, saved_model.Model]:
    """Open a dataset and a model. Raises UserError if the model was trained on another dataset."""
    data, trained = open_dataset(dataset), saved_model.load(model)
    if trained.document.dataset_digest != data.digest:
        raise UserError(
            f"{model} was trained on the dataset {trained.document.dataset_digest}, not on {data.digest} in {dataset}",
            "give the dataset it was trained on",
        )
    return data, trained


def predict_test_split(classifier: Classifier, data: Dataset) -> tuple[NDArray[np.float32], Labels]:
    """Return the probabilities that PyTorch predicts (float32, N x classes), and the labels (int64, N).

    Raises UserError if the memory is too small.
    """
    labels = data.labels("test")
    batch = min(batch_size(data.image_shape), len(labels))
    check_need([measure_need(on_arrays(classifier), data.image_shape, batch)], classifier.name, data.image_shape, batch)
    progress = log.Progress("test split", len(labels), "images")
    return predict(on_arrays(classifier), data, progress), labels
