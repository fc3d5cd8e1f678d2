"""Versions of a small classifier in a store, and a cluster with KServe whose pods serve them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from components.shared.registry.champion import Verdict
from components.shared.registry.registry import RegisteredModel
from components.shared.registry.versions import SAMPLES
from components.shared.serving.inference_service import RUNTIME
from components.shared.storage.client import Store
from tests.servers.kserve.model_server import model_server
from tests.servers.kserve.server import SERVICES, KserveServer, kserve_server
from tests.serving.conftest import NAMESPACE, add_namespace
from tests.serving.small_models import NAME, SHAPE, samples_of, write_onnx
from tests.small_packages import CLASSES, fingerprint, package_of, provenance_of

PATH = f"{SERVICES}/namespaces/{NAMESPACE}/inferenceservices/{NAME}"
FILES = ("model.safetensors", "model.json", "model.pt2", "package.json", "predictions.npy")


def register(store: Store, folder: Path, number: int, keeps_images: bool = True) -> RegisteredModel:
    """Register version `number` of a small classifier, as the champion."""
    onnx = write_onnx(folder / "model.onnx", number)
    for name in FILES:
        (folder / name).write_bytes(name.encode())
    samples = samples_of(onnx)
    np.save(folder / SAMPLES[0], samples.images)
    np.save(folder / SAMPLES[1], samples.probabilities)
    model = RegisteredModel(store, NAME)
    programs = {name: fingerprint(onnx) for name in ("model.onnx", "model.pt2")}
    package = package_of(classes=CLASSES, image_shape=SHAPE, files=programs)
    digests = {"test_split_digest": "a" * 64, "model_digest": "b" * 64}
    entry = model.reserve_version(f"{number:064x}", accuracy=0.5, images=10, run_id="run", **digests)
    names = (*FILES, *(SAMPLES if keeps_images else ()))
    files = {name: (folder / name, "") for name in names} | {model.versions.onnx_path: (onnx, "")}
    model.versions.upload(entry, files, package, provenance_of(), folder, 20 if keeps_images else 0)
    model.finalize(number, lambda _: Verdict(True, None, "the first"))
    return model


@contextmanager
def serving_cluster(store: Store, folder: Path) -> Iterator[KserveServer]:
    """Yield a cluster with KServe, whose pods serve versions 1 and 2, of which 2 is the champion."""
    with ExitStack() as stack:
        server = stack.enter_context(kserve_server())
        add_namespace(server)
        server.add_runtime(RUNTIME)
        for number in (1, 2):
            model = register(store, folder / str(number), number)
            served = stack.enter_context(model_server(NAME, folder / str(number) / "model.onnx"))
            server.models[f"{model.uri(number)}/serving"] = served.server_port
        yield server
