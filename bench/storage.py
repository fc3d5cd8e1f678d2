"""The store beside the plain client on a server of this machine: `python bench/storage.py`.

Sends and fetches one large file and many small objects by components/shared/storage.py and by `minio` alone, in turn,
with SeaweedFS on the loopback interface; before that in processes of their own, for their peak memory. The store checks
what it sends and fetches by SHA-256, and the plain client does not: `checked` is that client and the digest after it.
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

from components.shared.files import sha256_file
from components.shared.storage import PART_BYTES, open_store

sys.path.insert(0, str(ROOT / "tests"))

from s3_server import BUCKET, KEY, SECRET, S3Server, s3_server  # type: ignore[import-not-found]

SMALL, THREADS = bytes(10_000), 8


def main() -> None:
    """Measure, print, and write `bench/results/storage.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=6, help="transfers of each kind")
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
    work = _transfers(server, file, objects)
    seconds: dict[str, list[float]] = {}
    for run in range(runs):
        for name in list(work)[:: -1 if run % 2 else 1]:  # for what follows a put finds the server busy with it
            (scratch / "got").unlink(missing_ok=True)
            started = time.perf_counter()
            work[name]()
            seconds.setdefault(name, []).append(round(time.perf_counter() - started, 4))
            print(f"{name}: {seconds[name][-1]:.2f} s", flush=True)
    medians = {name: median(found) for name, found in seconds.items()}
    plains = {name: name.partition(",")[0] for name in work if "," in name}
    ratios = {name: round(medians[name] / medians[ours], 3) for name, ours in plains.items()}
    amounts = {name: objects if "small" in name else mib * 1.048576 for name in work}
    document = {
        "times_as_fast_as": ratios,
        "mib_over_imports": {name: round((memory[name] - memory["nothing"]) / 2**20, 1) for name in ("put", "get")},
        "megabytes_or_objects_per_second": {name: round(amounts[name] / medians[name], 1) for name in work},
        "mib": mib,
        "objects": objects,
        "seconds": seconds,
    }
    print(write_result("storage", document).relative_to(ROOT), ratios, document["mib_over_imports"])


def _transfers(server: S3Server, file: Path, objects: int) -> dict[str, Callable[[], object]]:
    digest = sha256_file(file)  # known to whoever made the file, as a rule
    store, plain = open_store(f"s3://{BUCKET}/bench", server.environment), server.client
    got = file.with_name("got")
    return {
        "put": lambda: store.put_file(file, "file", digest),
        "put, plain": lambda: plain.fput_object(BUCKET, "plain", str(file), part_size=PART_BYTES),
        "get": lambda: store.get_file("file", got),
        "get, plain": lambda: plain.fget_object(BUCKET, "plain", str(got)),
        "get, plain, checked": lambda: (plain.fget_object(BUCKET, "plain", str(got)), sha256_file(got)),
        "put small": lambda: _each(objects, lambda name: store.put_bytes(SMALL, name)),
        "put small, plain": lambda: _each(
            objects, lambda name: plain.put_object(BUCKET, name, BytesIO(SMALL), len(SMALL))
        ),
        "get small": lambda: _each(objects, store.get_bytes),
        "get small, plain": lambda: _each(objects, lambda name: plain.get_object(BUCKET, name).data),
    }


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
