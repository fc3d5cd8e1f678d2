"""Write a classifier as programs that need nothing of this project: torch.export's and ONNX."""

import errno
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import onnx
import torch
from torch.export import ExportedProgram

from components.shared.core import log
from components.shared.evaluation.classifier import Classifier
from components.shared.evaluation.exported_model import Description
from components.shared.models.translation import trace, translate

DIFFERENCE = 2**16  # bytes by which the sizes of a program in memory and on disk may differ


def write_programs(classifier: Classifier, folder: Path, description: Description, *, name: str, opset: int) -> None:
    """Trace the classifier once, for any batch size, and write `model.pt2` and `model.onnx` to `folder`.

    Raises UserError if the network of this name cannot be traced, or not be expressed in ONNX's operator set `opset`.
    """
    fields = description.model_dump(exclude_none=True)
    log.info("tracing the network")
    program = trace(classifier, description.input.sizes, name)
    extra = {"description.json": json.dumps(fields, ensure_ascii=False)}
    program._example_inputs = None  # which would be saved as a pickle
    _save(program, folder / "model.pt2", extra)
    log.info(f"translating to ONNX, opset {opset}")
    graph = translate(program, name, opset)
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in fields.items()
    }
    onnx.helper.set_model_props(graph, texts)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save_model(graph, folder / "model.onnx")


class _Counter(io.BytesIO):
    """A file that keeps only the number of its bytes."""

    bytes = 0

    def write(self, data: Any) -> int:
        """Count the bytes."""
        self.bytes += len(data)
        return len(data)


def _save(program: ExportedProgram, path: Path, extra: dict[str, str]) -> None:
    """Save a program. Raises OSError if it does not fit on the disk, on which PyTorch would abort the process."""
    counter = _Counter()
    torch.export.save(program, counter, extra_files=extra)
    if counter.bytes + DIFFERENCE > shutil.disk_usage(path.parent).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    torch.export.save(program, path, extra_files=extra)
