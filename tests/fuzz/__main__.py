"""Damage the inputs of every reader, guided by code coverage: make fuzz ARGS="--seconds 60 tar zip"

An input that crashes a reader is stored as build/fuzz/TARGET/crash-...; repeat it with
make fuzz ARGS="TARGET --input FILE".
"""

import argparse
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from random import Random

import atheris  # type: ignore[import-untyped]

with atheris.instrument_imports(include=["components", "PIL", "tarfile", "zipfile", "gzip", "lzma"]):
    from components.shared.core.errors import UserError
    from tests.fuzz.confinement import confined
    from tests.fuzz.mutations import mutate
    from tests.fuzz.targets import TARGETS

FOUND = Path("build/fuzz").resolve()


def main() -> int:
    """Fuzz the targets one after the other, each in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=int, default=15, help="for each target (default: %(default)s)")
    parser.add_argument("--input", type=Path, help="read only this file")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"one of {', '.join(TARGETS)} (default: all)")
    options = parser.parse_args()
    failed = [name for name in options.targets or TARGETS if _run(name, options.seconds, options.input)]
    print(f"failed: {', '.join(failed)}" if failed else "nothing found")
    return len(failed) > 0


def _run(name: str, seconds: int, given: Path | None) -> int:
    folder = FOUND / name
    folder.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=2560", "-seed=1", "-max_len=1000000"]
    end = [str(given.resolve())] if given else [f"-artifact_prefix={folder}/", "-print_final_stats=1"]
    command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz.__main__", "--target", name, *limits, *end]
    print(f"== {name}", flush=True)
    return subprocess.run(command).returncode


def fuzz(name: str, arguments: list[str]) -> None:
    """Fuzz one target until libFuzzer ends the process."""
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as corpus:
        folder = Path(scratch)
        os.chdir(folder)
        target = TARGETS[name](folder)
        for number, seed in enumerate(target.seeds):
            (Path(corpus) / str(number)).write_bytes(seed)
            target.read(seed)

        def read(content: bytes) -> None:
            with suppress(UserError), confined(folder):
                target.read(content)

        def change(content: bytes, size: int, seed: int) -> bytes:
            random = Random(seed)
            return mutate(content, random)[:size] if random.random() < 0.5 else bytes(atheris.Mutate(content, size))

        is_repeated = Path(arguments[-1]).is_file()
        atheris.Setup([name, *arguments, *([] if is_repeated else [corpus])], read, custom_mutator=change)
        atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--target"]:
        fuzz(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(main())
