"""The v2 protocol by REST and by gRPC: what is answered, and what is refused and how."""

import gzip
import json
import socket
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from components.shared.core.errors import UserError
from components.shared.model_server import rest
from components.shared.model_server.champion import Current
from components.shared.model_server.options import Options
from components.shared.model_server.program import open_folder
from components.shared.model_server.server import Address, serve
from components.shared.serving.smoke_test import Samples, smoke_test
from tests.model_server.running_server import (
    INFER,
    NAME,
    SHAPE,
    ask,
    binary,
    floats,
    message,
    package_in,
    served,
    tensor,
)
from tests.model_server.running_server import stub as stub_of
from tests.small_packages import version_of

LIMIT = 100_000
IMAGES = np.random.default_rng(3).integers(0, 256, (3, *SHAPE), np.uint8)
PIXELS = IMAGES[:1].ravel().tolist()
OTHER_WIDTH = [1, 1, 16, 17]
EMPTY = [0, *SHAPE]


@pytest.fixture(scope="module")
def current(tmp_path_factory: pytest.TempPathFactory) -> Current:
    return package_in(tmp_path_factory.mktemp("package") / "package")


@pytest.fixture(scope="module")
def address(current: Current) -> Iterator[Address]:
    with served(current, max_bytes=LIMIT) as address:
        yield address


@pytest.fixture(scope="module")
def stub(address: Address) -> Iterator[Any]:
    with stub_of(address) as stub:
        yield stub


def _message(**changes: Any) -> Any:
    return message(IMAGES[:1], **changes)


def test_bytes_and_numbers_get_the_program_s_probabilities(address: Address, current: Current) -> None:
    wanted = current.served.classify(IMAGES)
    body, headers = binary(IMAGES)
    np.testing.assert_array_equal(floats(ask(address, INFER, body, **headers)), wanted)
    for data in (IMAGES.tolist(), IMAGES.ravel().tolist()):
        body = json.dumps({"id": "7", "inputs": [tensor(IMAGES.shape, data=data)]}).encode()
        answer = ask(address, INFER, body)
        (output,) = answer.json["outputs"]
        assert (answer.status, answer.json["id"], answer.json["model_name"]) == (200, "7", NAME)
        assert (output["name"], output["datatype"], output["shape"]) == ("probabilities", "FP32", [3, 2])
        np.testing.assert_array_equal(np.array(output["data"], np.float32).reshape(3, 2), wanted)


def test_grpc_gives_the_same(stub: Any, current: Current) -> None:
    wanted = current.served.classify(IMAGES)
    contents = service_pb2.InferTensorContents(uint_contents=IMAGES.ravel().tolist())
    numbers = service_pb2.ModelInferRequest.InferInputTensor(
        name="images", datatype="UINT8", shape=IMAGES.shape, contents=contents
    )
    for request in (message(IMAGES, id="7"), message(IMAGES, id="7", inputs=[numbers], raw_input_contents=[])):
        answer = stub.ModelInfer(request)
        assert (answer.id, answer.model_name, answer.model_version) == ("7", NAME, current.served.version)
        found = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(answer.outputs[0].shape)
        np.testing.assert_array_equal(found, wanted)


def test_health_and_metadata(address: Address, stub: Any, current: Current) -> None:
    assert ask(address, "/v2/health/live").json == {"live": True}
    assert ask(address, "/v2/health/ready").json == {"ready": True}
    version = current.served.version
    for path in (f"/v2/models/{NAME}", f"/v2/models/{NAME}/versions/{version}"):
        assert ask(address, f"{path}/ready").json == {"name": NAME, "ready": True}
        found = ask(address, path).json
        assert found["versions"] == [version]
        assert found["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 1, 16, 16]}]
        assert found["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}]
    assert stub.ServerLive(service_pb2.ServerLiveRequest()).live
    assert stub.ServerReady(service_pb2.ServerReadyRequest()).ready
    assert stub.ModelReady(service_pb2.ModelReadyRequest(name=NAME)).ready
    told = stub.ModelMetadata(service_pb2.ModelMetadataRequest(name=NAME))
    assert ([*told.inputs[0].shape], told.outputs[0].datatype) == ([-1, 1, 16, 16], "FP32")
    config = stub.ModelConfig(service_pb2.ModelConfigRequest(name=NAME)).config
    assert config.parameters["package_digest"].string_value == current.served.package.digest


def _one(**changes: Any) -> bytes:
    return json.dumps({"inputs": [tensor(**changes)]}).encode()


WRONG = {
    "no JSON": (b"{", "no JSON"),
    "no object": (b"[]", "no JSON object"),
    "nested too deep": (b"[" * 50_000, "no JSON"),
    "no inputs": (b"{}", "inputs is a list with one tensor"),
    "an input that is no object": (b'{"inputs": [3]}', "inputs is a list with one tensor"),
    "another input": (_one(name="pixels", data=PIXELS), "no input pixels"),
    "another type": (_one(datatype="FP32", data=PIXELS), "is UINT8, not FP32"),
    "another width": (_one(shape=OTHER_WIDTH, data=PIXELS), r"[N, 1, 16, 16] with N >= 1"),
    "no image": (_one(shape=EMPTY, data=[]), "with N >= 1"),
    "a shape of booleans": (_one(shape=[True, *SHAPE], data=PIXELS), "with N >= 1"),
    "no data": (_one(), "neither data nor binary_data_size"),
    "too few numbers": (_one(data=PIXELS[1:]), "256 numbers, and 255 were sent"),
    "too large a number": (_one(data=[*PIXELS[1:], 256]), "from 0 to 255, not"),
    "a negative number": (_one(data=[*PIXELS[1:], -1]), "from 0 to 255, not"),
    "a fraction": (_one(data=[*PIXELS[1:], 0.5]), "whole numbers"),
    "a text": (_one(data=[*PIXELS[1:], "a"]), "whole numbers"),
    "a huge number": (_one(data=[*PIXELS[1:], 10**30]), "whole numbers"),
    "lists of different lengths": (_one(data=[PIXELS, 1]), "no regular list"),
    "shared memory": (_one(parameters={"shared_memory_region": "a"}, data=PIXELS), "not known: shared_memory_region"),
    "bytes that are not there": (_one(parameters={"binary_data_size": 256}), "0 bytes follow the JSON"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_requests_are_refused(case: str, address: Address) -> None:
    body, why = WRONG[case]
    answer = ask(address, INFER, body)
    assert answer.status == 400 and why in answer.json["error"]


def test_wrong_lengths_of_bytes_are_refused(address: Address) -> None:
    body, headers = binary(IMAGES)
    for length in ("x", "-1", "", "1e3", "99999999", "999999999999999999999"):
        answer = ask(address, INFER, body, Inference_Header_Content_Length=length)
        assert answer.status == 400 and "Inference-Header-Content-Length" in answer.json["error"]
    assert "bytes follow the JSON" in ask(address, INFER, body[:-1], **headers).json["error"]
    for size in (1, "x", True, 10**20):
        body, headers = binary(IMAGES, parameters={"binary_data_size": size})
        answer = ask(address, INFER, body, **headers)
        assert answer.status == 400 and "bytes follow the JSON" in answer.json["error"]
    body, headers = binary(IMAGES, data=[1])
    assert "both data and binary_data_size" in ask(address, INFER, body, **headers).json["error"]


def test_wrong_outputs_and_models_are_refused(address: Address) -> None:
    for outputs, why in (
        ([{"name": "logits"}], "no output logits"),
        ([{"name": "probabilities"}] * 2, "asked for 2 times"),
        ([{"name": "probabilities", "parameters": {"classification": 3}}], "not known: classification"),
        ([{"name": "probabilities", "parameters": {"binary_data": 1}}], "true or false"),
        (["probabilities"], "a list of JSON objects"),
    ):
        body = json.dumps({"inputs": [tensor(data=PIXELS)], "outputs": outputs}).encode()
        answer = ask(address, INFER, body)
        assert answer.status == 400 and why in answer.json["error"]
    for path in ("/v2/models/other/infer", f"/v2/models/{NAME}/versions/9/infer"):
        answer = ask(address, path, _one(data=PIXELS))
        assert (answer.status == 404 and "is served" in answer.json["error"]) or "is" in answer.json["error"]
    assert ask(address, "/v2/models/other").status == ask(address, "/v3").status == 404
    assert ask(address, INFER).status == 405


GRPC = grpc.StatusCode
SHARED = service_pb2.ModelInferRequest.InferInputTensor(name="images", datatype="UINT8", shape=IMAGES[:1].shape)
SHARED.parameters["shared_memory_region"].string_param = "a"
WRONG_MESSAGES: dict[str, tuple[dict[str, Any], Any]] = {
    "another model": ({"model_name": "other"}, GRPC.NOT_FOUND),
    "another version": ({"model_version": "9"}, GRPC.NOT_FOUND),
    "no inputs": ({"inputs": []}, GRPC.INVALID_ARGUMENT),
    "too few bytes": ({"raw_input_contents": [b"a"]}, GRPC.INVALID_ARGUMENT),
    "no bytes": ({"raw_input_contents": []}, GRPC.INVALID_ARGUMENT),
    "the bytes of two inputs": ({"raw_input_contents": [b"a", b"b"]}, GRPC.INVALID_ARGUMENT),
    "shared memory": ({"inputs": [SHARED]}, GRPC.INVALID_ARGUMENT),
    "another output": (
        {"outputs": [service_pb2.ModelInferRequest.InferRequestedOutputTensor(name="logits")]},
        GRPC.INVALID_ARGUMENT,
    ),
}


@pytest.mark.parametrize("case", WRONG_MESSAGES)
def test_wrong_messages_are_refused(case: str, stub: Any) -> None:
    changes, code = WRONG_MESSAGES[case]
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(_message(**changes))
    assert refused.value.code() == code


def test_what_is_too_large_is_refused(address: Address, stub: Any) -> None:
    images = np.zeros((LIMIT // 256 + 1, *SHAPE), np.uint8)
    body, headers = binary(images)
    for content, coding in ((body, "identity"), (gzip.compress(body), "gzip")):
        answer = ask(address, INFER, content, **headers, Content_Encoding=coding)
        assert answer.status == 413 and "more than 100,000 bytes" in answer.json["error"]
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(message(images))
    assert refused.value.code() == GRPC.RESOURCE_EXHAUSTED
    assert ask(address, "/v2/health/ready").status == 200


def test_slow_and_broken_connections_are_closed(current: Current, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "SECONDS_TO_SEND", 0.2)
    monkeypatch.setattr(rest, "SECONDS_TO_BEGIN", 0.2)
    head = f"POST {INFER} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n".encode()
    with served(current) as address:
        for sent, answered in ((b"", b""), (b"GET /v2 HT", b""), (head + b"{", b"HTTP/1.1 408 ")):
            with socket.create_connection((address.host, address.port), timeout=10) as connection:
                connection.sendall(sent)
                assert connection.recv(13) == answered
        with socket.create_connection((address.host, address.port)) as connection:
            connection.sendall(head + b"{")
        body, headers = binary(IMAGES)
        assert ask(address, INFER, body, **headers).status == 200
        assert b"serve_held_bytes 0.0" in ask(address, "/metrics").content


def test_too_many_bytes_at_once_are_refused(current: Current, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "REQUESTS_HELD", 0)
    body, headers = binary(IMAGES)
    with served(current) as address:
        answer = ask(address, INFER, body, **headers)
    assert answer.status == 503 and "send it again later" in answer.json["error"]


def test_requests_are_counted(current: Current) -> None:
    body, headers = binary(IMAGES)
    with served(current) as address, stub_of(address) as stub:
        ask(address, INFER, body, **headers)
        ask(address, INFER, b"{")
        stub.ModelInfer(message(IMAGES))
        lines = ask(address, "/metrics").content.decode().splitlines()
    version = current.served.version
    for line in (
        'serve_requests_total{code="200",protocol="rest"} 1.0',
        'serve_requests_total{code="400",protocol="rest"} 1.0',
        'serve_requests_total{code="200",protocol="grpc"} 1.0',
        f'serve_images_total{{version="{version}"}} 6.0',
    ):
        assert line in lines
    assert [line for line in lines if line.startswith("serve_model{") and current.served.package.digest in line]


def test_a_damaged_package_is_not_served(tmp_path: Path) -> None:
    package_in(tmp_path / "package")
    with (tmp_path / "package/model.onnx").open("ab") as file:
        file.write(b" ")
    with pytest.raises(UserError, match="differs from its digest"):
        open_folder(tmp_path / "package", 1)


def test_a_port_that_is_used_is_said(current: Current) -> None:
    with served(current) as address:
        for ports, option in (((address.port, 0), "--port"), ((0, address.grpc_port), "--grpc-port")):
            options = Options(port=ports[0], grpc_port=ports[1])
            with pytest.raises(UserError, match=f"port .* of 127.0.0.1 cannot be used; give another {option}"):
                serve(current, options, lambda address: pytest.fail(str(address)))


def test_an_address_of_another_machine_is_said(current: Current) -> None:
    with pytest.raises(UserError, match=r"--host 192\.0\.2\.1 is no address of this machine; give one that it has"):
        serve(current, Options(host="192.0.2.1", port=0, grpc_port=0), lambda address: pytest.fail(str(address)))


def test_the_smoke_test_of_deploy_passes(current: Current) -> None:
    package = current.served.package
    document = version_of(package, name=NAME)
    samples = Samples(IMAGES, current.served.classify(IMAGES))
    with served(current) as address:
        found = smoke_test(lambda: HTTPConnection(address.host, address.port), document, samples)
    assert (found.package_digest, found.largest_difference) == (package.digest, 0)
