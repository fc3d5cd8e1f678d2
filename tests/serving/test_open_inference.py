"""The client of model servers, and the smoke test: pytest tests/serving/test_open_inference.py"""

from collections.abc import Iterator
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest

from components.shared.serving.inside import connect_inside
from components.shared.serving.kserve import Pods
from components.shared.serving.open_inference import Connect, NotServed
from components.shared.serving.smoke_test import Samples, SmokeTest, smoke_test
from tests.servers.kserve.model_server import ModelServer, model_server
from tests.serving.conftest import Cluster
from tests.serving.small_models import NAME, document_of, samples_of, write_onnx


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_onnx(tmp_path_factory.mktemp("onnx") / "model.onnx", 1)


@pytest.fixture
def served(onnx: Path) -> Iterator[ModelServer]:
    with model_server(NAME, onnx) as server:
        yield server


def connect_to(server: ModelServer) -> Connect:
    return partial(HTTPConnection, "127.0.0.1", server.server_port)


def ask(server: ModelServer, samples: Samples) -> SmokeTest:
    return smoke_test(connect_to(server), document_of(1), samples)


@pytest.mark.parametrize("extensions", [["binary_tensor_data"], []], ids=["bytes", "json"])
def test_images_are_sent_as_the_server_takes_them(served: ModelServer, onnx: Path, extensions: list[str]) -> None:
    served.extensions = extensions
    found = ask(served, samples_of(onnx))
    assert found.images == 20 and found.largest_difference <= 1e-6 and found.package_digest is None
    assert served.was_binary == bool(extensions)


def test_the_digest_of_the_package_is_compared(served: ModelServer, onnx: Path) -> None:
    digest = document_of(1).package_digest
    served.parameters = {"package_digest": {"string_value": digest}}
    assert ask(served, samples_of(onnx)).package_digest == digest
    served.parameters = {"package_digest": {"string_value": "f" * 64}}
    with pytest.raises(NotServed, match=f"the served package is {'f' * 64}, and version 1 {digest}; it serves"):
        ask(served, samples_of(onnx))


def test_probabilities_may_differ_as_little_as_in_parity(served: ModelServer, onnx: Path) -> None:
    served.bias = 5e-5
    assert 4e-5 < ask(served, samples_of(onnx)).largest_difference < 6e-5
    served.bias = 2e-4
    with pytest.raises(NotServed, match=r"by up to 0.0002 in a probability \(allowed: 0.0001\)"):
        ask(served, samples_of(onnx))


def test_a_model_of_another_shape_is_not_the_version(served: ModelServer, onnx: Path) -> None:
    document = document_of(1)
    other = document.model_copy(update={"input": document.input.model_copy(update={"shape": ["batch", 3, 4, 4]})})
    with pytest.raises(NotServed, match=r"has the input \('images', 'UINT8', \[1, 4, 4\]\), and the version"):
        smoke_test(connect_to(served), other, samples_of(onnx))


def test_answers_that_are_none_are_reported(served: ModelServer, onnx: Path) -> None:
    with pytest.raises(NotServed, match="the model server answers 404 to /v2/models/other: Request for unknown model"):
        smoke_test(connect_to(served), document_of(1).model_copy(update={"name": "other"}), samples_of(onnx))
    closed = partial(HTTPConnection, "127.0.0.1", 1)
    with pytest.raises(NotServed, match="the model server does not answer /v2/models/shades"):
        smoke_test(closed, document_of(1), samples_of(onnx))
    served.session = None
    with pytest.raises(NotServed, match="the model server does not answer"):
        ask(served, Samples(np.zeros((1, 1, 4, 4), np.uint8), np.zeros((1, 2), np.float32)))


def test_a_pod_reaches_a_server_by_service_or_address(cluster: Cluster) -> None:
    by_name = connect_inside(cluster.kserve.api, Pods("serve", "app=a", 8080, ("a.serve.svc", 80)))()
    assert (by_name.host, by_name.port) == ("a.serve.svc", 80)
    cluster.server.add(
        "/api/v1/namespaces/serve/pods/a",
        metadata={"name": "a", "labels": {"app": "a"}},
        status={"phase": "Running", "podIP": "10.0.0.7"},
    )
    by_pod = connect_inside(cluster.kserve.api, Pods("serve", "app=a", 8080, None))()
    assert (by_pod.host, by_pod.port) == ("10.0.0.7", 8080)
    with pytest.raises(NotServed, match="no pod app=b runs in namespace serve"):
        connect_inside(cluster.kserve.api, Pods("serve", "app=b", 8080, None))
