"""Pictures per CPU second of `prepare` in 1, 2 and 4 parts, beside decoding alone and a pipeline of WebDataset.

python bench/bigdata.py                                             # 20,000 pictures of each kind: 3 minutes, 1 GB
python bench/bigdata.py --pictures 100000 --kinds perturbed
python bench/bigdata.py --pictures 1000000 --kinds perturbed --parts 4 --at-once 2

All read the same plain tar of JPEGs of 96 x 96 pixels (bench/bigdata_pictures.py), and scale to 64. The store is a real
S3 server on this machine, whose CPU time does not count; that of the clients, of hashing and of sending does, while
WebDataset's shards are written to a folder. What only starts a process is counted apart: pictures per CPU second are
without it, and with it in brackets. Decoding alone is measured before, between and after, and the median counts. Needs
.venv-webdataset. A measured set replaces the one of the same kind and number in bench/results/bigdata.json.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from measure import ROOT, median, write_result

from components.shared.parameters.common import PartRecipe
from components.shared.parameters.preparation import PreprocessRecipe
from tests.disk_use import most_held
from tests.servers.s3_server import BUCKET, s3_server

SIZE = 64  # pixels to which they are scaled
BYTES_PER_PICTURE = 32_000  # of the source, the units, their copy in the server, WebDataset's shards
ALONE = 20_000  # pictures that are decoded alone each time
WEBDATASET = ROOT / ".venv-webdataset" / "bin" / "python"
RESULT = ROOT / "bench" / "results" / "bigdata.json"


def main() -> None:
    """Measure, print, and write `bench/results/bigdata.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, nargs="*", default=[20_000], metavar="N")
    parser.add_argument("--kinds", nargs="*", default=["perturbed", "natural"], choices=["perturbed", "natural"])
    parser.add_argument("--parts", type=int, nargs="*", default=[1, 2, 4], metavar="N")
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="parts that run at the same time")
    parser.add_argument("--scratch", type=Path, default=ROOT / "build", help="folder for the scratch files")
    arguments = parser.parse_args()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    for count in arguments.pictures:
        needed, free = count * BYTES_PER_PICTURE, shutil.disk_usage(arguments.scratch).free
        if free < needed:
            raise SystemExit(f"{count:,} pictures need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} are free")
        for kind in arguments.kinds:
            with tempfile.TemporaryDirectory(dir=arguments.scratch, prefix="bench-") as scratch:
                _record(_measure(Path(scratch), kind, count, arguments.parts, arguments.at_once))


def _record(found: Mapping[str, Any]) -> None:
    """Write a set among those that are recorded."""
    before = json.loads(RESULT.read_text())["sets"] if RESULT.exists() else []
    key = found["kind"], found["pictures"]
    others = [one for one in before if (one.get("kind"), one["pictures"]) != key and "kind" in one]
    sets = sorted([*others, found], key=lambda one: (one["kind"], one["pictures"]))
    write_result("bigdata", {"image_size": SIZE, "sets": sets})
    print(json.dumps(found, indent=1))


def _measure(scratch: Path, kind: str, count: int, all_parts: Sequence[int], at_once: int) -> dict[str, Any]:
    source, load = scratch / "pictures.tar", os.getloadavg()[0]
    started = time.monotonic()
    subprocess.run([sys.executable, ROOT / "bench" / "bigdata_pictures.py", source, str(count), kind], check=True)
    found: dict[str, Any] = {
        "kind": kind,
        "pictures": count,
        "date": datetime.now(UTC).date().isoformat(),
        "load": round(load, 1),
        "parts_at_once": at_once,
        "mean_bytes": round(source.stat().st_size / count - 512 - 256),  # less headers and half a block of padding
        "generation_seconds": round(time.monotonic() - started, 1),
    }
    alone, webdataset = [_alone(scratch, source, count)], [_webdataset(scratch, source, count)]
    for parts in all_parts:
        folder = scratch / f"s3-{parts}"
        folder.mkdir()
        with s3_server(folder) as server:
            found[f"parts_{parts}"] = _prepared(scratch / "run", source, parts, at_once, count, server.environment)
        shutil.rmtree(folder)
        alone.append(_alone(scratch, source, count))
        webdataset.append(_webdataset(scratch, source, count))
    found |= {"decode_and_resize": _middle(alone), "webdataset": _middle(webdataset)}
    for parts in all_parts:
        for rival in ("decode_and_resize", "webdataset"):
            rate = found[f"parts_{parts}"]["prepare"]["pictures_per_cpu_second"]
            found[f"parts_{parts}"][f"against_{rival}"] = round(rate / found[rival]["pictures_per_cpu_second"], 3)
    return found


def _middle(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the run of median speed, and the speed of all."""
    speeds = [run["pictures_per_cpu_second"] for run in runs]
    middle = min(runs, key=lambda run: abs(run["pictures_per_cpu_second"] - median(speeds)))
    return {**middle, "all_runs": speeds}


def _alone(scratch: Path, source: Path, count: int) -> dict[str, Any]:
    arguments = {"source": str(source), "size": SIZE, "count": min(count, ALONE)}
    return _facts([_step("decode", arguments, scratch / "alone", {})], min(count, ALONE))


def _webdataset(scratch: Path, source: Path, count: int) -> dict[str, Any]:
    folder, own = scratch / "webdataset", min(count, ALONE)
    folder.mkdir()
    command = [str(WEBDATASET), str(ROOT / "bench" / "bigdata_webdataset.py"), str(source), str(folder)]
    facts = _facts([_run([*command, str(SIZE), str(own)], "", folder, {})], own)
    shutil.rmtree(folder)
    return facts


def _prepared(
    folder: Path, source: Path, parts: int, at_once: int, count: int, variables: Mapping[str, str]
) -> dict[str, Any]:
    recipe = PreprocessRecipe.of(store=f"s3://{BUCKET}/bench", image_size=SIZE).text()
    listing, done = folder / "listing", [folder / f"part{part}" / "out" for part in range(parts)]
    listed = {"data": source.as_uri(), "recipe": recipe, "listing": str(listing / "out")}
    partition = _step("partition", listed, listing, variables)

    def prepare(part: int) -> dict[str, Any]:
        planned = PartRecipe.of(part=part, parts=parts).text()
        arguments = {"listing": str(listing / "out"), "planned": planned, "part": str(done[part])}
        return _step("prepare", arguments, folder / f"part{part}", variables)

    started = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        runs = list(pool.map(prepare, range(parts)))
    seconds = time.monotonic() - started
    joined = {"listing": str(listing / "out"), "parts": [str(part) for part in done], "dataset": f"{folder}/settle/out"}
    settle = _step("settle", joined, folder / "settle", variables)
    shutil.rmtree(folder)
    return {
        "prepare": {**_facts(runs, count), "wall_seconds": round(seconds, 1)},
        "partition": _facts([partition], count),
        "settle": _facts([settle], count),
    }


def _facts(runs: Sequence[Mapping[str, Any]], count: int) -> dict[str, Any]:
    """Return what processes took that shared the pictures."""
    cpu, startup = sum(run["cpu"] for run in runs), sum(run["startup"] for run in runs)
    requests = sum((Counter(run.get("requests", {})) for run in runs), Counter[str]())
    facts = {
        "pictures_per_cpu_second": round(count / (cpu - startup), 1),
        "with_startup": round(count / cpu, 1),
        "cpu_seconds": round(cpu, 2),
        "startup_cpu_seconds": round(startup, 2),
        "wall_seconds": round(sum(run["wall"] for run in runs), 1),
        "peak_memory_mib": max(run["memory"] for run in runs) // 2**20,
        "peak_disk_mib": round(max(run["disk"] for run in runs) / 2**20, 1),
        "disk_bytes_per_picture": round(sum(run["disk"] for run in runs) / count, 1),
    }
    if requests:
        facts |= {"requests": dict(requests), "requests_per_1000_pictures": round(1000 * requests.total() / count, 2)}
    return facts


def _step(name: str, arguments: Mapping[str, Any], folder: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "bench" / "bigdata_step.py"), name]
    return _run(command, json.dumps(arguments), folder, variables)


def _run(command: Sequence[str], text: str, folder: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    """Run a program that has its scratch files in a folder; return what it took, and what it printed last."""
    temporary = folder / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **variables, "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": ""}
    started = time.monotonic()
    with (
        most_held(folder) as most,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stdin and process.stdout
        process.stdin.write(text)
        process.stdin.close()
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {output[-2000:]}")
    return {
        "cpu": usage.ru_utime + usage.ru_stime,
        "wall": time.monotonic() - started,
        "memory": usage.ru_maxrss * 1024,
        "disk": most[0],
        **json.loads(output.splitlines()[-1]),
    }


if __name__ == "__main__":
    main()
