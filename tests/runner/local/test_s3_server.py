"""The S3 server that is embedded in the runner: its data, its secrets, and its end."""

import json
import os
import random
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
import urllib3

from components.shared.core.errors import UserError
from components.shared.data.sources.s3 import open_source_store
from components.shared.storage.client import open_store
from runner.local import s3_server, server_ports
from runner.local.certificates import write_certificates
from runner.local.processes import lock_file, read_pid
from runner.local.server_ports import free_ports
from tests.conftest import ROOT
from tests.fuzz.shelf import Shelf
from tests.servers.web_server import serving
from tests.step_processes import doors_of, listening

slow = pytest.mark.slow
SOCKETS = 7  # of SeaweedFS, beside its ports
linux = pytest.mark.skipif(sys.platform != "linux", reason="children die with their parent only on Linux")


def _wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def _weed(runs: Path) -> int:
    return int((runs / "s3" / "weed.pid").read_text())


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@slow
def test_its_answer_says_where_it_was(tmp_path: Path) -> None:
    command = [sys.executable, "pipeline.py", "s3", "--runs", str(tmp_path), "--json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as verb:
        assert verb.stderr and verb.stdout
        lines = [verb.stderr.readline() for _ in range(5)]
        environment = (tmp_path / "s3" / "environment").read_text()
        verb.send_signal(signal.SIGINT)
        document = s3_server.S3Document.parse(verb.stdout.read().encode(), "stdout")
        assert verb.wait(300) == 0
    assert f"AWS_ENDPOINT_URL_S3={document.endpoint}\n" in environment
    assert lines[0].startswith(f"S3 at {document.endpoint}, ")
    assert document.environment == str(tmp_path / "s3" / "environment")


@contextmanager
def _verb(runs: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `python pipeline.py s3` in the background, and yield what it prints when it is ready."""
    command = [sys.executable, "pipeline.py", "s3", "--runs", str(runs)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as verb:
        try:
            assert verb.stdout
            yield verb, "".join(verb.stdout.readline() for _ in range(5))
        finally:
            verb.send_signal(signal.SIGINT)
            verb.wait(300)


@slow
def test_data_survive_restarts_and_kills_of_the_server(tmp_path: Path) -> None:
    contents, keys = {}, set()
    for number in range(4):
        with s3_server.shared(tmp_path) as wait:
            variables = wait()
            keys.add(variables["AWS_SECRET_ACCESS_KEY"])
            store = open_store(s3_server.STORE, variables)
            for part in range(3):
                name = f"folder/{number}-{part}"
                contents[name] = random.Random(name).randbytes(100_000)
                store.put_bytes(contents[name], name)
            assert {entry.name for entry in store.list()} == contents.keys()
            assert all(store.get_bytes(name)[0] == content for name, content in contents.items())
            if number % 2:
                os.kill(_weed(tmp_path), signal.SIGKILL)
    assert len(keys) == 1
    assert not list(Path("/tmp").glob(f"seaweedfs-*{variables['AWS_ENDPOINT_URL_S3'].rpartition(':')[2]}*"))


@slow
@linux
def test_no_door_opens_to_another_user(tmp_path: Path) -> None:
    write_certificates(tmp_path / "theirs", "127.0.0.1")
    certificate = b"".join((tmp_path / "theirs" / name).read_bytes() for name in ("server.crt", "server.key"))
    with s3_server._serving(tmp_path / "runs") as server:
        store = open_store(s3_server.STORE, server.variables)
        store.put_bytes(b"mine", "secret")
        _wait_until(lambda: len(doors_of(server.process.pid)) >= len(s3_server.PORTS) + SOCKETS)
        doors = doors_of(server.process.pid)
        uid = 65534 if os.geteuid() == 0 else 0
        command = [sys.executable, str(ROOT / "tests" / "servers" / "intruder.py"), str(uid), *doors]
        found = json.loads(subprocess.run(command, input=certificate, capture_output=True, check=True).stdout)
        assert [answer for answer in found["answers"] if answer[0] != str(server.ports["s3.port"])] == []
        assert {status for _, _, status in found["answers"]} == {0, 403}, "S3 speaks to all, and asks for keys"
        assert set(found["there"]) >= {str(port) for port in server.ports.values()}
        paths = {door for door in doors if not door.isdecimal()}
        assert all(Path(server.folder, path).stat().st_mode & 0o077 == 0 for path in paths)
        assert not uid or not paths & set(found["there"])
        assert store.get_bytes("secret")[0] == b"mine"
        assert server.certificates.stat().st_mode & 0o777 == 0o700


@slow
@linux
def test_the_verb_serves_others_and_shows_no_secret(tmp_path: Path) -> None:
    runs = tmp_path / "my runs"
    folder = runs / "s3"
    with _verb(runs) as (verb, printed):
        weed = _weed(runs)
        secret = s3_server.Server(folder).variables["AWS_SECRET_ACCESS_KEY"]
        assert f". '{folder / 'environment'}' " in printed and "aws s3 ls" in printed
        with s3_server.store_of(None, runs) as store:
            store.put_bytes(b"content", "object")
        shell = f". '{folder / 'environment'}' && env"
        found = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout
        variables = dict(line.split("=", 1) for line in found.splitlines() if line.startswith("AWS_"))
        assert variables["AWS_SECRET_ACCESS_KEY"] == secret and variables["AWS_ENDPOINT_URL_S3"] in printed
        with urllib3.PoolManager(ca_certs=variables["AWS_CA_BUNDLE"]) as client:  # as other clients do
            assert client.request("GET", variables["AWS_ENDPOINT_URL_S3"], retries=False).status == 403
        second = subprocess.run(verb.args, cwd=ROOT, capture_output=True, text=True)
        assert (second.returncode, second.stdout) == (2, "")
        assert second.stderr.startswith(f"error: {folder} is in use by process {verb.pid}; ")
        assert second.stderr.count("\n") == 1
        assert {address.split(":")[0] for address in listening(weed)} == {"0100007F"}
        holding = {path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()}
        assert holding == {folder / "keys.json", folder / "environment"}
        assert all(path.stat().st_mode & 0o777 == 0o600 for path in holding)
        commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.parent.exists()]
        assert not any(secret.encode() in command for command in commands)
        assert secret not in printed
    assert verb.returncode == 0
    assert not _is_alive(weed)
    assert not (folder / "environment").exists()


@slow
@linux
def test_the_server_dies_with_its_runner(tmp_path: Path) -> None:
    with _verb(tmp_path) as (verb, _):
        weed = _weed(tmp_path)
        with s3_server.store_of(None, tmp_path) as store:
            store.put_bytes(b"content", "object")
        verb.kill()
        _wait_until(lambda: not _is_alive(weed))
    with s3_server.store_of(None, tmp_path) as store:
        assert store.get_bytes("object")[0] == b"content"


@slow
@linux
def test_a_server_left_by_a_killed_runner_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_server, "STOP_SECONDS", 0.5)
    with _verb(tmp_path) as (verb, _):
        weed = _weed(tmp_path)
        os.kill(weed, signal.SIGSTOP)  # it ignores SIGTERM
        verb.kill()
        verb.wait()
        with s3_server.shared(tmp_path) as wait:
            wait()
            assert _weed(tmp_path) != weed
        _wait_until(lambda: not _is_alive(weed))


@slow
def test_damaged_keys_are_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = tmp_path / "s3" / "keys.json"
    with s3_server.store_of(None, tmp_path) as store:
        store.put_bytes(b"content", "object")
    first = keys.read_bytes()
    keys.write_bytes(first[: len(first) // 2])
    with s3_server.store_of(None, tmp_path) as store:
        assert store.get_bytes("object")[0] == b"content"
    assert capsys.readouterr().err == f"note: {keys} was damaged, and the S3 server gets new keys\n"
    assert len(keys.read_bytes()) == len(first) and keys.read_bytes() != first
    assert keys.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"identities": 1}', b"[]", b"\xff", b'{"identities": [{}]}'])
def test_all_damage_to_keys_is_noticed(tmp_path: Path, damage: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "keys.json").write_bytes(damage)
    server = s3_server.Server(tmp_path)
    server._ensure_keys()
    assert len(server.variables["AWS_SECRET_ACCESS_KEY"]) == 40
    assert "was damaged" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [b"", b"\xff", b"export 'A", b"export A", b"export A=1"])
def test_a_damaged_address_of_a_server_is_refused(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "s3").mkdir()
    (tmp_path / "s3" / "environment").write_bytes(damage)
    with (
        lock_file(tmp_path / "s3" / "lock", "wait"),
        pytest.raises(UserError, match=r"s3/environment is damaged, so the S3 server that runs cannot be reached; end"),
        s3_server.store_of(None, tmp_path),
    ):
        pass


@pytest.mark.parametrize("garbage", [b"", b"\xff\xfe", b"-1", b"0", b"1", b"12x", b"9" * 5000])
def test_garbage_in_a_lock_file_is_no_process(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "lock"
    path.write_bytes(garbage)
    with open(path, "a+") as file:
        assert read_pid(file) == 0
    path.write_bytes(garbage)
    with lock_file(path, "wait"):
        assert path.read_text() == str(os.getpid())


@slow
def test_a_server_that_does_not_start_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_server, "FLAGS", ["-no-such-flag"])
    with pytest.raises(UserError, match="does not start"), s3_server.shared(tmp_path) as wait:
        wait()
        raise AssertionError("not reached")
    assert "no-such-flag" in (tmp_path / "s3" / "log").read_text()


@contextmanager
def _hoarder(port: int) -> Iterator[list[bytes]]:
    """Listen at a port as somebody else's server, which speaks no TLS, and yield what it is sent."""
    got: list[bytes] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            got.append(self.request.recv(65536))
            self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with serving(socketserver.ThreadingTCPServer(("127.0.0.1", port), Handler)):
        yield got


@slow
@pytest.mark.parametrize("taken", ["port", "socket"])
def test_a_server_starts_though_its_place_is_taken(tmp_path: Path, taken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, others = free_ports(len(s3_server.PORTS)), free_ports(len(s3_server.PORTS))
    found = iter([first, others])
    monkeypatch.setattr(s3_server, "unused_ports", lambda count: next(found))
    theirs = Path(f"/tmp/seaweedfs-master-grpc-{first[s3_server.PORTS.index('master.port.grpc')]}.sock")
    with ExitStack() as stack:
        if taken == "port":
            got = stack.enter_context(_hoarder(first[0]))
        else:
            (theirs / "not empty").mkdir(parents=True)  # nobody can remove it, as if it were another user's
            stack.callback(shutil.rmtree, theirs)
        with s3_server.shared(tmp_path) as wait:
            variables = wait()
            assert variables["AWS_ENDPOINT_URL_S3"] == f"https://127.0.0.1:{others[0]}"
            with s3_server.store_of(None, tmp_path) as store:  # of another process
                store.put_bytes(b"content", "object")
    if taken == "port":
        assert got and not any(b"HTTP/1" in request for request in got), "only greetings of TLS"


@pytest.mark.parametrize(
    ("log", "is_taken"),
    [("master.port 1 is not available on 127.0.0.1, which cannot be used", True), ("panic", False)],
    ids=["taken", "ended"],
)
def test_the_answer_of_another_server_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: str, is_taken: bool
) -> None:
    server = s3_server.Server(tmp_path)
    server._ensure_keys()
    (tmp_path / "log").write_text(log)
    with subprocess.Popen(["true"]) as server.process:
        server.process.wait()
    monkeypatch.setattr(s3_server, "open_store", lambda *_, **__: Shelf())  # where each write succeeds
    if is_taken:
        assert not server._is_ready()
    else:
        with pytest.raises(UserError, match=rf"does not start \(it has ended\); see {tmp_path}/log"):
            server._is_ready()


def test_ports_with_a_socket_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_ports, "SOCKETS", tmp_path)
    (tmp_path / "seaweedfs-filer-grpc-7.sock").touch()
    found = iter([[7, 8], [9]])
    monkeypatch.setattr(server_ports, "free_ports", lambda count: next(found))
    assert sorted(server_ports.unused_ports(2)) == [8, 9]


def test_only_own_stale_sockets_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_ports, "SOCKETS", tmp_path)
    names = ["seaweedfs-s3-1.sock", "seaweedfs-s3-grpc-2.sock", "seaweedfs-filer-3.sock", "seaweedfs-filer-4.sock"]
    stale, alive, young, theirs = (tmp_path / name for name in names)
    other, file = tmp_path / "other-5.sock", tmp_path / "seaweedfs-filer-6.sock"
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(alive))
        listener.listen()
        for path in (stale, young, theirs, other):
            with closing(socket.socket(socket.AF_UNIX)) as dead:
                dead.bind(str(path))
        file.touch()
        for path in (stale, alive, theirs, other, file):
            os.utime(path, (0, 0))
        kept = {alive, young, other, file}
        if os.geteuid() == 0:
            os.chown(theirs, 65534, 65534)
            kept.add(theirs)
        server_ports.remove_stale_sockets()
        assert set(tmp_path.iterdir()) == kept


@slow
def test_a_verb_whose_server_dies_names_its_log(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=f"the S3 server has ended; see {tmp_path}/s3/log"),
        s3_server.store_of(None, tmp_path) as store,
    ):
        os.kill(_weed(tmp_path), signal.SIGKILL)
        store.get_bytes("object")


@slow
@linux
@pytest.mark.parametrize("log", [b"write data/x: no space left on device", b"error: No writable volumes and no", b""])
def test_a_server_whose_disk_is_full_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: bytes) -> None:
    usage = shutil.disk_usage(tmp_path)
    with s3_server.shared(tmp_path) as wait:
        wait()
        (tmp_path / "s3" / "log").write_bytes(log)
        for free, is_full in ((usage.total // 50, False), (usage.total // 200, bool(log))):
            monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
            error = s3_server.lost_server(tmp_path)
            assert (error is not None) == is_full
            assert not error or f"the disk of {tmp_path}/s3 is full ({free:,} bytes are free); free some" in str(error)


@slow
@linux
def test_a_dead_server_ends_the_run_at_once(tmp_path: Path) -> None:
    words = ("data=digits", "epochs=1000", "batch_size=64", "min_accuracy=0", "min_recall=0")
    command = [sys.executable, "pipeline.py", "local", "--runs", str(tmp_path), *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        _wait_until(lambda: any("[train] " in log.read_text() for log in tmp_path.glob("*/kfp.log")))
        os.kill(_weed(tmp_path), signal.SIGKILL)
        _, errors = run.communicate(timeout=60)  # its requests would be sent again for two minutes and more
    assert run.returncode == 2
    assert errors == f"error: train: the S3 server has ended; see {tmp_path}/s3/log, and start the run again\n"


def test_the_users_variables_are_for_the_data() -> None:
    embedded = {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "ours", "AWS_REGION": "here"}
    user = {
        "PATH": "/bin",
        "S3_ENDPOINT": "https://s3.example.org",
        "AWS_ACCESS_KEY_ID": "theirs",
        "AWS_SESSION_TOKEN": "token",
        "AWS_PROFILE": "work",
        "AWS_CA_BUNDLE": "/ca.crt",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/token",
    }
    found = s3_server.step_variables(embedded, user)
    assert found == {
        "PATH": "/bin",
        **embedded,
        "SOURCE_AWS_ENDPOINT_URL_S3": "https://s3.example.org",
        "SOURCE_S3_ENDPOINT": "https://s3.example.org",
        **{f"SOURCE_{name}": value for name, value in user.items() if name.startswith("AWS_")},
    }
    own = {"SOURCE_AWS_ACCESS_KEY_ID": "own", "SOURCE_AWS_REGION": ""}
    assert s3_server.step_variables(embedded, {**user, **own}) == {"PATH": "/bin", **embedded, **own}


def test_without_variables_the_data_are_read_anonymously(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "SOURCE_", "S3_"))]:
        monkeypatch.delenv(name)
    for name, value in s3_server.step_variables({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}, {}).items():
        monkeypatch.setenv(name, value)
    assert open_source_store("s3://bucket/pictures")._client._base_url.host == "s3.amazonaws.com"


def test_a_store_given_by_uri_needs_no_server(tmp_path: Path) -> None:
    with s3_server.store_of("s3://bucket/prefix", tmp_path) as store:
        assert store.uri("name") == "s3://bucket/prefix/name"
    assert not list(tmp_path.iterdir())
