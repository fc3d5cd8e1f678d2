"""The embedded S3 server: a SeaweedFS on the loopback interface, with its data in the folder of the runs.

python pipeline.py s3     # keep it running, to look at what it stores
"""

import argparse
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from components.shared.core.errors import TransientError, UserError
from components.shared.core.files import new_file, private_files
from components.shared.core.printable import say
from components.shared.storage.client import Store, open_store
from components.shared.storage.endpoint import AWS, Variables
from runner.answer import Answer
from runner.local.processes import die_with_parent, is_locked, lock, lock_file, read_pid, write_pid
from runner.local.server_ports import remove_sockets, remove_stale_sockets, unused_ports
from runner.terminal import note
from runner.verbs.options import make_runs_folder

BUCKET = "torch2kubeflow"
STORE = f"s3://{BUCKET}"
PROBE = ".ready"
ADDRESS = "127.0.0.1"
START_SECONDS = 60
STOP_SECONDS = 10
WAIT_SECONDS = 30  # for a verb that uses the server for a moment
PORT_ATTEMPTS = 5
VERB_ATTEMPTS = 3  # of a verb's requests: unlike a server elsewhere, this one does not come back
FULL_SHARE, FULL_BYTES = 0.01, 2**26  # that are free: weed's volumes are read-only, or do not hold the next object
FULL = re.compile(rb"no space left on device|[Nn]o writable volumes")  # what it then logs when it is to store something
# What weed logs if another process has one of its ports, or another user its socket.
TAKEN = re.compile(rb"is not available on .* cannot be used|address already in use")
PORTS = [f"{part}.port{kind}" for part in ("s3", "filer", "master", "volume", "admin") for kind in ("", ".grpc")]
VARIABLES = {"AWS_ENDPOINT_URL_S3", "AWS_CA_BUNDLE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"}
# Keys for HTTP between its parts, new for each start, beside their certificates.
INNER_KEYS = [f"WEED_JWT_{part}SIGNING_{kind}KEY" for part in ("", "FILER_") for kind in ("", "READ_")]
# No telemetry, no services except S3, and volumes of up to 1 GiB that grow with their content.
FLAGS = [f"-ip={ADDRESS}", f"-ip.bind={ADDRESS}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false"]
FLAGS += ["-webdav=false", "-admin.ui=false", "-master.telemetry=false", "-master.volumePreallocate=false"]
FLAGS += ["-master.volumeSizeLimitMB=1024", "-volume.max=0", "-volume.preStopSeconds=0"]
# In the server's folder.
FILES = ["-dir=data", "-s3.config=keys.json", "-s3.cert.file=tls/server.crt", "-s3.key.file=tls/server.key"]
FILES += ["-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock"]


class S3Document(Answer):
    """Where the embedded S3 server was, and the file that had the variables to reach it."""

    FORMAT = "torch2kubeflow/s3"

    endpoint: str
    environment: str


class Server:
    """A SeaweedFS on the data in a folder. On Linux it dies with the thread that starts it, also if that is killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.log, self.certificates = self.folder / "log", self.folder / "tls"
        self.environment = self.folder / "environment"
        self.choose_ports()

    def choose_ports(self) -> None:
        """Take ports that nobody uses now; somebody else may still be faster."""
        self.ports = dict(zip(PORTS, unused_ports(len(PORTS)), strict=True))

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables with which clients reach it."""
        keys = self._read_keys()
        return {
            "AWS_ENDPOINT_URL_S3": f"https://{ADDRESS}:{self.ports['s3.port']}",
            "AWS_CA_BUNDLE": str(self.certificates / "ca.crt"),
            "AWS_ACCESS_KEY_ID": keys["accessKey"],
            "AWS_SECRET_ACCESS_KEY": keys["secretKey"],
            "AWS_REGION": "us-east-1",
        }

    def start(self) -> None:
        """Start it, after ending one that a killed run left behind; `wait` returns when it is ready."""
        from runner.local.certificates import tls_variables, write_certificates  # 0.1 s, which most verbs do not need

        self._ensure_keys()
        (self.folder / "data").mkdir(exist_ok=True)
        for old in self.folder.glob("data/m[0-9]*"):  # of a master on another port; the volumes report it again
            shutil.rmtree(old)
        flags = [*FLAGS, *FILES, *(f"-{name}={port}" for name, port in self.ports.items())]
        command = [str(Path(sys.executable).with_name("weed")), "-config_dir=.", "-logtostderr", "mini", *flags]
        with open(self.folder / "weed.pid", "a+") as pid, open(self.log, "wb") as log:
            _end_orphan(pid)
            pid.truncate(0)
            write_certificates(self.certificates, ADDRESS)
            inner = tls_variables(self.certificates) | {name: secrets.token_hex(20) for name in INNER_KEYS}
            self.process = subprocess.Popen(
                die_with_parent(command, signal.SIGTERM),
                cwd=self.folder,
                stdout=log,
                stderr=log,
                # Nothing from the user: weed takes keys from AWS's variables.
                env={"HOME": str(self.folder), **inner},
                umask=0o077,  # of its files and sockets
                pass_fds=[pid.fileno()],  # whoever holds this lock is the server
                start_new_session=True,  # so that Ctrl-C does not reach it
            )
            write_pid(pid, self.process.pid)

    def _read_keys(self) -> dict[str, str]:
        (identity,) = json.loads((self.folder / "keys.json").read_bytes())["identities"]
        (keys,) = identity["credentials"]
        return {name: str(keys[name]) for name in ("accessKey", "secretKey")}

    def _ensure_keys(self) -> None:
        """Make keys if there are none that can be read: the data does not depend on them."""
        path = self.folder / "keys.json"
        if path.exists():
            try:
                self._read_keys()
                return
            except (ValueError, KeyError, TypeError):
                note(f"{path} was damaged, and the S3 server gets new keys")
        _write_private(path, json.dumps(_new_keys()))

    def wait(self) -> dict[str, str]:
        """Wait until it stores what is written, and return its variables. Raises UserError if it does not start.

        If another process was faster and has one of its ports, it starts again with others.
        """
        for _ in range(PORT_ATTEMPTS):
            if self._is_ready():
                return self.variables
            self.stop()
            self.choose_ports()
            self.start()
            if self.environment.exists():
                self.publish()
        raise UserError("the S3 server does not start (its ports are taken)", f"see {self.log}")

    def _is_ready(self) -> bool:
        """Return whether it became ready; False if it did not get its ports."""
        store = open_store(STORE, self.variables, attempts=1)
        end = time.monotonic() + START_SECONDS
        while True:
            reason = "it has ended"
            try:
                store.put_bytes(b"", PROBE)  # which creates the bucket, too
                store.remove(PROBE)
                if self.process.poll() is None:
                    return True
            except UserError as error:
                reason = error.message
            is_late = self.process.poll() is not None or time.monotonic() > end
            if TAKEN.search(self.log.read_bytes()):
                return False
            if is_late:
                raise _full_disk(self.folder) or UserError(
                    f"the S3 server does not start ({reason})", f"see {self.log}"
                )
            time.sleep(0.02)

    def publish(self) -> None:
        """Write how to reach it to a file of shell commands for other processes."""
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in self.variables.items()]
        _write_private(self.environment, "".join(lines))

    def stop(self) -> None:
        """End it and wait for its end."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        remove_sockets(list(self.ports.values()))
        for left in self.folder.glob("*.sock"):
            left.unlink(missing_ok=True)


@contextmanager
def shared(runs: Path) -> Iterator[Callable[[], dict[str, str]]]:
    """Yield a function that waits for a server on `runs` and returns its variables.

    It is the server of `make s3`, if that runs, or one for the block, which starts while the caller does other work.
    """
    found = _find_running(runs)
    if found:
        yield lambda: found
        return
    with _serving(runs, WAIT_SECONDS, is_waited=False) as server, _published(server):
        yield server.wait


@contextmanager
def store_of(uri: str | None, runs: Path) -> Iterator[Store]:
    """Open the store at `uri` with the user's variables; without a URI, that of the embedded server on `runs`."""
    if uri and uri.rstrip("/") != STORE:
        yield open_store(uri, os.environ)
        return
    with ExitStack() as stack:
        found = _find_running(runs)
        if not found:
            found = stack.enter_context(_serving(runs, WAIT_SECONDS)).variables
        try:
            yield open_store(STORE, found, attempts=VERB_ATTEMPTS)
        except TransientError as error:
            raise lost_server(runs) or error from None


def lost_server(runs: Path) -> UserError | None:
    """Return the error that the server which was shared on `runs` has ended, or its disk is full; None if it works."""
    if is_locked(runs / "s3" / "weed.pid"):
        return _full_disk(runs / "s3")
    return TransientError("the S3 server has ended", f"see {runs / 's3' / 'log'}, and start the run again")


def _full_disk(folder: Path) -> UserError | None:
    """Return the error that a server can store nothing more in its folder; None if it has not met a full disk."""
    usage = shutil.disk_usage(folder)
    if usage.free > max(FULL_SHARE * usage.total, FULL_BYTES) or not FULL.search((folder / "log").read_bytes()):
        return None
    full = f"the S3 server can store nothing more: the disk of {folder} is full ({usage.free:,} bytes are free)"
    return UserError(full, "free some space there, and start the run again")


def step_variables(variables: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the user's environment with the variables of a store; the user's own get the prefix SOURCE_, for the data.

    If there are variables with this prefix already, they count instead.
    """
    own = {name: value for name, value in environment.items() if name.startswith("AWS_") or name == "S3_ENDPOINT"}
    rest = {name: value for name, value in environment.items() if name not in own}
    if not any(value for name, value in rest.items() if name.startswith(("SOURCE_AWS_", "SOURCE_S3_"))):
        endpoint = Variables(own, "").get("AWS_ENDPOINT_URL_S3", "S3_ENDPOINT", "AWS_ENDPOINT_URL") or AWS
        rest |= {f"SOURCE_{name}": value for name, value in own.items()}
        rest["SOURCE_AWS_ENDPOINT_URL_S3"] = endpoint  # without keys, for a public bucket
    return rest | dict(variables)


def handle(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C, and return the exit code."""
    with _serving(arguments.runs) as server, _published(server), suppress(KeyboardInterrupt):
        endpoint, file = server.variables["AWS_ENDPOINT_URL_S3"], server.environment
        arguments.document = S3Document(endpoint=endpoint, environment=str(file))
        say(f"S3 at {endpoint}, with the data in {server.folder}; Ctrl-C ends it")
        say("To look inside, in another terminal:")
        say(f"  . {shlex.quote(str(file))}    # sets {', '.join(server.variables)}")
        say(f"  aws s3 ls --recursive {STORE}")
        say(f"  python pipeline.py models --runs {shlex.quote(str(arguments.runs))}", flush=True)
        server.process.wait()
        raise UserError("the S3 server has ended", f"see {server.log}")
    return 0


@contextmanager
def _serving(runs: Path, seconds: float = 0, is_waited: bool = True) -> Iterator[Server]:
    """Yield a server on `runs`. Raises UserError if another process has one for longer than `seconds`."""
    folder = runs / "s3"
    make_runs_folder(runs)
    folder.mkdir(exist_ok=True, mode=0o700)
    with private_files(), lock_file(folder / "lock", "wait for its end, or end it", seconds):
        for left in [folder / "environment", *folder.glob("*.partial"), *folder.glob("tls/*.partial")]:
            left.unlink(missing_ok=True)  # of a run that was killed
        remove_stale_sockets()
        server = Server(folder)
        server.start()
        try:
            if is_waited:
                server.wait()
            yield server
        finally:
            server.stop()


@contextmanager
def _published(server: Server) -> Iterator[None]:
    """Let other processes use the server until the end of the block."""
    server.publish()
    try:
        yield
    finally:
        server.environment.unlink(missing_ok=True)


def _find_running(runs: Path) -> dict[str, str] | None:
    """Return the variables of a server that another process runs and shares; None if there is none."""
    path = runs / "s3" / "environment"
    if not path.exists() or not is_locked(runs / "s3" / "lock"):
        return None
    try:
        found = dict(word.split("=", 1) for word in shlex.split(path.read_text()) if word != "export")
    except FileNotFoundError:  # it has just ended
        return None
    except ValueError:  # of shlex, dict and bytes that are no text
        found = {}
    if found.keys() != VARIABLES:
        raise UserError(f"{path} is damaged, so the S3 server that runs cannot be reached", "end it, and start again")
    return found


def _end_orphan(pid: Any) -> None:
    """End a server that still runs although its runner was killed, and take its lock."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if lock(pid):
            return
        if orphan := read_pid(pid):
            with suppress(ProcessLookupError):
                os.kill(orphan, number)
        if lock(pid, STOP_SECONDS):
            return
    raise UserError(f"{pid.name}: an S3 server whose runner was killed does not end", "kill it")


def _new_keys() -> dict[str, Any]:
    """Return who may use the server, in the format of weed."""
    keys = {"accessKey": secrets.token_hex(10).upper(), "secretKey": secrets.token_hex(20)}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    return {"identities": [{"name": "runner", "credentials": [keys], "actions": actions}]}


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    with new_file(path) as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text.encode())
