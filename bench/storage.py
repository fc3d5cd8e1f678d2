"""The store beside the plain client on a server of this machine: `python bench/storage.py`.

Sends and fetches one large file and many small objects by components/shared/storage.py and by `minio` alone, in turn,
through SeaweedFS on the loopback interface; then again in processes of their own, for their peak memory. The store also
keeps a SHA-256 beside every file, and checks it when the file comes back; the plain client does neither.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

from measure import ROOT, median, peak_memory_of, write_result

from components.shared.storage import PART_BYTES, open_store

sys.path.insert(0, str(ROOT / "tests"))

from s3_server import BUCKET, KEY, SECRET, S3Server, s3_server  # type: ignore[import-not-found]

SMALL_BYTES, THREADS = 10_000, 8


def main() -> None:
    """Measure, print, and write `bench/results/storage.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="transfers of each kind")
    parser.add_argument("--mib", type=int, default=256, help="size of the large file in MiB")
    parser.add_argument("--objects", type=int, default=1000, help="number of small objects")
    parser.add_argument("--child", help=argparse.SUPPRESS)  # ADDRESS,FILE,WORK of a process whose memory is measured
    arguments = parser.parse_args()
    if arguments.child:
        return _child(*arguments.child.split(","))
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "server").mkdir()
        with s3_server(Path(scratch) / "server") as server:
            _measure(server, Path(scratch), arguments.runs, arguments.mib, arguments.objects)


def _measure(server: S3Server, scratch: Path, runs: int, mib: int, objects: int) -> None:
    file = scratch / "file"
    with open(file, "wb") as target:
        for _ in range(mib):
            target.write(os.urandom(2**20))
    memory = {name: _peak_memory(server, file, name) for name in ("nothing", "put", "get")}
    store, plain = open_store(f"s3://{BUCKET}/bench", server.environment), server.client
    work: dict[str, Callable[[], object]] = {
        "put": lambda: store.put_file(file, "file"),
        "put, plain": lambda: plain.fput_object(
            BUCKET, "plain", str(file), part_size=PART_BYTES, num_parallel_uploads=3
        ),
        "get": lambda: store.get_file("file", scratch / "got"),
        "get, plain": lambda: plain.fget_object(BUCKET, "plain", str(scratch / "got")),
        "put small": lambda: _each(objects, lambda name: store.put_bytes(bytes(SMALL_BYTES), name)),
        "put small, plain": lambda: _each(
            objects, lambda name: plain.put_object(BUCKET, name, BytesIO(bytes(SMALL_BYTES)), SMALL_BYTES)
        ),
        "get small": lambda: _each(objects, lambda name: store.get_bytes(name)),
        "get small, plain": lambda: _each(objects, lambda name: plain.get_object(BUCKET, name).data),
    }
    seconds: dict[str, list[float]] = {}
    for _ in range(runs):
        for name, transfer in work.items():
            started = time.perf_counter()
            transfer()
            seconds.setdefault(name, []).append(round(time.perf_counter() - started, 4))
            print(f"{name}: {seconds[name][-1]:.2f} s", flush=True)
    medians = {name: median(found) for name, found in seconds.items()}
    ratios = {name: round(medians[f"{name}, plain"] / medians[name], 3) for name in list(work)[::2]}
    document = {
        "megabytes_per_second": {name: round(mib * 1.048576 / medians[name], 1) for name in list(work)[:4]},
        "objects_per_second": {name: round(objects / medians[name], 1) for name in list(work)[4:]},
        "times_as_fast_as_plain": ratios,
        "mib_over_imports": {name: round((memory[name] - memory["nothing"]) / 2**20, 1) for name in ("put", "get")},
        "mib": mib,
        "objects": objects,
        "seconds": seconds,
    }
    print(write_result("storage", document).relative_to(ROOT), ratios, document["mib_over_imports"])


def _each(objects: int, transfer: Callable[[str], object]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(transfer, [f"small/{number}" for number in range(objects)]))


def _peak_memory(server: S3Server, file: Path, work: str) -> int:
    return peak_memory_of([sys.executable, "bench/storage.py", "--child", f"{server.url},{file},{work}"])[1]


def _child(url: str, file: str, work: str) -> None:
    environment = {"AWS_ENDPOINT_URL_S3": url, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    store = open_store(f"s3://{BUCKET}/bench", environment)
    if work == "put":
        store.put_file(file, "file")
    elif work == "get":
        store.get_file("file", f"{file}.got")


if __name__ == "__main__":
    main()
