"""Docker, the base image and a registry for the tests of the images; what is missing is made for the tests."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import docker
import pytest
import requests

BASE = "python:3.11-slim-bookworm"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


@contextmanager
def docker_client(folder: Path) -> Iterator[docker.DockerClient]:
    """Yield a client of the running Docker daemon or, if there is none, of one with its data in `folder`."""
    if _answers():
        with closing(docker.from_env()) as client:
            yield client
        return
    if not shutil.which("dockerd") or os.getuid():
        pytest.skip("no Docker daemon answers, and only root can start one, where `dockerd` is installed")
    host = f"unix://{folder}/docker.sock"
    command = ["dockerd", f"--host={host}", f"--data-root={folder}/data", f"--exec-root={folder}/exec"]
    log = folder / "dockerd.log"
    with open(log, "wb") as output, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", host)
        with subprocess.Popen([*command, f"--pidfile={folder}/pid"], stdout=output, stderr=output) as daemon:
            try:
                if not _wait(_answers, daemon):
                    pytest.skip(f"dockerd does not start here: {log.read_text().strip().splitlines()[-1:]}")
                with closing(docker.from_env()) as client:
                    yield client
            finally:
                daemon.terminate()


@contextmanager
def base_image(client: docker.DockerClient) -> Iterator[None]:
    """Pull the base image; if no registry has it, Debian's Python takes its name."""
    had = client.images.list(BASE)
    if not had:
        try:
            client.images.pull(BASE)
        except docker.errors.APIError:
            _make_base()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BASE_IMAGE", BASE)  # the Dockerfile may name it by a digest, which this one does not have
        yield
    if not had:
        client.images.remove(BASE, force=True)


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Run a registry on loopback with its images in `folder`, and yield its host and port."""
    if not shutil.which("docker-registry"):
        pytest.skip("`docker-registry` is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    configuration = folder / "registry.yml"
    storage = f"storage: {{filesystem: {{rootdirectory: {folder / 'images'}}}}}"
    configuration.write_text(f"version: 0.1\nlog: {{level: error}}\n{storage}\nhttp: {{addr: '127.0.0.1:{port}'}}\n")
    command = ["docker-registry", "serve", str(configuration)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            assert _wait(lambda: requests.get(f"http://127.0.0.1:{port}/v2/", timeout=5).ok, server)
            yield f"localhost:{port}"
        finally:
            server.terminate()


def _answers() -> bool:
    return bool(shutil.which("docker")) and not subprocess.run(["docker", "version"], capture_output=True).returncode


def _wait(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> bool:
    """Wait up to 30 seconds until `ready`. Return False if the process ends before."""
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(requests.ConnectionError):
            if ready():
                return True
        time.sleep(0.1)
    return False


def _make_base() -> None:
    """Make a substitute of the base image from Debian's packages; it trusts the authorities of this machine."""
    if not shutil.which("mmdebstrap"):
        pytest.skip(f"{BASE} cannot be pulled, and `mmdebstrap`, which makes a stand-in, is not installed")
    environment = dict.fromkeys(("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE"), CERTIFICATES)
    environment |= {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin", "LANG": "C.UTF-8"}
    changes = [f"ENV {name}={value}" for name, value in environment.items()]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "base.tar"
        command = ["mmdebstrap", "--quiet", "--variant=minbase"]
        command += ["--include=python3,python3-pip,python3-venv,ca-certificates"]
        command += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man")]
        command += [f"--customize-hook=copy-in {CERTIFICATES} /etc/ssl/certs"]
        command += ['--customize-hook=ln -s /usr/bin/python3 "$1/usr/local/bin/python"']
        command += ['--customize-hook=rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED']
        subprocess.run([*command, "bookworm", tree], check=True, capture_output=True)
        words = [word for change in changes for word in ("--change", change)]
        subprocess.run(["docker", "import", *words, tree, BASE], check=True, capture_output=True)
