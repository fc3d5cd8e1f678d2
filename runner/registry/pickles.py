"""What a torch.export program (`model.pt2`) holds besides numbers and JSON: PyTorch unpickles it, which runs code."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

# Below a folder with the program's name, as torch.export.save of PyTorch 2.15 writes it.
CONFIG = re.compile(r"data/(weights|constants)/model_\1_config\.json")
KNOWN = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|models/model\.json|extra/description\.json"
    r"|archive_(format|version)|byteorder|\.data/(version|serialization_id)"
)
EXAMPLES = "data/sample_inputs/model.pt"  # read by PyTorch in any case; empty if there are none
RAW = re.compile(r"(weight|tensor)_\d+")  # files of plain numbers


def pickles(program: Path) -> list[str]:
    """Return the names of what PyTorch would unpickle on loading a program, and of all that is not known."""
    try:
        with ZipFile(program) as file:
            return list(_pickles(file))
    except BadZipFile:
        return [program.name]


def _pickles(file: ZipFile) -> Iterator[str]:
    seen = set[str]()
    for member in file.infolist():
        name = member.filename.partition("/")[2]
        is_new = name not in seen and member.compress_type == ZIP_STORED
        seen.add(name)
        if not (is_new and _is_harmless(file, member, name)):
            yield name or member.filename
    if "archive_format" not in seen:  # then PyTorch reads the file as it did before 2.8
        yield "no archive_format"


def _is_harmless(file: ZipFile, member: ZipInfo, name: str) -> bool:
    if name == EXAMPLES:
        return member.file_size == 0
    return _has_only_numbers(file.read(member)) if CONFIG.fullmatch(name) else KNOWN.fullmatch(name) is not None


def _has_only_numbers(config: bytes) -> bool:
    """Return whether a table of weights or constants names only files of plain numbers."""
    try:
        entries = json.loads(config)["config"].values()
        return all(not entry["use_pickle"] and RAW.fullmatch(entry["path_name"]) for entry in entries)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False
