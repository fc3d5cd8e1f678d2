"""`summary.json`: the result of a run for scripts, the same document for a local run and for one in the cluster."""

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from components.shared.core.files import MAX_JSON_BYTES, Document, read_json
from components.shared.evaluation.document import MAX_BYTES

FORMAT = "torch2kubeflow/summary"
REGISTERED = ("name", "version", "is_champion", "reason")  # of a registration


def collect(
    pipeline: str,
    folder: Path,
    started: float,
    state: str,
    parameters: dict[str, Any],
    steps: dict[str, Any],
    cached: dict[str, Path],
    error: str | None,
) -> Document:
    """Return the summary of the run of a `pipeline` in `folder`; every path in it is relative to that folder.

    `cached` are the artifacts in the folders of earlier runs, by name.
    """
    earlier = {name: Path(os.path.relpath(path, folder.resolve())).as_posix() for name, path in cached.items()}
    artifacts = _artifacts(folder, pipeline, steps) | earlier
    dataset = _read(folder, artifacts, "dataset")
    evaluation = _read(folder, artifacts, "evaluation", MAX_BYTES)
    registration = _read(folder, artifacts, "registration")
    return compose(
        pipeline=pipeline,
        run_id=folder.name,
        state=state,
        started=started,
        seconds=time.time() - started,
        parameters=parameters,
        steps=steps,
        error=error,
        dataset=dataset,
        evaluation=evaluation,
        registration=registration,
        comparison=_read(folder, artifacts, "comparison"),
        artifacts=artifacts,
    )


def compose(
    *,
    pipeline: str,
    run_id: str,
    state: str,
    started: float,
    seconds: float,
    parameters: dict[str, Any],
    steps: dict[str, Any],
    error: str | None,
    dataset: Document | None,
    evaluation: Document | None,
    registration: Document | None,
    comparison: Document | None,
    artifacts: dict[str, str],
) -> Document:
    """Return the document of a run; what is not known is null, and `started` is in seconds since 1970."""
    return {
        "format": FORMAT,
        "pipeline": pipeline,
        "run_id": run_id,
        "state": state,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(seconds, 3),
        "parameters": parameters,
        "steps": steps,
        "error": error,
        "dataset": dataset
        and {
            "digest": dataset["digest"],
            "classes": dataset["classes"],
            "counts": {name: split["count"] for name, split in dataset["splits"].items()},
        },
        "test_accuracy": evaluation and evaluation["accuracy"],
        "accepted": evaluation and evaluation["accepted"],
        "reasons": evaluation and evaluation["reasons"],
        "registered": registration and {name: registration[name] for name in REGISTERED},
        "sweep": comparison and {name: comparison[name] for name in ("best", "trials")},
        "artifacts": artifacts,
    }


def _artifacts(folder: Path, pipeline: str, steps: Iterable[str]) -> dict[str, str]:
    """Return name -> relative path of every artifact that KFP's local runner wrote to <pipeline>/<step>/.

    The artifacts of a step in a loop, with a folder for each pass, are left out: their names are not unique.
    """
    found = sorted(path for step in steps for path in folder.glob(f"{pipeline}-*/{step}/*"))
    return {path.name: path.relative_to(folder).as_posix() for path in found if path.name != "executor_output.json"}


def _read(folder: Path, artifacts: dict[str, str], name: str, max_bytes: int = MAX_JSON_BYTES) -> Document | None:
    """Return the document of the artifact `name`; None if the run did not get to it."""
    path = artifacts.get(name)
    return read_json(folder / path / f"{name}.json", f"torch2kubeflow/{name}", max_bytes) if path else None
