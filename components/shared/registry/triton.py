"""Triton's model repository inside a version: `serving/` is what the storageUri of KServe points to.

The names that it has in common with the Open Inference Protocol (v2) are those of all our servers and clients.
"""

from components.shared.evaluation.exported_model import Tensor

MAX_BATCH = 256  # images in one request
DIGEST = "package_digest"  # the parameter by which a server tells which package it serves
DATATYPES = {"uint8": "UINT8", "float32": "FP32"}  # how the protocol calls those of programs


def onnx_path(name: str) -> str:
    """Return the path of a model's ONNX file among the files of a version."""
    return f"serving/{name}/1/model.onnx"


def config_path(name: str) -> str:
    """Return the path of a model's `config.pbtxt` among the files of a version."""
    return f"serving/{name}/config.pbtxt"


def config(name: str, inputs: Tensor, outputs: Tensor, digest: str) -> str:
    """Return the text of `config.pbtxt`. Its `dims` leave out the dimension of the batch.

    `digest` is that of the package; it is empty for versions that were registered before it was told.
    """
    parameter = f'parameters {{ key: "{DIGEST}" value: {{ string_value: "{digest}" }} }}\n' if digest else ""
    return f"""name: "{name}"
platform: "onnxruntime_onnx"
max_batch_size: {MAX_BATCH}
input [ {{ name: "{inputs.name}" data_type: TYPE_{DATATYPES[inputs.dtype]} dims: {inputs.sizes} }} ]
output [ {{ name: "{outputs.name}" data_type: TYPE_{DATATYPES[outputs.dtype]} dims: {outputs.sizes} }} ]
{parameter}"""
