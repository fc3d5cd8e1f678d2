"""Compare the store with other clients of a server on this machine: `python bench/storage.py`.

Uploads and downloads one large file with components/shared/storage/client.py, with `minio` alone, with boto3 (which
`uv run` installs) and with SeaweedFS's own client, which bypasses its S3 gateway; then 1,000 pictures as single objects
and as one shard. They take turns, with SeaweedFS on the loopback interface; before that, separate processes measure the
peak memory. The store verifies the SHA-256 of all it transfers and the others do not: `checked` is minio followed by
the digest.
"""

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from measure import ROOT, median, peak_memory_of, write_result

from components.shared.core.files import sha256_file
from components.shared.storage.client import PART_BYTES, open_store
from tests.servers.s3_server import BUCKET, KEY, SECRET, S3Server

PICTURE, THREADS = os.urandom(10_000), 8
FILER_PORT = 18_888  # `weed filer.cat` assumes that the gRPC port is 10,000 higher
BOTO3 = """
import sys, boto3
url, key, secret, bucket = sys.argv[1:]
client = boto3.client("s3", endpoint_url=url, aws_access_key_id=key, aws_secret_access_key=secret, region_name="any")
print("ready", flush=True)
for line in sys.stdin:
    action, path = line.split()
    client.upload_file(path, bucket, "boto3") if action == "put" else client.download_file(bucket, "boto3", path)
    print("done", flush=True)
"""
Work = dict[str, Callable[[], object]]


def main() -> None:
    """Measure, print, and write `bench/results/storage.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="transfers of each kind")
    parser.add_argument("--mib", type=int, default=1024, help="size of the large file in MiB")
    parser.add_argument("--objects", type=int, default=1000, help="number of pictures")
    parser.add_argument("--child", help=argparse.SUPPRESS)  # ADDRESS,FILE,WORK of the process whose memory is measured
    arguments = parser.parse_args()
    if arguments.child:
        return _child(*arguments.child.split(","))
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "server").mkdir()
        server = S3Server(Path(scratch) / "server")
        server.ports |= {"filer.port": FILER_PORT, "filer.port.grpc": FILER_PORT + 10_000}
        server.start()
        try:
            server.client.make_bucket(BUCKET)
            _measure(server, Path(scratch), arguments.runs, arguments.mib, arguments.objects)
        finally:
            server.kill()


def _measure(server: S3Server, scratch: Path, runs: int, mib: int, objects: int) -> None:
    file = scratch / "file"
    with open(file, "wb") as target:
        for _ in range(mib):
            target.write(os.urandom(2**20))
    memory = {name: _peak_memory(server, file, name) for name in ("nothing", "put", "get")}
    with _boto3(server) as boto3:
        seconds = _time(_transfers(server, file, boto3) | _pictures(server, file, objects), file, runs)
    pairs = {name: zip(found, seconds[name.partition(",")[0]], strict=True) for name, found in seconds.items()}
    ratios = {name: round(median([other / ours for other, ours in pairs[name]]), 3) for name in pairs if "," in name}
    amounts = {name: objects if "pictures" in name else mib * 1.048576 for name in seconds}
    document = {
        "times_as_fast_as": ratios,  # the median over the rounds
        "mib_over_imports": {name: round((memory[name] - memory["nothing"]) / 2**20, 1) for name in ("put", "get")},
        "megabytes_or_pictures_per_second": {
            name: round(amounts[name] / median(found), 1) for name, found in seconds.items()
        },
        "mib": mib,
        "pictures": objects,
        "seconds": seconds,
    }
    print(write_result("storage", document).relative_to(ROOT), ratios, document["mib_over_imports"])


def _time(work: Work, file: Path, runs: int) -> dict[str, list[float]]:
    """Return the seconds of each kind of work, taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for run in range(runs):
        for name in list(work)[:: -1 if run % 2 else 1]:
            file.with_name("got").unlink(missing_ok=True)
            os.sync()  # otherwise the disk is still busy with the last put
            started = time.perf_counter()
            work[name]()
            seconds[name].append(round(time.perf_counter() - started, 4))
            print(f"{name}: {seconds[name][-1]:.2f} s", flush=True)
    return seconds


def _transfers(server: S3Server, file: Path, boto3: Callable[[str, Path], None]) -> Work:
    """Return each kind of transfer of one large file, after one run of each, so that there is a file to download."""
    digest, got = sha256_file(file), file.with_name("got")  # callers usually know it already
    store, plain = open_store(f"s3://{BUCKET}/bench", server.environment), server.client
    filer = f"http://127.0.0.1:{FILER_PORT}"
    work: Work = {
        "put": lambda: store.put_file(file, "file", digest),
        "put, minio": lambda: plain.fput_object(BUCKET, "plain", str(file), part_size=PART_BYTES),
        "put, boto3": lambda: boto3("put", file),
        "put, weed": lambda: _weed("filer.copy", str(file), f"{filer}.{FILER_PORT + 10_000}/buckets/{BUCKET}/weed/"),
        "get": lambda: store.get_file("file", got),
        "get, minio": lambda: plain.fget_object(BUCKET, "plain", str(got)),
        "get, minio, checked": lambda: (plain.fget_object(BUCKET, "plain", str(got)), sha256_file(got)),
        "get, boto3": lambda: boto3("get", got),
        "get, weed": lambda: _weed("filer.cat", "-o", str(got), f"{filer}/buckets/{BUCKET}/weed/{file.name}"),
    }
    for name, transfer in work.items():
        transfer()
        if name.startswith("get") and sha256_file(got) != digest:
            raise ValueError(f"{name}: the downloaded file differs from the uploaded one")
    return work


def _pictures(server: S3Server, file: Path, objects: int) -> Work:
    """Return the transfers of pictures as single objects, with the store and with minio, and packed into one shard."""
    store, plain = open_store(f"s3://{BUCKET}/bench", server.environment), server.client
    shard = file.with_name("shard.tar")

    def put_shard() -> None:
        with tarfile.open(shard, "w") as tar:
            for number in range(objects):
                member = tarfile.TarInfo(f"{number}")
                member.size = len(PICTURE)
                tar.addfile(member, BytesIO(PICTURE))
        store.put_file(shard, "shard.tar")

    def get_shard() -> None:
        store.get_file("shard.tar", shard)
        with tarfile.open(shard) as tar:
            for member in tar:
                found = tar.extractfile(member)
                assert found and len(found.read()) == len(PICTURE)

    work: Work = {
        "put pictures": lambda: _each(objects, lambda name: store.put_bytes(PICTURE, name)),
        "put pictures, minio": lambda: _each(
            objects, lambda name: plain.put_object(BUCKET, name, BytesIO(PICTURE), len(PICTURE))
        ),
        "put pictures, in one shard": put_shard,
        "get pictures": lambda: _each(objects, store.get_bytes),
        "get pictures, minio": lambda: _each(objects, lambda name: plain.get_object(BUCKET, name).data),
        "get pictures, in one shard": get_shard,
    }
    for transfer in work.values():
        transfer()
    return work


def _each(objects: int, transfer: Callable[[str], object]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(transfer, [f"pictures/{number}" for number in range(objects)]))


def _weed(*words: str) -> None:
    subprocess.run([Path(sys.executable).with_name("weed"), *words], check=True, capture_output=True)


@contextmanager
def _boto3(server: S3Server) -> Iterator[Callable[[str, Path], None]]:
    """Run boto3 in its own process and environment, imported before anything is timed."""
    command = [str(Path(sys.executable).with_name("uv")), "run", "-q", "--no-project", "--with", "boto3", "python"]
    command += ["-c", BOTO3, server.url, KEY, SECRET, BUCKET]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        requests, responses = process.stdin, process.stdout
        assert requests and responses
        responses.readline()

        def transfer(action: str, path: Path) -> None:
            print(action, path, file=requests, flush=True)
            if not responses.readline():
                raise RuntimeError("boto3 failed; its error is above")

        yield transfer
        requests.close()


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
