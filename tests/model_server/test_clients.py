"""Triton's clients and KServe's, in processes of their own environment: they find what the program predicts."""

import io
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.model_server.running_server import SHAPE, package_in, served

CLIENTS = ROOT / ".venv-clients" / "bin" / "python"
IMAGES = np.random.default_rng(2).integers(0, 256, (3, *SHAPE), np.uint8)


@pytest.mark.slow
@pytest.mark.skipif(not CLIENTS.exists(), reason="the clients have an environment of their own: `make test` makes it")
@pytest.mark.parametrize("script", ["ask_by_triton.py", "ask_by_kserve.py"])
def test_real_clients_find_what_the_program_predicts(script: str, tmp_path: Path) -> None:
    current = package_in(tmp_path / "package")
    images = io.BytesIO()
    np.save(images, IMAGES)
    with served(current) as address:
        words = [str(CLIENTS), str(Path(__file__).with_name(script)), str(address.port), str(address.grpc_port)]
        done = subprocess.run(words, input=images.getvalue(), capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    by_rest, by_grpc = json.loads(done.stdout).values()
    for told in (by_rest, by_grpc):
        assert told["ready"] and told.get("input", "images") == "images"
        assert len(told["probabilities"]) == 2
        for probabilities in told["probabilities"]:
            np.testing.assert_allclose(np.array(probabilities, np.float32), current.served.classify(IMAGES), rtol=1e-6)
    assert by_rest["refused"].startswith("400: ") and "the shape of images is [N, 1, 16, 16]" in by_rest["refused"]
    assert by_grpc["refused"].startswith("StatusCode.INVALID_ARGUMENT: the shape of images is [N, 1, 16, 16]")
