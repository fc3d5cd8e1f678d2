"""The embedded S3 server: a SeaweedFS on the loopback interface, whose data lie beside the runs.

python pipeline.py s3     # keep it running, to look inside
"""

import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kfp.dsl.base_component import BaseComponent

from components.shared.core.errors import UserError
from components.shared.core.files import new_file
from components.shared.storage.client import Store, open_store
from components.shared.storage.endpoint import AWS, Variables
from runner.local.processes import die_with_parent, is_locked, lock, lock_file, read_pid, write_pid

RUNS = Path(__file__).parents[2] / "runs"
BUCKET = "torch2kubeflow"
STORE = f"s3://{BUCKET}"
PROBE = ".ready"
START_SECONDS = 60
STOP_SECONDS = 10
WAIT_SECONDS = 30  # for a verb that uses the server for a moment
PORTS = [f"{part}.port{kind}" for part in ("s3", "filer", "master", "volume", "admin") for kind in ("", ".grpc")]
# Keys with which its parts ask each other by HTTP, so that nobody comes past S3's own; another for each start.
INNER_KEYS = [f"WEED_JWT_{part}SIGNING_{kind}KEY" for part in ("", "FILER_") for kind in ("", "READ_")]
# No telemetry, no other services than S3, and volumes of 1 GiB that grow with what is in them.
FLAGS = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false"]
FLAGS += ["-webdav=false", "-admin.ui=false", "-master.telemetry=false", "-master.volumePreallocate=false"]
FLAGS += ["-master.volumeSizeLimitMB=1024", "-volume.max=0", "-volume.preStopSeconds=0"]


class Server:
    """A SeaweedFS on the data in a folder. It dies with the thread that starts it, also by kill -9 (on Linux)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.log = self.folder / "log"

    @property
    def variables(self) -> dict[str, str]:
        """The environment's variables with which it is reached."""
        (identity,) = json.loads((self.folder / "keys.json").read_text())["identities"]
        (keys,) = identity["credentials"]
        return {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self.ports['s3.port']}",
            "AWS_ACCESS_KEY_ID": keys["accessKey"],
            "AWS_SECRET_ACCESS_KEY": keys["secretKey"],
            "AWS_REGION": "us-east-1",
        }

    def start(self) -> None:
        """Start it, after the end of one that a killed run has left; `wait` says when it is ready."""
        if not (self.folder / "keys.json").exists():
            _write_private(self.folder / "keys.json", json.dumps(_new_keys()))
        (self.folder / "data").mkdir(exist_ok=True)
        for old in self.folder.glob("data/m[0-9]*"):  # of a master on another port, which the volumes tell anew
            shutil.rmtree(old)
        flags = [*FLAGS, *(f"-{name}={port}" for name, port in self.ports.items())]
        flags += ["-dir=data", "-s3.config=keys.json"]
        command = [str(Path(sys.executable).with_name("weed")), "-config_dir=.", "-logtostderr", "mini", *flags]
        with open(self.folder / "weed.pid", "a+") as pid, open(self.log, "wb") as log:
            _end_left(pid)
            pid.truncate(0)
            self.process = subprocess.Popen(
                die_with_parent(command, signal.SIGTERM),
                cwd=self.folder,
                stdout=log,
                stderr=log,
                # Nothing of the user's: weed takes keys from AWS's variables.
                env={"HOME": str(self.folder), **{name: secrets.token_hex(20) for name in INNER_KEYS}},
                pass_fds=[pid.fileno()],  # whoever holds this lock is the server
                start_new_session=True,  # Ctrl-C is for us alone
            )
            write_pid(pid, self.process.pid)

    def wait(self) -> dict[str, str]:
        """Wait until it keeps what is written, and return its variables; UserError where it does not start."""
        store = open_store(STORE, self.variables, attempts=1)
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                store.put_bytes(b"", PROBE)  # which makes the bucket too
                store.remove(PROBE)
                return self.variables
            except UserError as error:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise UserError(f"the S3 server does not start ({error}); {self.log} says why") from None
            time.sleep(0.02)

    def stop(self) -> None:
        """End it and wait for its end."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for port in self.ports.values():
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)


@contextmanager
def shared(runs: Path) -> Iterator[Callable[[], dict[str, str]]]:
    """A function that waits for a server on `runs` and returns its variables: that of `make s3`, or one for the block.

    What else is to be done can be done while the server starts.
    """
    found = _find_running(runs)
    if found:
        yield lambda: found
        return
    with _serving(runs, WAIT_SECONDS, is_waited=False) as server, _published(server):
        yield server.wait


@contextmanager
def store_of(uri: str | None, runs: Path) -> Iterator[Store]:
    """The store at `uri`, by the user's variables; without one, that of the embedded server on `runs`."""
    if uri and uri.rstrip("/") != STORE:
        yield open_store(uri, os.environ)
        return
    found = _find_running(runs)
    if found:
        yield open_store(STORE, found)
        return
    with _serving(runs, WAIT_SECONDS) as server:
        yield open_store(STORE, server.variables)


def step_variables(variables: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """The user's environment with the variables of a store: the user's own are those of the data, prefix SOURCE_.

    Variables with this prefix that are there already stay as they are.
    """
    own = {name: value for name, value in environment.items() if name.startswith("AWS_") or name == "S3_ENDPOINT"}
    rest = {name: value for name, value in environment.items() if name not in own}
    if not any(value for name, value in rest.items() if name.startswith(("SOURCE_AWS_", "SOURCE_S3_"))):
        endpoint = Variables(own, "").get("AWS_ENDPOINT_URL_S3", "S3_ENDPOINT", "AWS_ENDPOINT_URL") or AWS
        rest |= {f"SOURCE_{name}": value for name, value in own.items()}
        rest["SOURCE_AWS_ENDPOINT_URL_S3"] = endpoint  # without keys, a bucket that is open to all
    return rest | dict(variables)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface at which nothing listens."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [free.getsockname()[1] for free in sockets]
    finally:
        for free in sockets:
            free.close()


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("s3", help="keep the embedded S3 server running, to look inside")
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help="where runs are kept")
    parser.set_defaults(handle=handle)


def handle(arguments: argparse.Namespace, _: BaseComponent) -> int:
    """Serve until Ctrl-C, and return the exit code."""
    with _serving(arguments.runs) as server, _published(server) as file:
        print(f"S3 at {server.variables['AWS_ENDPOINT_URL_S3']}, with the data in {server.folder}; Ctrl-C ends it")
        print("To look inside, in another terminal:")
        print(f"  . {file}    # sets {', '.join(server.variables)}")
        print(f"  aws s3 ls --recursive {STORE}")
        print(f"  python pipeline.py models --runs {arguments.runs}", flush=True)
        with suppress(KeyboardInterrupt):
            server.process.wait()
            raise UserError(f"the S3 server has ended; {server.log} says why")
    return 0


@contextmanager
def _serving(runs: Path, seconds: float = 0, is_waited: bool = True) -> Iterator[Server]:
    """A server on `runs` for the block; UserError where another process has one for longer than `seconds`."""
    folder = runs / "s3"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with lock_file(folder / "lock", "wait for its end, or end it", seconds):
        server = Server(folder)
        server.start()
        try:
            if is_waited:
                server.wait()
            yield server
        finally:
            server.stop()


@contextmanager
def _published(server: Server) -> Iterator[Path]:
    """The file that tells other processes how to reach a server, as commands of a shell."""
    file = server.folder / "environment"
    _write_private(file, "".join(f"export {name}={value}\n" for name, value in server.variables.items()))
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


def _find_running(runs: Path) -> dict[str, str] | None:
    """The variables of a server that another process has and shares; None where there is none."""
    with suppress(FileNotFoundError):
        lines = (runs / "s3" / "environment").read_text().splitlines()
        if is_locked(runs / "s3" / "lock"):
            return dict(line.removeprefix("export ").split("=", 1) for line in lines)
    return None


def _end_left(pid: Any) -> None:
    """Take the lock of the server from one that still runs though its runner was killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if lock(pid):
            return
        if left := read_pid(pid):
            with suppress(ProcessLookupError):
                os.kill(left, number)
        if lock(pid, STOP_SECONDS):
            return
    raise UserError(f"{pid.name}: an S3 server without a runner does not end; end it")


def _new_keys() -> dict[str, Any]:
    """Who may use the server, as weed reads it."""
    keys = {"accessKey": secrets.token_hex(10).upper(), "secretKey": secrets.token_hex(20)}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    return {"identities": [{"name": "runner", "credentials": [keys], "actions": actions}]}


def _write_private(path: Path, text: str) -> None:
    """Write a file that its owner alone can read."""
    with new_file(path) as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text.encode())
