"""How often drift is found where there is none, and where there is: `python bench/drift.py` (10 minutes).

The test images of a data set, as LeNet-5 sees them, are dealt in another way each time: half of them become the
reference, and some of the others, changed or not, are judged. Writes `bench/results/drift.json`.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from measure import ROOT, write_result
from mnist import prepare
from numpy.typing import NDArray

SETS: dict[str, dict[str, Any]] = {"mnist": {}, "fashion-mnist": {}, "digits": {"test_fraction": 0.7}}
TRAINING: dict[str, dict[str, Any]] = {"digits": {"epochs": 40, "batch_size": 32}}  # of few pictures
SIZES = (100, 200, 1000, 5000)
RESAMPLES = 200  # without a shift
SHIFTED = 50  # with one
SEED = 0


class Sighted(NamedTuple):
    """Pictures as the model sees them."""

    vectors: NDArray[np.float32]
    classes: NDArray[np.int64]  # of each picture
    num_classes: int


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=[*SETS], choices=[*SETS])
    parser.add_argument("--models", type=Path, default=ROOT / "build/drift", help="where trained models are kept")
    arguments = parser.parse_args()
    results = {name: _measure(name, arguments.models / name) for name in arguments.sets}
    print(
        write_result("drift", {"resamples": RESAMPLES, "shifted_resamples": SHIFTED, "sets": results}).relative_to(ROOT)
    )


def _measure(name: str, scratch: Path) -> dict[str, Any]:
    """Return for each change and size the share of the judgements with a finding."""
    from components.shared.prediction.drift import FEWEST

    images, labels, see = _trained(name, scratch)
    half = len(images) // 2
    plain, found = see(images), {}
    for change in (*CHANGES, "classes"):
        looks = plain if change == "classes" else see(CHANGES[change](images))
        for size in SIZES:
            if FEWEST <= size <= half:
                repeats = SHIFTED if change != "none" else RESAMPLES
                weights = _shares(labels) if change == "classes" else None
                found[f"{change} {size}"] = _judge_all(plain, looks, half, size, repeats, weights)
                print(name, change, size, found[f"{change} {size}"], flush=True)
    return found


def _trained(
    name: str, scratch: Path
) -> tuple[NDArray[np.uint8], NDArray[np.int64], Callable[[NDArray[np.uint8]], Sighted]]:
    """Train with the defaults; return the test images, their labels, and what shows the model images."""
    from components.shared.evaluation.classifier import Classifier, on_arrays
    from components.shared.evaluation.trained_model import open_trained
    from components.shared.parameters.training import TrainingRecipe
    from components.shared.prediction.reference import vectors_of
    from components.train import train

    if not (scratch / "model").exists():
        prepare(scratch, name, **SETS[name])
        train(
            dataset=str(scratch / "dataset"),
            recipe=TrainingRecipe.of(store="", **TRAINING.get(name, {})).text(),
            model=str(scratch / "model"),
        )
    data, model = open_trained(scratch / "dataset", scratch / "model")
    classify = on_arrays(Classifier(model))

    def see(images: NDArray[np.uint8]) -> Sighted:
        parts = [images[start : start + 256] for start in range(0, len(images), 256)]
        probabilities = np.concatenate([classify(part) for part in parts])
        return Sighted(vectors_of(images, probabilities), probabilities.argmax(axis=1), probabilities.shape[1])

    images, labels = data.load("test")
    return images, labels, see


def _judge_all(
    plain: Sighted, looks: Sighted, half: int, size: int, repeats: int, weights: NDArray[np.float64] | None
) -> dict[str, Any]:
    """Return how many of the judgements found drift, and by how many of them each measure did."""
    findings: dict[str, int] = {}
    drifted = significant = 0
    for seed in range(repeats):
        random = np.random.default_rng([SEED, seed])
        order = random.permutation(len(plain.classes))
        reference, rest = order[:half], order[half:]
        p = None if weights is None else weights[rest] / weights[rest].sum()
        report = _judged(plain, reference, looks, random.choice(rest, size, replace=p is not None, p=p), random)
        drifted += report.drifted
        significant += any(one.corrected_p_value < report.significance for one in report.measures)
        for one in report.findings:
            findings[one.name] = findings.get(one.name, 0) + 1
    return {"drifted": drifted / repeats, "significant": significant / repeats, "findings": findings}


def _judged(
    plain: Sighted, reference: NDArray[np.int64], looks: Sighted, new: NDArray[np.int64], random: np.random.Generator
) -> Any:
    from components.shared.prediction.drift import THRESHOLD, Predicted, Reference, compare
    from components.shared.prediction.reference import MAX_VECTORS, reference_of

    number = plain.num_classes
    known = reference_of(
        plain.vectors[reference],
        np.bincount(plain.classes[reference], minlength=number),
        [str(label) for label in range(number)],
        channels=1,
    )
    vectors = looks.vectors[new]
    statistics = known[0].statistics.items()
    counts = {name: histogram.count(vectors[:, column]) for column, (name, histogram) in enumerate(statistics)}
    sample = vectors[random.permutation(len(vectors))[:MAX_VECTORS]]
    predicted = Predicted(counts, np.bincount(looks.classes[new], minlength=number), sample)
    return compare(Reference(*known), predicted, "", THRESHOLD)


def _brighter(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return _clipped(images.astype(np.float32) * 1.1)


def _lighter(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return _clipped(images.astype(np.int16) + 26)


def _noisy(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return _clipped(images + np.random.default_rng(SEED).normal(0, 16, images.shape))


def _shifted(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.roll(images, (3, 3), axis=(2, 3))


def _inverted(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.subtract(255, images)


def _unchanged(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return images


def _clipped(values: NDArray[Any]) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = values.clip(0, 255).astype(np.uint8)
    return pixels


CHANGES = {
    "none": _unchanged,
    "pixels x 1.1": _brighter,
    "pixels + 26": _lighter,
    "noise": _noisy,
    "moved by 3 pixels": _shifted,
    "inverted": _inverted,
}


def _shares(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return weights that draw a picture of the first half of the classes three times as often as one of the others."""
    return np.where(labels <= labels.max() // 2, 3.0, 1.0)


if __name__ == "__main__":
    main()
