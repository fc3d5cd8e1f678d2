"""A thousand damaged inputs for each reader end well or with a clear error; `make fuzz` searches further."""

import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from components.shared.core.errors import UserError
from components.shared.core.files import MAX_JSON_BYTES, read_json
from components.shared.data.sources.archive import members
from tests.conftest import ROOT
from tests.fuzz.archive_targets import FILES
from tests.fuzz.confinement import Escape, Hang, confined
from tests.fuzz.mutations import mutate
from tests.fuzz.targets import TARGETS
from tests.sample_files import tar_bytes

EXAMPLES = 1000


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_a_mutated_input_is_read_or_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    target = TARGETS[name](tmp_path)
    refused = 0
    for seed in target.seeds:
        target.read(seed)
    for number in range(EXAMPLES):
        random = Random(number)
        content = mutate(random.choice(target.seeds), random)
        try:
            with confined(tmp_path):
                target.read(content)
        except UserError as error:
            assert str(error)
            refused += 1
        except BaseException as error:
            error.add_note(f"{name} {number}: {content[:2000]!r}")
            raise
    assert refused or name in ("address", "served-name")  # which refuse nothing, or report it themselves


def test_a_file_outside_the_folder_is_detected(tmp_path: Path) -> None:
    outside = tmp_path.parent / "x"
    for use in (outside.write_bytes, lambda _: outside.mkdir(), lambda _: os.rename(tmp_path, outside)):
        with pytest.raises(Escape), confined(tmp_path):
            use(b"")
    with pytest.raises(Escape), confined(tmp_path):
        Path("/etc/passwd").read_bytes()
    assert not outside.exists()


def test_a_gib_of_memory_is_detected(tmp_path: Path) -> None:
    code = "import pathlib, sys; from tests.fuzz.confinement import confined\n"
    code += "with confined(pathlib.Path(sys.argv[1])): bytearray(2**30 + 2**28)"  # this process may have freed memory
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.rstrip().endswith("MemoryError")


def test_a_hang_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.confinement.SECONDS", 0.01)
    with pytest.raises(Hang), confined(tmp_path):
        while True:
            pass


def test_xz_that_needs_4_gib_of_memory_is_refused(tmp_path: Path) -> None:
    content = bytearray(tar_bytes(FILES, "w:xz"))
    end = 12 + 4 * (content[12] + 1) - 4  # of the first block's header, before its CRC
    content[content.index(b"\x21\x01", 12) + 2] = 40  # the size of the dictionary
    content[end : end + 4] = struct.pack("<I", zlib.crc32(content[12:end]))
    (tmp_path / "x.tar.xz").write_bytes(content)
    with pytest.raises(UserError, match="Memory usage limit exceeded"), confined(tmp_path):
        list(members(tmp_path / "x.tar.xz"))


def test_zip_compressed_by_lzma_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a/1.png", b"x")
    with pytest.raises(UserError, match=r"'a/1.png' compressed by LZMA; compress it by deflate"):
        list(members(tmp_path / "x.zip"))


def sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(2**40)


def text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (sparse, f"more than {MAX_JSON_BYTES:,} bytes"),
        (text('{"format": "f", "x": 1e999}'), "1e999 is not a finite number"),
        (text('{"format": "f", "x": NaN}'), "NaN is not a finite number"),
        (text(json.dumps({"format": "f", "x": "\ud800"})), "surrogates not allowed"),
        (text('{"x":' * 10**5), "recursion"),
    ],
    ids=["terabyte", "infinite", "nan", "surrogate", "deep"],
)
def test_a_hostile_document_is_refused(tmp_path: Path, write: Callable[[Path], object], reason: str) -> None:
    write(tmp_path / "x.json")
    with pytest.raises(UserError, match=f"x.json is not a JSON document .*{reason}"), confined(tmp_path):
        read_json(tmp_path / "x.json", "f")
