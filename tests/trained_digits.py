"""Small datasets of scikit-learn's digits, and networks trained on them, for the tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from components.shared.data.dataset import open_dataset, write_document
from components.shared.data.sources.digits import read_digits
from components.shared.models import factory, saved_model
from components.shared.models.normalize import normalize
from components.shared.parameters.training import Settings, TrainingRecipe
from components.shared.storage.client import Store
from components.train import train
from tests.dataset_writer import DatasetWriter
from tests.models.documents import architecture, epoch, facts, history
from tests.parameters.texts import recipe_text

SETTINGS: dict[str, Any] = {
    "network": "lenet5",
    "activation": "default",
    "pooling": "default",
    "bias": True,
    "pretrained": "",
    "frozen_stages": 0,
    "optimizer": "muon",
    "schedule": "one_cycle",
    "learning_rate": 0.02,
    "weight_decay": 0.0,
    "batch_size": "50",
    "shuffle_window": 0,
    "accumulate": 1,
    "clip_norm": 0.0,
    "epochs": 2,
    "label_smoothing": 0.05,
    "rotation": 5.0,
    "shift": 1.0,
    "scale": 0.05,
    "shear": 0.05,
    "flip": False,
    "mixup": 0.0,
    "cutmix": 0.0,
    "ema_decay": 0.9,
    "patience": 0,
    "precision": "auto",
    "torch_compile": False,
    "deterministic": True,
    "seed": 0,
    "threads": 1,
    "gpus": "0",
    "store": "",
    "checkpoint_seconds": 30,
}
RUN: dict[str, Any] = {"seed": 0, "threads": 1, "store": "", "checkpoint_seconds": 1}
# Names as an attacker would choose them.
CLASSES = ["<script>alert(0)</script>", '"1"', "$2_$", "三", "{{ 4 }}", "5 " * 40, "</style>", "7\n7", "&amp;", "9"]
SHARD_BYTES = 100 * 1024  # two shards of the test split


def write_dataset(folder: Path, classes: Sequence[str] = CLASSES, channels: int = 1) -> Path:
    """Write as many of the ten digits as there are classes, enlarged to 32 x 32: the last 150 of them to test."""
    pixels, labels = read_digits()
    pixels, labels = pixels[labels < len(classes)], labels[labels < len(classes)]
    images = (pixels.reshape(-1, 1, 8, 8) * 255 / 16).astype(np.uint8).repeat(4, 2).repeat(4, 3).repeat(channels, 1)
    places = {"train": slice(0, -200), "val": slice(-200, -150), "test": slice(-150, None)}
    counts = {name: len(labels[place]) for name, place in places.items()}
    shape = (channels, 32, 32)
    folder.mkdir()
    writer = DatasetWriter(folder, classes=classes, image_shape=shape, counts=counts, shard_bytes=SHARD_BYTES)
    for name, place in places.items():
        writer.append(name, images[place], labels[place].astype(np.int64))
    origin: dict[str, Any] = {"source": "scikit-learn", "raw_digest": "0" * 64, "parameters": {"image_size": 32}}
    writer.finish(name="<b>digits</b>", **origin, seconds={"download": 0.5, "preprocess": 1.5})
    return folder


def write_model(folder: Path, dataset: Path, epochs: int = 4) -> Path:
    """Write LeNet-5 after some epochs of plain gradient descent; its history is made up."""
    data = open_dataset(dataset)
    network_of = architecture(num_classes=len(data.classes), image_shape=list(data.image_shape))
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = factory.build(network_of)
    images, labels = map(torch.from_numpy, data.load("train"))
    pixels = normalize(images, torch.tensor(data.document.mean), torch.tensor(data.document.std))
    for _ in range(epochs):
        for batch, target in zip(torch.split(pixels, 32), torch.split(labels, 32), strict=True):
            network.zero_grad()
            cross_entropy(network(batch), target).backward()  # type: ignore[no-untyped-call]
            for weights in network.parameters():
                assert weights.grad is not None
                weights.data -= 0.1 * weights.grad  # torch.optim would take seconds to import
    trained = facts(
        network_of,
        classes=data.classes,
        mean=data.document.mean,
        std=data.document.std,
        dataset_digest=data.digest,
        parameters={"activation": "relu", "pooling": "max", "bias": True},
        torch=torch.__version__,
        best_epoch=epochs,
    )
    rows, seconds = [epoch(number) for number in range(1, epochs + 1)], {**data.document.seconds, "train": 4.0}
    folder.mkdir()
    saved_model.save(folder, network, history(*rows, seconds=seconds), **trained)
    return folder


def write_digits(folder: Path, enlarge: int) -> Path:
    """Write the first 600 digits (8 x 8 pixels, enlarged): 400 to train, 100 to validate, 100 to test."""
    folder.mkdir()
    pixels, labels = read_digits()
    images = (pixels.reshape(-1, 1, 8, 8) * 255 / 16).astype(np.uint8).repeat(enlarge, 2).repeat(enlarge, 3)
    places = {"train": slice(0, 400), "val": slice(400, 500), "test": slice(500, 600)}
    size = 8 * enlarge
    counts = {name: place.stop - place.start for name, place in places.items()}
    writer = DatasetWriter(folder, classes=list("0123456789"), image_shape=(1, size, size), counts=counts)
    for name, place in places.items():
        writer.append(name, images[place], labels[place].astype(np.int64))
    writer.finish(name="digits", seconds={"download": 0.5, "preprocess": 0.25})
    return folder


def trained(dataset: Path, folder: Path, **settings: Any) -> saved_model.Model:
    """Run the step train with SETTINGS, some of them changed, and return the model."""
    train(dataset=dataset, recipe=training_recipe(**settings), model=folder)
    return saved_model.load(folder)


def write_stored_digits(folder: Path, store: Store) -> Path:
    """Write the digits as `write_digits` does, with the shards in the store instead of the folder."""
    data = open_dataset(write_digits(folder, enlarge=4))
    for entry in data.files():
        store.put_file(folder / entry.path, f"datasets/shards/{entry.sha256}.npy", entry.sha256)
        (folder / entry.path).unlink()
    write_document(folder, data.document.model_copy(update={"shards": store.uri("datasets/shards")}))
    return folder


def settings(**changes: Any) -> Settings:
    """SETTINGS, some of them changed, as the engine takes them."""
    return Settings.taken_from({**SETTINGS, **changes})


def training_recipe(**changes: Any) -> str:
    """SETTINGS, some of them changed, as the recipe of a step that trains; it need not be accepted."""
    return recipe_text(TrainingRecipe, **{**SETTINGS, **changes})


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a model in a folder, by name."""
    return dict(saved_model.load(folder).module.state_dict())


def largest_difference(one: Path, other: Path) -> float:
    """The largest difference between the weights of two models."""
    first, second = read_weights(one), read_weights(other)
    return max(float((first[name] - second[name]).abs().max()) for name in first)
