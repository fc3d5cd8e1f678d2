"""The versions of a model that the page offers: each as a program for the browser, with what the page says of it."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from components.shared.core.document import Count, Document, Items, Names, Part, Sha256, Share, Size
from components.shared.core.errors import UserError
from components.shared.data.dataset import Images
from components.shared.registry.document import RegistryDocument, VersionDocument
from components.shared.registry.registry import RegisteredModel
from runner.demo.feature_maps import Layer, OtherProbabilities, add_maps
from runner.demo.mistakes import LOST, Mistake, TestSplits, find_mistakes, why_unknown

SMALLEST = 28  # pixels, of MNIST's pictures: smaller ones would have to be scaled down as Pillow does
RANDOM_IMAGES = 32


class Undrawable(UserError):
    """A version whose pictures are not such as a drawing becomes."""


class DrawnVersion(Part):
    """A version of the model, for the page."""

    version: Size
    is_champion: bool
    accuracy: Share
    network: str
    package_digest: Sha256
    classes: Names
    side: Size  # of its pictures, in pixels
    file: str  # of its program, in the folder
    bytes: Count
    layers: Items[Layer]
    mistakes: Items[Mistake]  # those with the highest probability
    pictures: str  # the file with their pixels, uint8; empty if there are none
    wrong: Count | None  # how many there are; null if it is not known
    no_layers: str  # why there are none
    no_mistakes: str  # why it is not known which there are


class PageDocument(Document):
    """`demo.json`: what the page shows, beside its own files."""

    FORMAT = "torch2kubeflow/demo-page"
    REMEDY = "make the demo again"

    name: str  # of the model
    runtime: str  # of ONNX Runtime for browsers, with its version
    versions: Items[DrawnVersion]  # the newest first


@dataclass
class Offer:
    """The versions that are offered, and why others are not."""

    versions: list[DrawnVersion] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def offer_versions(model: RegisteredModel, newest: int, folder: Path, splits: TestSplits) -> Offer:
    """Write the champion and the newest versions of a model to `folder`, and return them, the newest first.

    Raises UserError if none can be drawn for.
    """
    registry, offer = model.read(), Offer()
    for number in _chosen(registry, newest, offer):
        try:
            offer.versions.append(_write(model, registry, number, folder, splits))
        except (Undrawable, *LOST) as error:
            offer.left_out.append(f"version {number}: {error.message}")
    if not offer.versions:
        reasons = "; ".join(offer.left_out) or "it has no complete version"
        raise UserError(f"there is nothing to draw for with {model.name}: {reasons}", "name another model")
    return offer


def _chosen(registry: RegistryDocument, newest: int, offer: Offer) -> list[int]:
    """Return the numbers of the versions to offer; note how many older ones there are."""
    complete = [entry.version for entry in registry.versions if entry.state == "complete"]
    chosen = {*complete[-newest:], *([registry.champion] if registry.champion else [])}
    if older := len(complete) - len(chosen):
        offer.left_out.append(f"{older:,} older version{'s' * (older > 1)}; --versions {len(complete)} offers all")
    return sorted(chosen, reverse=True)


def _write(
    model: RegisteredModel, registry: RegistryDocument, number: int, folder: Path, splits: TestSplits
) -> DrawnVersion:
    """Write the program and the mistakes of a version, and return what the page says of it."""
    document = model.read_version(number)
    side, no_mistakes = _side(document), ""
    own = folder / "versions" / str(number)
    own.mkdir(parents=True)
    try:
        pictures, mistakes, wrong = find_mistakes(model.versions, document, splits)
    except LOST as error:
        pictures, mistakes, wrong = np.empty((0, 1, side, side), np.uint8), [], None
        no_mistakes = why_unknown(error)
    layers, no_layers = _write_program(model, document, own, pictures)
    if mistakes:
        (own / "mistakes.bin").write_bytes(pictures.tobytes())
    return DrawnVersion(
        version=number,
        is_champion=number == registry.champion,
        accuracy=model.entry(number).accuracy,
        network=str(document.provenance.parameters.get("network", "not known")),
        package_digest=document.package_digest,
        classes=document.classes,
        side=side,
        file=f"versions/{number}/model.onnx",
        bytes=(own / "model.onnx").stat().st_size,
        layers=layers,
        mistakes=mistakes,
        pictures=f"versions/{number}/mistakes.bin" if mistakes else "",
        wrong=wrong,
        no_layers=no_layers,
        no_mistakes=no_mistakes,
    )


def _side(document: VersionDocument) -> int:
    """Return the side of the pictures that a version takes. Raises Undrawable if a drawing cannot be prepared so."""
    shape = document.input.sizes
    if len(shape) != 3 or shape[0] != 1 or shape[1] != shape[2] or shape[1] < SMALLEST:
        what = " x ".join(map(str, shape))
        message = f"it takes {what} numbers, and a drawing becomes one gray picture of {SMALLEST} x {SMALLEST} or more"
        raise Undrawable(message, "name another model")
    if document.provenance.data.parameters.get("keep") == "jpeg":
        raise Undrawable(
            "its data was prepared with keep=jpeg, and drawings are prepared as with keep=raw",
            "name another model",
        )
    return int(shape[1])


def _write_program(
    model: RegisteredModel, document: VersionDocument, own: Path, pictures: Images
) -> tuple[list[Layer], str]:
    """Write the program of a version, if it can be with its feature maps; return their layers, or why there are none.

    The probabilities of `pictures` (uint8, N x C x H x W), random ones and an empty one are compared.
    """
    package, program = own / "package.onnx", own / "model.onnx"
    model.versions.download(document, model.versions.onnx_path, package)
    random = np.random.default_rng(0).integers(0, 256, (RANDOM_IMAGES, *document.input.sizes), np.uint8)
    try:
        layers = add_maps(package, program, np.concatenate([pictures, random, np.zeros_like(random[:1])]))
    except OtherProbabilities:
        package.rename(program)
        return [], "It is shown without its feature maps: as outputs, they would change its probabilities."
    package.unlink()
    return layers, "" if layers else "Only LeNet-5 is shown with its feature maps."
