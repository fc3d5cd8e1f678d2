"""Names in archives: one spelling of each, and the encoding of those that do not say in which they are."""

import re
import struct
import unicodedata
import zlib
from collections.abc import Collection, Iterable
from itertools import islice

from charset_normalizer import CharsetMatch, from_bytes

from components.shared.core import log

UTF8 = "utf-8"
ENCODINGS = {"gb18030": "GBK", "cp932": "Shift-JIS", "cp850": "cp850", "cp866": "cp866"}  # the likelier first
SAMPLE = 1000  # names that the detector looks at
# A word of accented letters alone, or one such letter before a capital: other letters, read as Latin ones.
ODD_LATIN = re.compile(r"(?<![^\W\d_])[\u00c0-\u00ff]{2,}(?![^\W\d_])|[\u00df-\u00ff](?=[A-Z])")
UNICODE_PATH = 0x7075  # the field in which a zip repeats a name in UTF-8


def plain(name: str) -> str:
    """Return a name with forward slashes, and with each letter and its accents as one character (NFC)."""
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def parts_of(name: str) -> list[str]:
    """Return the folders of a name and its last part, in one spelling."""
    return [part for part in plain(name).split("/") if part not in ("", ".")]


def find_encoding(source: str, names: Collection[bytes]) -> str:
    """Return UTF-8 if all names are valid in it, else the likeliest encoding, which is logged."""
    fitting = [encoding for encoding in (UTF8, *ENCODINGS) if _fits(encoding, names)]
    if fitting[0] == UTF8:
        return UTF8
    sample = b"\n".join(sorted(set(islice(names, SAMPLE))))
    readings = from_bytes(sample, cp_isolation=fitting, threshold=1, preemptive_behaviour=False, enable_fallback=False)
    best = min(readings, key=lambda reading: (_doubt(reading), fitting.index(reading.encoding)), default=None)
    encoding = best.encoding if best else fitting[0]
    example = next(iter(names)).decode(encoding)
    log.info(f"{source}: the names are not in UTF-8 and are read as {ENCODINGS[encoding]}, such as {example!r}")
    return encoding


def unicode_path(name: bytes, extra: bytes) -> str | None:
    """Return the name in UTF-8 from the extra fields of a zip's member; None if there is none for this name."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        if kind == UNICODE_PATH and size > 5 and struct.unpack_from("<L", extra, 5)[0] == zlib.crc32(name):
            return extra[9 : 4 + size].decode(UTF8)
        extra = extra[4 + size :]
    return None


def _fits(encoding: str, names: Iterable[bytes]) -> bool:
    try:
        for name in names:
            name.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _doubt(reading: CharsetMatch) -> float:
    """Return how unlikely a reading is; the detector alone is misled by names of a few letters."""
    text = str(reading)
    foreign = [place for place, letter in enumerate(text) if not letter.isascii()]
    strangeness = sum(_strangeness(text, place, reading.encoding) for place in foreign)
    strangeness += 0.5 * sum(len(odd[0]) for odd in ODD_LATIN.finditer(text))
    return reading.chaos + strangeness / max(len(foreign), 1)


def _strangeness(text: str, place: int, encoding: str) -> float:
    """Return 1 for what hardly stands in a name: a symbol, a half-width kana; 1/2 for what is rare there."""
    letter, beside = text[place], text[max(place - 1, 0) : place] + text[place + 1 : place + 2]
    if not letter.isalnum() or "\uff61" <= letter <= "\uff9f":
        return 1
    is_within_latin = letter > "\u2e80" and any(other.isascii() and other.isalpha() for other in beside)
    return 0.5 if is_within_latin or (encoding == "gb18030" and not _is_common_chinese(letter)) else 0


def _is_common_chinese(letter: str) -> bool:
    try:
        return bool(letter.encode("gb2312"))
    except UnicodeEncodeError:
        return False
