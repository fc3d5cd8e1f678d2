"""Changes of valid inputs, and the seals (checksums, CRCs) put right after them so that readers look further."""

import copy
import json
import struct
import tarfile
import zlib
from random import Random
from typing import Any

from components.shared.core.files import sha256_json

INTEGERS = (0, 1, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)
PIECES = (
    b"",
    b"\0" * 8,
    b"\xff" * 8,
    b"../",
    b"/etc/passwd",
    b"\xed\xa0\x80",
    b"[" * 100_000,
    b"9" * 5000,
    b"1e999",
    b'"',
)
NUMBERS = (0, 1, 2, -1, 255, 10**6, 2**31, 2**53, 2**63, 2**64, 10**30, 0.5, -0.5, 1e308, float("nan"), float("inf"))
TEXTS = ("", ".", "..", "../../x", "/etc/passwd", "C:\\x", "a/b", "a\0b", "a\nb", "\ud800", "<b>", "ä" * 5000, "train")
VALUES: tuple[Any, ...] = (None, True, False, [], {}, [[]], [0], [None] * 3, {"": ""}, {"name": []}, *NUMBERS, *TEXTS)


def mutate(content: bytes, random: Random) -> bytes:
    """Make one to three changes: mostly of a document's values if the content is one, else of its bytes."""
    for _ in range(random.randint(1, 3)):
        document = parsed(content) if random.random() < 0.8 else None
        content = _mutate_bytes(content, random) if document is None else _mutate_document(document, random)
    return content


def parsed(content: bytes) -> Any:
    """Return the JSON document, or None if the content is not an object or a list with elements."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found if found and isinstance(found, dict | list) else None


def sealed(content: bytes, seal: str = "checksum") -> bytes:
    """Return a document with its checksum, in the field `seal`, made valid; anything else unchanged."""
    document = parsed(content)
    try:
        document.pop(seal, None)
        return json.dumps(document | {seal: sha256_json(document)}).encode()
    except (AttributeError, ValueError, TypeError, RecursionError):
        return content


def sealed_tar(content: bytes) -> bytes:
    """Return a tar archive with valid checksums of its headers."""
    blocks = [content[i : i + tarfile.BLOCKSIZE] for i in range(0, len(content), tarfile.BLOCKSIZE)]
    return b"".join(_sealed_header(block) if block[257:262] == b"ustar" else block for block in blocks)


def sealed_png(content: bytes) -> bytes:
    """Return a PNG with valid CRCs of its chunks, as many as their lengths lead to."""
    parts, start = [content[:8]], 8
    while start + 12 <= len(content):
        end = min(start + 8 + int.from_bytes(content[start : start + 4]), len(content) - 4)
        parts += [content[start:end], struct.pack(">I", zlib.crc32(content[start + 4 : end]))]
        start = max(end, start + 8) + 4
    return b"".join(parts) + content[start:]


def _sealed_header(block: bytes) -> bytes:
    total = sum(block[:148]) + sum(b" " * 8) + sum(block[156:])
    return block[:148] + b"%06o\0 " % total + block[156:]


def _mutate_bytes(content: bytes, random: Random) -> bytes:
    position = random.randrange(len(content) + 1)
    if random.random() < 0.5:  # headers are at the start, a zip's directory at the end
        position = random.choice((position % 64, max(0, len(content) - position % 64)))
    before, after = content[:position], content[position:]
    match random.randrange(6):
        case 0:
            return before
        case 1:
            return before + random.choice(PIECES) + after
        case 2:
            return before + after[random.choice((1, 4, 100)) :]
        case 3:
            order, size = random.choice("<>"), random.choice("HIQ")
            number = random.choice(INTEGERS) % 2**16 if size == "H" else random.choice(INTEGERS)
            changed = struct.pack(order + size, number)
            return before + changed + after[len(changed) :]
        case 4:
            return before + after[:100] + after
    return before + bytes([after[0] ^ 1 << random.randrange(8)]) + after[1:] if after else before


def _mutate_document(document: Any, random: Random) -> bytes:
    changed = node = copy.deepcopy(document)
    while True:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        key = random.choice(keys)
        if not isinstance(node[key], dict | list) or not node[key] or random.random() < 0.2:
            break
        node = node[key]
    match random.randrange(6):
        case 0:
            del node[key]
        case 1 if isinstance(node, list):
            node.append(copy.deepcopy(node[key]))
        case 2:
            node[key] = [node[key]]
        case 3 if isinstance(node[key], int):
            node[key] += random.choice((-1, 1))
        case _:
            node[key] = copy.deepcopy(random.choice(VALUES))
    return json.dumps(changed).encode()
