"""Measure the memory of the steps that run a network, each within its default limit: `python bench/memory.py`.

Each step is a process of its own in a cgroup of version 1 with the limit that its pod has by default, of which the
kernel tells the highest usage (caches of files included) and the process its highest resident memory. The pictures are
scikit-learn's digits, enlarged. It needs root, and /sys/fs/cgroup/memory.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from measure import ROOT, write_result

NETWORKS = (
    "timm:swin_tiny_patch4_window7_224",
    "resnet152",
    "resnet18",
    "densenet121",
    "resnet50",
    "mobilenet_v2",
    "shufflenet_v2_x1_0",
    "squeezenet1_1",
)
CGROUP = Path("/sys/fs/cgroup/memory")
PICTURES, TEST, VAL = 60, 0.4, 0.1  # and the shares of the splits
BATCH, DEFAULT_BATCH = 8, 256  # images of a step of the training; the second is refused before they are counted
MIB, UNITS = 2**20, {"Mi": 1, "Gi": 1024}


def main() -> None:
    """Measure, print, and write `bench/results/memory.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=NETWORKS, metavar="NAME")
    parser.add_argument("--sizes", nargs="*", type=int, default=[224])
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time, each in cgroups of its own")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)  # STEP NETWORK BATCH FOLDER
    arguments = parser.parse_args()
    if arguments.child:
        return _child(*arguments.child)
    rows: list[dict[str, Any]] = []
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(arguments.jobs) as pool:
            _prepare(Path(scratch), size)
            waiting = [pool.submit(_measure, name, size, Path(scratch)) for name in arguments.networks]
            for done in as_completed(waiting):
                rows += done.result()
                print(*done.result(), sep="\n", flush=True)
                peaks = "memory.max_usage_in_bytes of a cgroup of version 1"
                write_result("memory", {"peaks": peaks, "pictures": PICTURES, "rows": rows})


def _prepare(scratch: Path, size: int) -> None:
    """Write a dataset of digits, by a process that leaves no memory behind."""
    code = (
        "import sys; sys.path.insert(0, 'bench'); from pathlib import Path; from pictures import write_pictures;"
        "from mnist import prepare; folder = Path(sys.argv[1]); write_pictures(folder / 'pictures', int(sys.argv[2]));"
        f"prepare(folder, str(folder / 'pictures'), image_size={size}, test_fraction={TEST}, val_fraction={VAL})"
    )
    subprocess.run([sys.executable, "-c", code, str(scratch), str(PICTURES)], cwd=ROOT, check=True)


def _measure(name: str, size: int, scratch: Path) -> list[dict[str, Any]]:
    """Return what each step took, and what a training with the default batch says."""
    rows = [_run("train", name, DEFAULT_BATCH, scratch)]
    rows += [_run(step, name, BATCH, scratch) for step in ("train", "evaluate", "export")]
    return [{"network": name, "image_size": size, **row} for row in rows]


def _run(step: str, name: str, batch: int, folder: Path) -> dict[str, Any]:
    """Run a step in a cgroup with its default limit."""
    limit = _limit(step)
    group = CGROUP / _own_group() / f"torch2kubeflow-bench-{os.getpid()}-{name}".replace(":", "-")
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(limit * MIB))
        command = [sys.executable, "-W", "ignore", __file__, "--child", step, name, str(batch), str(folder)]
        within = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group), *command]
        with subprocess.Popen(within, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert process.stdout is not None
            output = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        peak = int((group / "memory.max_usage_in_bytes").read_text())
    finally:
        group.rmdir()
    outcomes = {0: "done", 2: "refused", -9: "killed"}
    last = output.strip().splitlines()[-1]
    row = {"step": step, "outcome": outcomes.get(process.returncode, f"exit code {process.returncode}")}
    row |= json.loads(last) if process.returncode == 0 else {"message": last}
    sizes = {"limit_mib": limit, "peak_mib": peak // MIB, "resident_mib": usage.ru_maxrss // 1024}
    return {
        **row,
        **({"batch": batch} if step == "train" else {}),
        **sizes,
    }


def _limit(step: str) -> int:
    """Return the MiB that a step's pod may use by default."""
    from components.shared.parameters.pods import Pods

    if step == "train":
        text = Pods().train_memory
    else:
        from pipeline import RESOURCES

        text = str(RESOURCES[step].memory[1])
    return int(text[:-2]) * UNITS[text[-2:]]


def _own_group() -> str:
    lines = (line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines())
    return next(path for _, names, path in lines if "memory" in names.split(",")).lstrip("/")


def _child(step: str, name: str, batch: str, folder: str) -> None:
    """Run a step; print what it was given as JSON. A refusal is the last line, and exit code 2."""
    from components.shared.core.errors import UserError

    try:
        print(json.dumps(_step(step, name, batch, Path(folder))))
    except UserError as error:
        print(error)
        sys.exit(2)


def _step(step: str, name: str, batch: str, folder: Path) -> dict[str, Any]:
    from components.shared.data.dataset import open_dataset

    data, model = open_dataset(folder / "dataset"), folder / f"model-{name}"
    gates = {"min_accuracy": 0.0, "min_recall": 0.0}
    if step == "train":
        from components.shared.parameters.training import TrainingRecipe
        from components.train import train

        settings = {"network": name, "batch_size": batch, "epochs": 1, "optimizer": "adamw", "learning_rate": 0.001}
        train(dataset=data.folder, recipe=TrainingRecipe.of(**settings).text(), model=model)
        return {"pictures": data.counts["train"]}
    from components.shared.evaluation.inference import batch_size

    if step == "evaluate":
        from components.evaluate import evaluate
        from components.shared.parameters.evaluation import EvaluateRecipe

        outputs = {
            output: folder / f"{output}-{name}" for output in ("metrics", "classification", "report", "evaluation")
        }
        evaluate(dataset=data.folder, model=model, recipe=EvaluateRecipe.of(**gates).text(), **outputs)
    else:
        from components.export import export
        from components.shared.parameters.evaluation import ExportRecipe

        package = folder / f"package-{name}"
        export(dataset=data.folder, model=model, recipe=ExportRecipe.of(**gates).text(), package=package)
    return {"pictures": data.counts["test"], "batch": min(batch_size(data.image_shape), data.counts["test"])}


if __name__ == "__main__":
    main()
