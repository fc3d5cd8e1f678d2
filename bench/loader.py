"""Compare streamed reading from S3 with a local disk, MosaicML Streaming and WebDataset: `python bench/loader.py`.

python bench/loader.py                 # needs .venv-loaders, two CPUs and 3 GB of scratch, which is removed
python bench/loader.py --rounds 1      # sooner

The same pictures, of random pixels, lie in shards of our format in a real S3 server on this machine and on the disk, in
MDS shards and in tar shards, with as many pictures in each. By turns, each loader gives one epoch of batches in a
process of its own, cut after some seconds, alone and to a step of LeNet-5: ours within a window and with a cache of a
tenth of the set, and from the disk in a full shuffle; MosaicML Streaming by `py1e` with the same window, but with a
cache for the whole set, because with a tenth it ends with an error (a sample "is not present in the shard"); WebDataset
by `curl` from S3, without a cache, with a shuffle buffer of the size of the window. The others have one or two worker
processes, which the first round decides. The server has the last CPU for itself, as it is on another machine elsewhere,
and the loaders the others. Before each epoch, the system's cache of files is emptied of all that is read. What opening
takes counts as seconds to the first batch, but for the digests of the dataset on the disk.
"""

import argparse
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from measure import ROOT, median, write_result
from numpy.typing import NDArray

from components.shared.data.dataset import SPLITS, open_dataset, write_document
from components.shared.storage.client import open_store
from tests.dataset_writer import DatasetWriter
from tests.disk_use import most_held
from tests.servers.s3_server import BUCKET, S3Server, s3_server

SETS = {"gray": (60_000, (1, 32, 32)), "colour": (20_000, (3, 64, 64))}
BATCH = 250  # so that an epoch has 2 streams of ours, and a tenth of the set has room for shards that are not tiny
CACHE_SHARE = 10  # the cache is a tenth of the set
SHARDS = 100  # of the train split: the 4 that are read ahead take less than half of the cache
VAL = 200
MIB = 2**20
KINDS = ("ours_s3", "ours_disk", "mosaicml", "webdataset")
OTHERS = ROOT / ".venv-loaders" / "bin" / "python"
WORKERS = (1, 2)
WRITE_MDS = """
import sys
import numpy as np
from streaming import MDSWriter
images, labels, folder, count = np.load(sys.argv[1]), np.load(sys.argv[2]), sys.argv[3], int(sys.argv[4])
shape = ",".join(map(str, images.shape[1:]))
size = count * (images[0].nbytes + 8 + 4) + 1024  # their sizes and the header included
with MDSWriter(out=folder, columns={"image": f"ndarray:uint8:{shape}", "label": "int"}, size_limit=size) as out:
    for image, label in zip(images, labels):
        out.write({"image": image, "label": int(label)})
"""
Figures = dict[str, Any]


@dataclass(frozen=True)
class Formats:
    """A set of pictures in each loader's format; what all have of it."""

    folder: Path
    server: S3Server
    spec: Figures

    def of(self, kind: str, workers: int, learns: bool) -> Figures:
        """Return what a child must know."""
        return {**self.spec, **self.spec[kind], "workers": workers, "learns": learns}


def main() -> None:
    """Measure, print, and write `bench/results/loader.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="after which an epoch is cut")
    parser.add_argument("--sets", nargs="*", choices=SETS, default=list(SETS))
    parser.add_argument("--scratch", type=Path, default=ROOT / "build", help="folder for the scratch files")
    arguments = parser.parse_args()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    load, found = os.getloadavg()[0], {}
    *cpus, last = sorted(os.sched_getaffinity(0))
    if not cpus:
        parser.error("this machine has one CPU; give it two, of which the server takes one")
    os.sched_setaffinity(0, {last})  # the server is started by this process
    for name in arguments.sets:
        with tempfile.TemporaryDirectory(dir=arguments.scratch, prefix="bench-") as scratch:
            (Path(scratch) / "s3").mkdir()
            with s3_server(Path(scratch) / "s3") as server:
                formats = _write(Path(scratch), server, *SETS[name])
                formats.spec.update(seconds=arguments.seconds, cpus=cpus)
                found[name] = _measure(formats, arguments.rounds)
        print(name, json.dumps(found[name]["medians"], indent=1), flush=True)
    os.sched_setaffinity(0, {*cpus, last})
    print(write_result("loader", {"load_average": load, "cpus_of_loaders": len(cpus), "sets": found}).relative_to(ROOT))


def _measure(formats: Formats, rounds: int) -> Figures:
    runs: dict[str, list[Figures]] = {f"{kind}{suffix}": [] for suffix in ("", "_lenet") for kind in KINDS}
    slower: list[Figures] = []
    for _ in range(rounds):
        for name, some in runs.items():
            kind, learns = name.removesuffix("_lenet"), name.endswith("_lenet")
            tried = [_run(formats, kind, workers, learns) for workers in _workers(kind, some)]
            best = max(tried, key=lambda run: float(run["images_per_second"]))
            some.append(best)
            slower += [{"name": name, **run} for run in tried if run is not best]
            print(name, best, flush=True)
    medians = {name: {key: median(run[key] for run in some) for key in some[0]} for name, some in runs.items()}
    whole = [run["bytes_read"] for run in runs["ours_s3"] if run["is_whole"]]
    return {
        **{name: formats.spec[name] for name in ("image_shape", "window", "cache_bytes", "set_bytes")},
        "medians": medians,
        "ratios": _ratios(medians),
        "bytes_read_in_whole_epochs": whole,
        "runs": runs,
        "with_the_slower_number_of_workers": slower,
    }


def _workers(kind: str, earlier: Sequence[Figures]) -> Sequence[int]:
    """Return with how many worker processes a kind is tried: at first with each number, then with the faster one."""
    if kind.startswith("ours"):
        return (0,)
    return (earlier[0]["workers"],) if earlier else WORKERS


def _ratios(medians: Mapping[str, Figures]) -> dict[str, float]:
    """Return our images/s from S3 as shares of those of each other kind."""
    return {
        f"to_{kind}{suffix}": medians[f"ours_s3{suffix}"]["images_per_second"]
        / medians[f"{kind}{suffix}"]["images_per_second"]
        for suffix in ("", "_lenet")
        for kind in KINDS[1:]
    }


def _run(formats: Formats, kind: str, workers: int, learns: bool) -> Figures:
    """Take an epoch in a process of its own."""
    cache = formats.folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir()
    spec = formats.of(kind, workers, learns)
    python = sys.executable if kind.startswith("ours") else str(OTHERS)
    variables = {**formats.server.environment, "S3_ENDPOINT_URL": formats.server.url, "AWS_DEFAULT_REGION": "us-east-1"}
    variables |= {"XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    variables |= {"TORCH2KUBEFLOW_SHARD_CACHE_MIB": str(spec["cache_bytes"] // MIB)}
    command = [python, "-P", "bench/loader_child.py", kind]
    with most_held(cache) as most:
        output = _output(command, {**os.environ, **variables}, json.dumps(spec))
    figures: Figures = json.loads(output.splitlines()[-1])
    return {**{name: round(value, 4) for name, value in figures.items()}, "most_on_disk": most[0], "workers": workers}


def _output(command: Sequence[str], environment: Mapping[str, str], given: str) -> str:
    """Return what a child prints; the worker processes of an epoch that was cut, which have its output, are killed."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": output, "stderr": errors, "text": True}
        child = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **pipes)
        child.communicate(given)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        for file in (output, errors):
            file.seek(0)
        if child.returncode:
            raise SystemExit(f"{' '.join(command)}: {errors.read()[-3000:]}")
        return output.read()


def _write(folder: Path, server: S3Server, count: int, shape: tuple[int, ...]) -> Formats:
    """Write the pictures in each format."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, *shape), np.uint8)
    labels = random.integers(0, 10, count)
    of_shard = count // SHARDS
    ours = _write_ours(folder, server, images, labels, of_shard)
    cache_bytes = images.nbytes // CACHE_SHARE // MIB * MIB
    ahead = 5 * of_shard * (images[0].nbytes + 8)  # two shards of each of 2 streams, and what is rounded up
    common = {
        "image_shape": shape,
        "batch": BATCH,
        "window": (cache_bytes - ahead) // (images[0].nbytes + 8),
        "cache": str(folder / "cache"),
        "cache_bytes": cache_bytes,
        "cold": [str(folder)],
    }
    remote = _write_mds(folder, server, images, labels, of_shard)
    urls = _write_tars(folder, server, images, labels, of_shard)
    os.sync()  # for what is not on the disk cannot be dropped from the memory
    return Formats(folder, server, {**common, **ours, "mosaicml": {"remote": remote}, "webdataset": {"urls": urls}})


def _write_ours(
    folder: Path, server: S3Server, images: NDArray[np.uint8], labels: NDArray[np.int64], of_shard: int
) -> Figures:
    local, remote = folder / "local", folder / "remote"
    local.mkdir()
    remote.mkdir()
    counts = {"train": len(images), "val": VAL, "test": VAL}
    shape = images.shape[1:]
    size = of_shard * images[0].nbytes
    writer = DatasetWriter(local, classes=list("0123456789"), image_shape=shape, counts=counts, shard_bytes=size)
    for split in SPLITS:
        writer.append(split, images[: counts[split]], labels[: counts[split]])
    document = writer.finish(name="random", seconds={})
    store = open_store(f"s3://{BUCKET}/ours", server.environment)
    data = open_dataset(local)
    for entry in data.files():
        store.put_file(local / entry.path, f"{entry.sha256}.npy", entry.sha256)
    write_document(remote, document.model_copy(update={"shards": store.uri()}))
    set_bytes = sum(file.bytes for shard in data.document.splits["train"].shards for file in shard.files)
    return {"ours_disk": {"folder": str(local)}, "ours_s3": {"folder": str(remote)}, "set_bytes": set_bytes}


def _write_mds(
    folder: Path, server: S3Server, images: NDArray[np.uint8], labels: NDArray[np.int64], of_shard: int
) -> str:
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)
    mds = folder / "mds"
    words = [str(folder / "images.npy"), str(folder / "labels.npy"), str(mds), str(of_shard)]
    subprocess.run([OTHERS, "-c", WRITE_MDS, *words], check=True, stderr=subprocess.DEVNULL)
    for path in mds.iterdir():
        server.client.fput_object(BUCKET, f"mds/{path.name}", str(path))
    return f"s3://{BUCKET}/mds"


def _write_tars(
    folder: Path, server: S3Server, images: NDArray[np.uint8], labels: NDArray[np.int64], of_shard: int
) -> list[str]:
    """Return addresses that need no keys."""
    urls = []
    for start in range(0, len(images), of_shard):
        path, name = folder / "shard.tar", f"tar/{start // of_shard:05}.tar"
        with tarfile.open(path, "w") as archive:
            for number in range(start, min(start + of_shard, len(images))):
                _add(archive, f"{number:08}.bin", images[number].tobytes())
                _add(archive, f"{number:08}.cls", str(labels[number]).encode())
        server.client.fput_object(BUCKET, name, str(path))
        urls.append(server.client.presigned_get_object(BUCKET, name, timedelta(days=1)))
    return urls


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    main()
