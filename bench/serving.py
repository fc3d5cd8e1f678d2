"""How much the model server adds to ONNX Runtime: `python bench/serving.py` (needs .venv-clients, and two cores).

The server runs on one core, the client (Triton's, with tensors in bytes, on connections that stay) on another one, and
the reference, ONNX Runtime in a process of its own, on the server's core while the server is idle. Round by round, so
that all meet the same machine: the median round trip at batch 1 minus the median `session.run`, and images/s in
requests of 64 as a share of the reference's. The networks have random weights, which take the same time.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measure import ROOT, median, write_result
from packages import SHAPES, write_package

CLIENT = ROOT / ".venv-clients" / "bin" / "python"
BATCH = 64
CONNECTIONS = 2  # of which one sends while the other waits for its answer
PROTOCOLS = ("rest", "grpc")
REFERENCE = """
import json, sys, time
import numpy as np
from pathlib import Path
from components.shared.evaluation.inference import load_onnx
path, shape, count = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
classify = load_onnx(Path(path), 1)
images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
seconds = []
for _ in range(count + 2):
    started = time.perf_counter()
    classify(images)
    seconds.append(time.perf_counter() - started)
print(json.dumps({"seconds": seconds[2:], "all": sum(seconds[2:])}))
"""


def main() -> None:
    """Measure, print, and write `bench/results/serving.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=1000, help="at batch 1, of LeNet-5; a tenth of ResNet-18")
    parser.add_argument("--batches", type=int, default=200, help="of 64 images, of LeNet-5; a fiftieth of ResNet-18")
    parser.add_argument("--networks", nargs="*", choices=SHAPES, default=list(SHAPES))
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:2]
    load, found = os.getloadavg()[0], {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.networks:
            package = Path(scratch) / name
            write_package(package, name)
            is_small = name == "lenet5"
            requests = arguments.requests // (1 if is_small else 10), arguments.batches // (1 if is_small else 50)
            found[name] = _measure(package, SHAPES[name], cores, arguments.rounds, *requests)
            print(name, json.dumps(found[name]["medians"]), flush=True)
    print(write_result("serving", {"load_average": load, "networks": found}).relative_to(ROOT))


def _measure(package: Path, shape: list[int], cores: list[int], rounds: int, ones: int, batches: int) -> dict[str, Any]:
    """Return the figures of each round, and their medians."""
    figures: list[dict[str, float]] = []
    with _server(package, cores[0]) as ports:
        for _ in range(rounds):
            figures.append(_round(package, shape, cores, ports, ones, batches))
    medians = {name: median(one[name] for one in figures) for name in figures[0]}
    return {"shape": shape, "requests": ones, "batches": batches, "medians": medians, "rounds": figures}


def _round(
    package: Path, shape: list[int], cores: list[int], ports: dict[str, str], ones: int, batches: int
) -> dict[str, float]:
    one, many = [1, *shape], [BATCH, *shape]
    onnx = str(package / "model.onnx")
    alone = median(_child(cores[0], [sys.executable, "-c", REFERENCE, onnx, json.dumps(one), str(ones)])["seconds"])
    reference = _child(cores[0], [sys.executable, "-c", REFERENCE, onnx, json.dumps(many), str(batches)])
    rate = BATCH * len(reference["seconds"]) / reference["all"]
    found = {"session_run_ms": 1000 * alone, "images_per_second": rate}
    for protocol in PROTOCOLS:
        ask = [str(CLIENT), str(ROOT / "bench/serving_client.py"), protocol, ports[protocol], "model"]
        (trips,) = _clients(cores[1], [*ask, json.dumps(one), str(ones)], 1)
        served = _clients(cores[1], [*ask, json.dumps(many), str(batches // CONNECTIONS)], CONNECTIONS)
        found[f"{protocol}_added_ms"] = 1000 * (median(trips["seconds"]) - alone)
        images = BATCH * sum(len(client["seconds"]) for client in served)
        found[f"{protocol}_share"] = images / max(client["all"] for client in served) / rate
    return found


@contextmanager
def _server(package: Path, core: int) -> Iterator[dict[str, str]]:
    """Serve a package on a core, with one thread for the program; yield the ports."""
    words = ["serve", "--model", str(package), "--port", "0", "--grpc-port", "0", "--threads", "1"]
    command = ["taskset", "-c", str(core), sys.executable, "pipeline.py", *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            lines = "".join(process.stdout.readline() for _ in range(3))
            rest, grpc = re.findall(r"127\.0\.0\.1:(\d+)", lines)
            yield {"rest": rest, "grpc": grpc}
        finally:
            process.terminate()


def _clients(core: int, command: list[str], count: int) -> list[dict[str, Any]]:
    """Return what some clients on a core print, which begin together."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    clients = [subprocess.Popen(["taskset", "-c", str(core), *command], **pipes) for _ in range(count)]
    for client in clients:
        assert client.stdout and client.stdout.readline() == "ready\n"
    for client in clients:
        assert client.stdin
        client.stdin.write("\n")
        client.stdin.flush()
    return [json.loads(client.communicate()[0]) for client in clients]


def _child(core: int, command: list[str]) -> dict[str, Any]:
    """Return what a child on a core prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["taskset", "-c", str(core), *command], cwd=ROOT, env=environment, stdout=subprocess.PIPE)
    done.check_returncode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
