"""Measure how well calibrated LeNet-5 is on MNIST before and after temperature scaling, over several seeds.

python bench/calibration.py                 # the pipeline's defaults, 5 seeds
python bench/calibration.py --threads 1     # on a busy machine: no time is measured

The expected calibration error is that of the report: of the test split, in 15 bins of as many images each, with a 95 %
interval by the bootstrap. Writes `bench/results/calibration.json` after every seed.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from measure import ROOT, median, write_result
from mnist import prepare

from components.shared.data.dataset import Dataset
from components.shared.evaluation.calibration import calibration
from components.shared.evaluation.classifier import Classifier
from components.shared.evaluation.metrics import measure
from components.shared.evaluation.trained_model import predict_test_split
from components.shared.models import saved_model
from components.shared.parameters.training import TrainingRecipe
from components.train import train

GOAL = 0.005


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds, from 0")
    parser.add_argument("--threads", type=int, default=0, help="threads of PyTorch (0: as in the pipeline)")
    arguments = parser.parse_args()
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        data = prepare(Path(scratch))
        for seed in range(arguments.seeds):
            runs.append(_run(data, Path(scratch) / "model", seed, arguments.threads))
            print(write_result("calibration", _summary(runs)).relative_to(ROOT), runs[-1], flush=True)


def _run(data: Dataset, folder: Path, seed: int, threads: int) -> dict[str, Any]:
    train(dataset=data.folder, recipe=TrainingRecipe.of(seed=seed, threads=threads).text(), model=folder)
    model = saved_model.load(folder)
    probabilities, labels = predict_test_split(Classifier(model), data)
    found = calibration(probabilities, labels, model.document.temperature).model_dump()
    accuracy = measure(probabilities, labels, data.classes).accuracy
    return {"seed": seed, "threads": model.document.threads, "test_accuracy": accuracy, **found}


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians over the runs, and the runs themselves."""
    medians = {
        f"median_{name}_error": median(run[name]["error"] for run in runs) for name in ("uncalibrated", "calibrated")
    }
    highest = max(run["calibrated"]["error"] for run in runs)
    return {"goal": GOAL, **medians, "highest_calibrated_error": highest, "runs": runs}


if __name__ == "__main__":
    main()
