"""The readers of untrusted data, each with small valid inputs.

A reader gets a file's content and returns or raises UserError; any other exception is a bug.
"""

import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save as safetensors_bytes

from components.shared.core.document import ValueRange
from components.shared.core.errors import CorruptDataError, UserError
from components.shared.data.dataset import SPLITS, Copies, open_dataset
from components.shared.data.dataset_store import SHARDS, read_recipe
from components.shared.data.decode import FORMATS, decoder
from components.shared.data.layout.left_out import BadImage
from components.shared.data.raw import Chunk, open_raw, write_raw
from components.shared.data.sources.idx import open_idx, write_idx
from components.shared.data.sources.schemes import Kind, open_source
from components.shared.evaluation.document import METRICS, EvaluationDocument
from components.shared.evaluation.exported_model import PackageDocument
from components.shared.models import factory, saved_model
from components.shared.parameters.registration import Registration
from components.shared.registry.champion import Verdict, decision_about, times_decided
from components.shared.registry.document import RegistryDocument
from components.shared.registry.registry import RegisteredModel
from components.shared.storage.client import open_store
from components.shared.storage.endpoint import check_name, parse_uri
from components.shared.training.checkpoints.manager import run_resumably
from components.shared.training.checkpoints.state import StateDict
from tests.dataset_writer import DatasetWriter
from tests.fuzz.archive_targets import (
    FILES,
    IMAGES,
    LABELS,
    archive,
    assert_inside,
    name_from_server,
    names_in_archives,
    nested_archives,
)
from tests.fuzz.mutations import sealed, sealed_png
from tests.fuzz.record_targets import labels, lease, redirect, step_record, url_record
from tests.fuzz.sample_targets import parquet, webdataset
from tests.fuzz.shelf import Shelf
from tests.fuzz.target import Target
from tests.models.documents import architecture, epoch, facts, history
from tests.sample_files import tar_bytes
from tests.small_packages import evaluation_of, figures_of, package_of, provenance_of
from tests.training.states import state_of

SIZE = 16  # of pictures
LOCAL = {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}


def dataset_document(folder: Path) -> Target:
    """dataset.json, with its checksum."""
    path = folder / "dataset.json"
    _write_dataset(folder)

    def read(content: bytes) -> None:
        path.write_bytes(sealed(content))
        _read_dataset(folder)

    return Target([path.read_bytes()], read)


def stored_dataset_document(folder: Path) -> Target:
    """dataset.json of prepared data in a store, with its checksum."""
    _write_dataset(folder)
    document = json.loads((folder / "dataset.json").read_bytes()) | {"samples_sha256": "a" * 64}
    shelf = Shelf()
    store: Any = shelf

    def read(content: bytes) -> None:
        shelf.objects["datasets/recipe/dataset.json"] = sealed(content)
        digest, names = read_recipe(store, "recipe")
        assert len(digest) == 64
        assert all(name.startswith(f"{SHARDS}/") and len(name) == len(f"{SHARDS}/.npy") + 64 for name in names)

    return Target([json.dumps(document).encode()], read)


def dataset_shard(name: str, folder: Path) -> Target:
    """A shard of a dataset, with its digest and size in dataset.json."""
    _write_dataset(folder)
    document = json.loads((folder / "dataset.json").read_bytes())
    shard = document["splits"]["train"]["shards"][0][name]
    original = (folder / shard["path"]).read_bytes()

    def read(content: bytes) -> None:
        (folder / shard["path"]).write_bytes(content)
        shard.update(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        (folder / "dataset.json").write_bytes(sealed(json.dumps(document).encode()))
        _read_dataset(folder)

    return Target([original], read)


def _write_dataset(folder: Path) -> None:
    counts = {"train": 3, "val": 2, "test": 1}
    writer = DatasetWriter(folder, classes=["a", "b"], image_shape=(1, 2, 2), counts=counts, shard_bytes=8)
    for split, count in counts.items():
        writer.append(split, np.arange(count * 4, dtype=np.uint8).reshape(count, 1, 2, 2), np.arange(count) % 2)
    copies = {"repeated_images": 2, "of_these_with_conflicting_labels": 1}
    of_splits = {name: dict.fromkeys(SPLITS, 1) for name in ("copies_dropped", "copies_kept_within_split")}
    writer.finish(
        raw_digest="a" * 64,
        parameters={"image_size": 2},
        code_version="b" * 12,
        duplicates=Copies.model_validate(copies | of_splits),
        bad_images=[BadImage(name="a/1.png", reason="it is broken")],
        name="small",
        source="file:///small",
        seconds={"download": 0.5},
    )


def _read_dataset(folder: Path) -> None:
    dataset = open_dataset(folder)
    for split in SPLITS:
        images, labels = dataset.load(split)
        assert images.shape == (dataset.counts[split], *dataset.image_shape)
        assert all(0 <= label < len(dataset.classes) for label in labels)


def raw_document(folder: Path) -> Target:
    """raw.json of each kind, next to its files."""
    facts: dict[str, Any] = {"name": "n", "source": "s", "version": "v", "classes": ["a", "b"], "seconds": 0.5}
    write_idx(folder / "images.gz", IMAGES)
    write_idx(folder / "labels", LABELS)
    splits = {"train": {"images": "images.gz", "labels": "labels"}}
    records = np.zeros((2, 3073), np.uint8).tobytes()
    batches = {"c/data_batch_1.bin": records, "c/test_batch.bin": records}
    (folder / "cifar.tar.gz").write_bytes(tar_bytes(batches))
    (folder / "pictures.tar").write_bytes(tar_bytes(FILES, "w"))
    layout = {"root": 0, "has_splits": True}
    kinds: list[tuple[Kind, list[str], dict[str, int], dict[str, Any]]] = [
        ("idx", ["images.gz", "labels"], {"train": 4}, {"splits": splits}),
        ("cifar", ["cifar.tar.gz"], {"train": 2, "test": 2}, {}),
        ("pictures", ["pictures.tar"], {"train": 2, "test": 2}, {"layout": layout}),
    ]
    seeds = []
    for kind, files, counts, rest in kinds:
        write_raw(folder, kind=kind, files=files, counts=counts, **facts, **rest)
        seeds.append((folder / "raw.json").read_bytes())

    def read(content: bytes) -> None:
        (folder / "raw.json").write_bytes(content)
        raw = open_raw(folder)
        assert isinstance(raw.name + raw.source + raw.digest, str)
        assert all(count >= 0 for count in raw.counts.values())
        for chunk in raw.chunks(3):
            assert all(0 <= label < len(raw.classes) for label in chunk.labels)
            assert len(chunk.names) == len(chunk.labels) == _samples(chunk)
            assert chunk.split in ("train", "val", "test", "all")

    return Target(seeds, read)


def _samples(chunk: Chunk) -> int:
    return len(chunk.encoded or []) if chunk.images is None else len(chunk.images)


def model_document(name: str, folder: Path) -> Target:
    """A model's model.json or history.json, with its checksum."""
    _write_model(folder)

    def read(content: bytes) -> None:
        (folder / name).write_bytes(sealed(content) if name == "model.json" else content)
        _read_model(folder)

    return Target([(folder / name).read_bytes()], read)


def model_weights(folder: Path) -> Target:
    """A model's safetensors, with its digest in model.json."""
    _write_model(folder)
    document = json.loads((folder / "model.json").read_bytes())
    weights = (folder / "model.safetensors").read_bytes()

    def read(content: bytes) -> None:
        (folder / "model.safetensors").write_bytes(content)
        document["weights_sha256"] = hashlib.sha256(content).hexdigest()
        (folder / "model.json").write_bytes(sealed(json.dumps(document).encode()))
        _read_model(folder)

    return Target([weights], read)


def model_header(folder: Path) -> Target:
    """The JSON at the start of a model's safetensors."""
    weights = model_weights(folder)
    whole = weights.seeds[0]
    size = int.from_bytes(whole[:8], "little")
    return Target(
        [whole[8 : 8 + size]],
        lambda content: weights.read(len(content).to_bytes(8, "little") + content + whole[8 + size :]),
    )


def _write_model(folder: Path) -> None:
    network = architecture(num_classes=2)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    trained = history(checkpoints=[7], seconds={"download": 0.5, "train": 1.5})
    saved_model.save(folder, factory.build(network), trained, **facts(network))


def _read_model(folder: Path) -> None:
    model = saved_model.load(folder)
    channels, height, width = model.image_shape
    with torch.inference_mode():
        logits = model.module((torch.zeros(1, channels, height, width) - model.mean[:, None, None]) / 0.5)
    assert logits.shape == (1, len(model.classes)) and len(model.digest) == 64
    assert model.mean.shape == model.std.shape == (channels,)


def idx(suffix: str, folder: Path) -> Target:
    """An IDX file."""
    path = folder / f"idx{suffix}"
    write_idx(path, IMAGES)

    def read(content: bytes) -> None:
        path.write_bytes(content)
        found = open_idx(path, 3)
        rows = np.concatenate(list(found.rows(3)))
        assert rows.shape == found.shape

    return Target([path.read_bytes()], read)


def address(folder: Path) -> Target:
    """Addresses of data and of the store, the server's address, an object's name, and a model's."""
    seeds: tuple[str, ...] = (
        "https://example.org/x.zip#sha256=" + "0" * 64,
        "s3://bucket/pre/fix",
        "s3://bucket/x.tar.gz",
    )
    seeds += (
        "file:///tmp/x%20y",
        "mnist",
        "./x",
        "http://[::1]:9000",
        "http://127.0.0.1:8333",
        "a/b/c.npy",
        "digits-2",
    )

    def read(content: bytes) -> None:
        text = content.decode(errors="surrogateescape")
        _refused_in_words(lambda: open_source(text))
        _refused_in_words(lambda: open_store(text, LOCAL))
        _refused_in_words(lambda: open_store("s3://bucket/prefix", LOCAL | {"AWS_ENDPOINT_URL_S3": text}))
        _refused_in_words(lambda: _assert_prefix(parse_uri(text)[1]))
        _refused_in_words(lambda: _check_object(text))
        _refused_in_words(lambda: _check_model(text))

    return Target([seed.encode() for seed in seeds], read)


def _check_object(name: str) -> None:
    check_name(name)
    assert_inside(name)


def _check_model(name: str) -> None:
    Registration.of(model_name=name)
    assert_inside(f"models/{name}")


def _assert_prefix(prefix: str) -> None:
    assert not prefix or prefix.endswith("/")
    if prefix:
        assert_inside(prefix)


def _refused_in_words(attempt: Callable[[], object]) -> None:
    try:
        attempt()
    except UserError as error:
        assert str(error).strip()


def pictures(folder: Path) -> Target:
    """Pictures of every format and mode; the CRCs of a PNG are made valid."""
    colour = np.random.default_rng(0).integers(0, 256, (24, 20, 4), np.uint8)
    images = [
        Image.fromarray(colour),
        Image.fromarray(colour[:, :, :3].copy()),
        Image.fromarray(colour[:, :, 0].copy()),
    ]
    images += [Image.fromarray(colour[:, :, 0].astype(np.uint16) * 257), images[1].quantize(16), images[2].convert("1")]
    images += [images[1].convert(mode) for mode in ("CMYK", "YCbCr", "HSV")]
    images += [images[2].convert(mode) for mode in ("LA", "I", "F")]
    seeds = []
    for image in images:
        for kind in FORMATS:
            with suppress(OSError, ValueError):  # the format has no such mode
                file = io.BytesIO()
                image.save(file, kind)
                seeds.append(file.getvalue())

    def read(content: bytes) -> None:
        with decoder(SIZE, ValueRange(low=-10, high=300), memory=2**28) as decode_all:
            (found,) = decode_all([sealed_png(content) if content.startswith(b"\x89PNG") else content])
        if not isinstance(found, np.ndarray):
            raise UserError(str(found))
        assert found.shape in ((1, SIZE, SIZE), (3, SIZE, SIZE)) and found.dtype == np.uint8

    return Target(seeds, read)


class _Counter:
    """A training whose only state is a number."""

    key = "key"

    def __init__(self) -> None:
        self.number, self.completed_steps = torch.zeros(3), 0

    def steps(self) -> Iterator[None]:
        self.number += 1
        self.completed_steps += 1
        yield

    def state_dict(self) -> StateDict:
        return StateDict({"number": self.number}, state_of(self.key, step=self.completed_steps))

    def load_state_dict(self, state: StateDict) -> None:
        document = state.document
        assert document.key == self.key and type(document.step) is int and document.step >= 0
        assert [row.epoch for row in document.epochs] == list(range(1, len(document.epochs) + 1))
        assert all(math.isfinite(value) for row in document.epochs for _, value in row)
        seconds = (document.waited, document.stepped, document.seconds, document.epoch_seconds)
        assert all(map(math.isfinite, (document.total_loss, *seconds)))
        if document.step >= 10**10:
            raise CorruptDataError("it has no number of steps")
        self.number.copy_(state.tensors["number"])
        self.completed_steps = document.step


def checkpoint(folder: Path) -> Target:
    """The safetensors file of a checkpoint."""
    return _checkpoint(folder, lambda content: content)


def checkpoint_state(folder: Path) -> Target:
    """The JSON in a checkpoint's metadata, with its checksum."""
    tensors = {"number": torch.ones(3)}

    def file_of(content: bytes) -> bytes:
        state = content.decode(errors="replace")
        digest = hashlib.sha256(state.encode())
        digest.update(tensors["number"].view(torch.uint8).numpy().tobytes())
        return safetensors_bytes(tensors, {"state": state, "checksum": digest.hexdigest()})

    whole = _checkpoint(folder, file_of)
    begun = state_of(_Counter.key, step=1)
    validated = begun.model_copy(update={"epochs": [epoch(1), epoch(2)]})
    ended = validated.model_copy(update={"step": 0, "stopped": "no better epoch"})
    return Target([document.to_json() for document in (begun, validated, ended)], whole.read)


def _checkpoint(folder: Path, file_of: Callable[[bytes], bytes]) -> Target:
    shelf, log = Shelf(), io.StringIO()
    store: Any = shelf

    def resume() -> _Counter:
        training = _Counter()
        with redirect_stdout(log):
            run_resumably(training, store, 999, folder)
        return training

    resume()
    ((name, seed),) = shelf.objects.items()

    def read(content: bytes) -> None:
        shelf.objects = {name: file_of(content)}
        training = resume()
        if torch.equal(training.number, torch.ones(3)):
            raise UserError(f"it started over: {log.getvalue()}")

    return Target([seed], read)


def register_document(folder: Path) -> Target:
    """register.json of a model store."""
    shelf, model = _model_store(folder)
    place = "models/m/register.json"

    def read(content: bytes) -> None:
        shelf.objects[place] = content
        register = model.read()
        decided = times_decided(register.decisions, "a" * 64)
        assert 0 <= decided <= len(register.decisions)
        for entry in register.versions:
            assert model.entry(entry.version) == entry
            decision_about(register, entry.version)
            with suppress(UserError):
                model.promote(entry.version)
            with suppress(UserError):
                model.rollback()

    return Target([shelf.objects[place]], read)


def version_document(folder: Path) -> Target:
    """version.json of a model store."""
    shelf, model = _model_store(folder)
    place = "models/m/versions/1/version.json"

    def read(content: bytes) -> None:
        shelf.objects[place] = content
        document = model.read_version(1)
        for name in document.files:
            with suppress(UserError):
                model.versions.download(document, name, folder / "file")
        with suppress(UserError):
            model.versions.read_predictions(document, 1)

    return Target([shelf.objects[place]], read)


def package_document(folder: Path) -> Target:
    """package.json, with its digest."""
    path = folder / "package.json"
    package_of(classes=["a", "b"], image_shape=[1, 4, 4]).write(path)

    def read(content: bytes) -> None:
        path.write_bytes(sealed(content, "digest"))
        package = PackageDocument.read(path)
        assert len(package.classes) > 0 and 0 <= package.test_accuracy <= 1
        assert all(tensor.sizes for tensor in (package.input, package.output))
        assert all(len(package.files[name].sha256) == 64 for name in ("model.onnx", "model.pt2"))
        assert all(math.isfinite(value) for value in package.metrics.values())

    return Target([path.read_bytes()], read)


def evaluation_document(folder: Path) -> Target:
    """evaluation.json, as the steps after evaluate read it."""
    path = folder / "evaluation.json"
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]], np.float32)
    labels, digests = np.array([0, 1, 1]), {"dataset": "a" * 64, "model": "b" * 64}
    evaluation = evaluation_of(probabilities, labels, ["a", "b"], **digests)
    seconds = {"train": 1.5, "evaluate": 0.5}

    def read(content: bytes) -> None:
        path.write_bytes(content)
        evaluated = EvaluationDocument.read(path)
        assert len(evaluated.dataset_digest) == len(evaluated.model_digest) == 64
        assert all(math.isfinite(getattr(evaluated, name)) for name in METRICS)
        assert all(math.isfinite(seconds) for seconds in evaluated.seconds.values())
        assert len(evaluated.classes) == len(evaluated.per_class) == len(evaluated.confusion_matrix)
        assert all(len(row) == len(evaluated.classes) for row in evaluated.confusion_matrix)

    return Target([evaluation.model_copy(update={"seconds": seconds}).to_json()], read)


def _model_store(folder: Path) -> tuple[Shelf, RegisteredModel]:
    """A model with two versions, the first with files, of which the second took the champion's place."""
    shelf = Shelf()
    store: Any = shelf
    model = RegisteredModel(store, "m")
    own = ["model.safetensors", "model.json", "model.pt2", "package.json", "predictions.npy", model.versions.onnx_path]
    for name in own:
        (folder / Path(name).name).write_bytes(name.encode())
    package, provenance = package_of(classes=["a", "b"], image_shape=[1, 4, 4]), provenance_of()
    paths = {name: (folder / Path(name).name, "") for name in own}
    for digit in "12":
        entry = model.reserve_version(
            digit * 64,
            accuracy=0.5,
            images=10,
            test_split_digest=provenance.test_split_digest,
            model_digest=provenance.model_digest,
            run_id="run",
        )
        model.versions.upload(entry, paths, package, provenance, folder)
        verdict = Verdict(True, figures_of() if entry.version > 1 else None, "better")
        model.finalize(entry.version, partial(_decide, verdict))
    return shelf, model


def _decide(verdict: Verdict, _: RegistryDocument) -> Verdict:
    return verdict


TARGETS: Mapping[str, Callable[[Path], Target]] = {
    "dataset-document": dataset_document,
    "stored-dataset-document": stored_dataset_document,
    "dataset-images": partial(dataset_shard, "images"),
    "dataset-labels": partial(dataset_shard, "labels"),
    "raw-document": raw_document,
    "model-document": partial(model_document, "model.json"),
    "model-history": partial(model_document, "history.json"),
    "model-weights": model_weights,
    "model-header": model_header,
    "checkpoint": checkpoint,
    "checkpoint-state": checkpoint_state,
    "register-document": register_document,
    "version-document": version_document,
    "package-document": package_document,
    "evaluation-document": evaluation_document,
    "idx": partial(idx, ""),
    "idx-gz": partial(idx, ".gz"),
    "zip": partial(archive, ".zip"),
    "tar": partial(archive, ".tar"),
    "tar-gz": partial(archive, ".tar.gz"),
    "tar-bz2": partial(archive, ".tar.bz2"),
    "tar-xz": partial(archive, ".tar.xz"),
    "tar-zst": partial(archive, ".tar.zst"),
    "nested-archives": nested_archives,
    "served-name": name_from_server,
    "names-in-zip": partial(names_in_archives, ".zip"),
    "names-in-tar": partial(names_in_archives, ".tar"),
    "address": address,
    "redirect": redirect,
    "url-record": url_record,
    "step-record": step_record,
    "lease": lease,
    "labels-in-zip": partial(labels, "zip"),
    "labels-in-tar": partial(labels, "tar.gz"),
    "pictures": pictures,
    "parquet": parquet,
    "webdataset": webdataset,
}
