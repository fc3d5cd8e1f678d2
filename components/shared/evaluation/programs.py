"""Write a classifier as programs that need nothing of this project: torch.export's and ONNX."""

import json
from pathlib import Path

import onnx
import torch

from components.shared.core import log
from components.shared.evaluation.classifier import Classifier
from components.shared.evaluation.exported_model import Description
from components.shared.models.translation import trace, translate


def write_programs(classifier: Classifier, folder: Path, description: Description, *, name: str, opset: int) -> None:
    """Trace the classifier once, for any batch size, and write `model.pt2` and `model.onnx` to `folder`.

    Raises UserError if the network of this name cannot be traced, or not be expressed in ONNX's operator set `opset`.
    """
    fields = description.model_dump(exclude_none=True)
    log.info("tracing the network")
    program = trace(classifier, description.input.sizes, name)
    extra = {"description.json": json.dumps(fields, ensure_ascii=False)}
    program._example_inputs = None  # which would be saved as a pickle
    torch.export.save(program, folder / "model.pt2", extra_files=extra)
    log.info(f"translating to ONNX, opset {opset}")
    graph = translate(program, name, opset)
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in fields.items()
    }
    onnx.helper.set_model_props(graph, texts)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save_model(graph, folder / "model.onnx")
