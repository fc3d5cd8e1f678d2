"""Measure the cost of checkpoints: `python bench/checkpoints.py`.

Trains LeNet-5 on MNIST with a checkpoint every 30 seconds to a server of this machine (SeaweedFS), and without, in
turn, each in a process of its own. A training is measured from its first step to its last; the checkpoint at the very
end, for which it waits, is reported separately. Two trainings differ by more than checkpoints cost, so the cost is
measured directly: the seconds in which the training waits for a copy of its state, and the CPU seconds of the thread
that uploads it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from measure import ROOT, median, write_result
from mnist import prepare

from components import train as step
from components.shared.parameters.training import TrainingRecipe
from components.shared.storage.client import open_store
from components.shared.training.checkpoints.manager import CheckpointManager
from components.shared.training.loop import Training
from tests.servers.s3_server import BUCKET, S3Server, s3_server

KINDS = {"with": f"s3://{BUCKET}/bench", "without": ""}
TARGET = 0.01


def main() -> None:
    """Measure, print, and write `bench/results/checkpoints.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="trainings of each kind")
    parser.add_argument("--epochs", type=int, default=24, help="epochs of a training")
    parser.add_argument("--child", help=argparse.SUPPRESS)  # the arguments of one training, as JSON
    arguments = parser.parse_args()
    if arguments.child:
        return _train(json.loads(arguments.child))
    with tempfile.TemporaryDirectory() as scratch:
        data = prepare(Path(scratch))
        (Path(scratch) / "server").mkdir()
        with s3_server(Path(scratch) / "server") as server:
            _measure(server, data.folder, Path(scratch) / "model", arguments.pairs, arguments.epochs)


def _measure(server: S3Server, dataset: Path, model: Path, pairs: int, epochs: int) -> None:
    seconds: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for pair in range(pairs):
        for kind in list(KINDS)[:: -1 if pair % 2 else 1]:
            recipe = TrainingRecipe.of(epochs=epochs, store=KINDS[kind]).text()
            arguments = {"dataset": str(dataset), "recipe": recipe, "model": str(model)}
            seconds[kind].append(_in_a_process(arguments, server))
            print(f"{kind}: {seconds[kind][-1]}", flush=True)
            _empty(server)  # or the next training would find a finished one
    shares = [round(a["steps"] / b["steps"] - 1, 5) for a, b in zip(seconds["with"], seconds["without"], strict=True)]
    costs = [round((run["copying"] + run["sending"]) / run["steps"], 5) for run in seconds["with"]]
    document = {
        "share_of_training_time": median(costs),
        "target": TARGET,
        "seconds_of_the_last_checkpoint": median(
            a["end"] - b["end"] for a, b in zip(seconds["with"], seconds["without"], strict=True)
        ),
        "checkpoint_seconds": TrainingRecipe().checkpoint_seconds,
        "epochs": epochs,
        "costs": costs,
        "differences_between_trainings": shares,
        "seconds": seconds,
    }
    print(write_result("checkpoints", document).relative_to(ROOT), document["share_of_training_time"], costs, shares)


def _in_a_process(arguments: dict[str, Any], server: S3Server) -> dict[str, float]:
    command = [sys.executable, "bench/checkpoints.py", "--child", json.dumps(arguments)]
    environment = {**os.environ, **server.environment}
    output = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    figures: dict[str, float] = json.loads(output.splitlines()[-1])
    return figures


def _train(arguments: dict[str, Any]) -> None:
    """Train, and print the seconds of the steps, those after the last one, and those of the checkpoints in between."""
    steps, marks, spent = Training.steps, [0.0, 0.0], {"copying": 0.0, "sending": 0.0}

    def measured(name: str, work: Callable[..., None], clock: Callable[[], float]) -> Callable[..., None]:
        def do(*arguments: Any) -> None:
            started = clock()
            work(*arguments)
            if not marks[1]:
                spent[name] += clock() - started

        return do

    manager: Any = CheckpointManager
    manager.save = measured("copying", manager.save, time.perf_counter)
    manager._upload = measured("sending", manager._upload, time.thread_time)

    def timed(training: Training) -> Iterator[None]:
        marks[0] = time.perf_counter()
        yield from steps(training)
        marks[1] = time.perf_counter()

    Training.steps = timed  # type: ignore[assignment, method-assign]
    step.train(**arguments)
    print(
        json.dumps({"steps": round(marks[1] - marks[0], 4), "end": round(time.perf_counter() - marks[1], 4), **spent})
    )


def _empty(server: S3Server) -> None:
    store = open_store(KINDS["with"], server.environment)
    store.remove(*(entry.name for entry in store.list()))


if __name__ == "__main__":
    main()
