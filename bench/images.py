"""Sizes of the steps' images, seconds of building them, and what a container costs a step: `python bench/images.py`.

Starts Docker if none runs (as root) and builds the images cold, on Debian's Python where no registry has the base
image: some 15 GB of disk and several minutes. A step's cost is that of one which does nothing, in containers locked
down as tests/images/run_in_docker.py locks them: the difference of pipelines of six such steps and of one, by steps.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kfp import compiler, dsl
from measure import ROOT, median, write_result

from components.shared.container_images import NAMES, image
from tests.images.containers import base_image, docker_client

RUNS = 5
STEPS = 6


def main() -> None:
    """Measure, print, and write `bench/results/images.json`."""
    (ROOT / "build").mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=ROOT / "build") as scratch,
        docker_client(Path(scratch)) as client,
        base_image(client),
    ):
        cold, again = _seconds(["make", "-s", "images"]), _seconds(["make", "-s", "images"])
        sizes = {name: client.images.get(image(name)).attrs["Size"] for name in NAMES}
        steps = {name: _step(image(name), Path(scratch)) for name in sizes}
    document = {
        "megabytes": {name: round(size / 1e6) for name, size in sizes.items()},
        "build_seconds": {"cold": cold, "nothing changed": again},
        "step_seconds": {name: found["median"] for name, found in steps.items()},
        "raw": steps,
    }
    print(write_result("images", document).relative_to(ROOT), document)


def _step(name: str, scratch: Path) -> dict[str, Any]:
    """Seconds of a step that does nothing, in containers of an image."""

    @dsl.component(base_image=name, install_kfp_package=False)
    def nothing(before: str) -> str:
        return before

    @dsl.pipeline(name="one")
    def one() -> None:
        nothing(before="")

    @dsl.pipeline(name="many")
    def many() -> None:
        said = ""
        for _ in range(STEPS):
            said = nothing(before=said).output

    for pipeline in (one, many):
        compiler.Compiler().compile(pipeline, str(scratch / f"{pipeline.name}.yaml"))
    runs = [{length: _run(scratch, length) for length in ("one", "many")} for _ in range(RUNS)]
    seconds = median((run["many"] - run["one"]) / (STEPS - 1) for run in runs)
    return {"median": round(seconds, 3), "runs": runs}


def _run(scratch: Path, length: str) -> float:
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        package, pictures = scratch / f"{length}.yaml", Path(folder) / "pictures"
        pictures.mkdir()
        (Path(folder) / "root").mkdir()
        script = [sys.executable, "tests/images/run_in_docker.py", str(package), f"{folder}/root", str(pictures), "{}"]
        return _seconds(script)


def _seconds(command: list[str]) -> float:
    started = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return round(time.monotonic() - started, 2)


if __name__ == "__main__":
    main()
