"""The smoke test: a served version must predict of its kept test images what it predicted when it was registered.

A model server knows no digest of the bytes that it has loaded. What it can prove is what it predicts, the shapes of its
input and output, and the digest of the package that the configuration beside the model names.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.shared.core.document import Count, Number, Part, Sha256
from components.shared.evaluation.exported_model import Tensor
from components.shared.evaluation.parity import ParityError, largest_difference
from components.shared.registry.document import VersionDocument
from components.shared.registry.triton import DATATYPES
from components.shared.serving.open_inference import Connect, NotServed, ServedModel

OTHER = "it serves something else: see the storageUri of its pod, and the log"


class Samples(NamedTuple):
    """Test images (uint8, N x C x H x W) that a version keeps, and their probabilities (float32, N x classes)."""

    images: NDArray[np.uint8]
    probabilities: NDArray[np.float32]


class SmokeTest(Part):
    """What a served version has proved."""

    images: Count
    largest_difference: Number  # of a probability
    package_digest: Sha256 | None  # as the server tells it; None if it tells none


def smoke_test(connect: Connect, document: VersionDocument, samples: Samples) -> SmokeTest:
    """Ask a server for the samples of a version. Raises NotServed if it does not serve that version."""
    model = ServedModel(connect, document.name)
    metadata = model.metadata()
    _check_tensor("input", metadata.get("inputs"), document.input)
    _check_tensor("output", metadata.get("outputs"), document.output)
    digest = model.digest()
    if digest not in (None, document.package_digest):
        raise NotServed(
            f"the served package is {digest}, and version {document.version} {document.package_digest}", OTHER
        )
    found = model.predict(np.ascontiguousarray(samples.images), document.input, document.output)
    try:
        difference = largest_difference("the served and the registered version", found, samples.probabilities)
    except ParityError as error:
        raise NotServed(str(error), OTHER) from None
    return SmokeTest(images=len(found), largest_difference=difference, package_digest=digest)


def _check_tensor(kind: str, found: object, expected: Tensor) -> None:
    """Raise NotServed unless the server's model has this one input or output; a size of -1 is any."""
    one = found[0] if isinstance(found, list) and len(found) == 1 and isinstance(found[0], dict) else {}
    told = one.get("name"), one.get("datatype"), [*one.get("shape", [])][1:]
    wanted = expected.name, DATATYPES.get(expected.dtype), expected.sizes
    if told != wanted:
        raise NotServed(f"the served model has the {kind} {told}, and the version {wanted}", OTHER)
