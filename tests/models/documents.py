"""Whole documents of trained networks, for tests that train none."""

from typing import Any

from components.shared.models.document import Architecture, Epoch, HistoryDocument

LENET = Architecture.model_validate(
    {
        "name": "lenet5",
        "num_classes": 10,
        "image_shape": [1, 32, 32],
        "activation": "relu",
        "pooling": "max",
        "bias": True,
    }
)


def architecture(**changes: Any) -> Architecture:
    """LeNet-5 for digits, some members of it changed."""
    return Architecture.model_validate({**dict(LENET), **changes})


def facts(network: Architecture, **changes: Any) -> dict[str, Any]:
    """The fields of `model.json` that `saved_model.save` takes, some of them changed."""
    channels = network.image_shape[0]
    return {
        "architecture": network,
        "classes": [str(number) for number in range(network.num_classes)],
        "image_shape": network.image_shape,
        "mean": [0.1] * channels,
        "std": [0.3] * channels,
        "dataset_digest": "d" * 64,
        "code_version": "c" * 64,
        "parameters": {},
        "pretrained_sha256": "",
        "seed": 0,
        "threads": 1,
        "processes": 1,
        "torch": "2",
        "device": "cpu",
        "checkpoint_key": "0" * 64,
        "best_epoch": 1,
        "val_accuracy": 0.9,
        **changes,
    }


def epoch(number: int = 1, **changes: Any) -> Epoch:
    """The figures of an epoch, some of them changed."""
    figures = {"learning_rate": 0.003, "train_loss": 0.3, "val_loss": 0.2, "val_accuracy": 0.9}
    cost = {"seconds": 1.0, "images_per_second": 1.0, "data_wait": 0.0, "memory_mib": 700.0, "peak_share": 0.0}
    return Epoch.model_validate({"epoch": number, **figures, **cost, **changes})


def history(*epochs: Epoch, **changes: Any) -> HistoryDocument:
    """The history of a training of these epochs, or of one, some fields changed."""
    found = list(epochs) or [epoch()]
    fields = {"epochs": found, "best_epoch": len(found), "stopped": "", "checkpoints": [], "seconds": {"train": 4.0}}
    return HistoryDocument.model_validate({**fields, **changes})
