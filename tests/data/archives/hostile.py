"""Archives of every kind with every fault, and what is said of each."""

import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import partial

from backports import zstd

from tests.sample_files import tar_bytes, zip_bytes

FILES = {"cat/1.png": os.urandom(3000), "dog/1.png": os.urandom(2000)}
PAGE = b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html><head><title>Virus &amp;\n scan</title></head></html>"
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".tar": bytes,
    ".tar.gz": gzip.compress,
    ".tar.bz2": bz2.compress,
    ".tar.xz": lzma.compress,
    ".tar.zst": zstd.compress,
}
KINDS = (".zip", *COMPRESS)
END = bytes(1024)  # of a tar
MIB = 2**20


def packed(suffix: str, files: Mapping[str, bytes] = FILES) -> bytes:
    if suffix != ".zip":
        return COMPRESS[suffix](tar_bytes(dict(files), "w"))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in files.items():
            out.writestr(name, content)
    return file.getvalue()


def cut(suffix: str) -> bytes:
    return packed(suffix)[: len(packed(suffix)) * 3 // 10]


def bomb(suffix: str) -> bytes:
    """Return an archive with a member of 80 MiB."""
    header = tarfile.TarInfo("cat/1.png")
    header.size = 80 * MIB
    return COMPRESS[suffix](header.tobuf()) + 5 * COMPRESS[suffix](bytes(16 * MIB)) + COMPRESS[suffix](END)


def zeros_after(suffix: str) -> bytes:
    return packed(suffix) + (1 if suffix == ".tar" else 40) * COMPRESS[suffix](bytes(16 * MIB))


def another_after(suffix: str) -> bytes:
    return packed(suffix) + packed(suffix, {"fox/1.png": b"x"})


def tar_of(*headers: tarfile.TarInfo | bytes) -> bytes:
    blocks = [header if isinstance(header, bytes) else header.tobuf(tarfile.PAX_FORMAT) for header in headers]
    return b"".join(block + bytes(-len(block) % 512) for block in blocks) + END


def header(kind: bytes = tarfile.REGTYPE, **pax: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo("cat/1.png")
    info.type, info.pax_headers = kind, {name.replace("__", "."): value for name, value in pax.items()}
    return info


def gnu_sparse(number: bytes) -> bytes:
    """Return a tar with a sparse file whose map has a number, in octal digits or base 256."""
    block = bytearray(header(tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    block[386:398] = block[398:410] = block[483:495] = number.ljust(12, b"\0")
    return tar_of(b"".join((block[:148], b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:])), block[156:])))


def huge_of_no_encoding() -> bytes:
    """Return a tar with a name that is not UTF-8, of a member that ends far beyond the file."""
    info = tarfile.TarInfo("\udce9/1.png")
    info.size = 2**60
    return tar_of(info.tobuf(tarfile.GNU_FORMAT))


def long_of_no_encoding(count: int) -> bytes:
    """Return a tar with names of 900,000 bytes that are not UTF-8."""
    infos = [tarfile.TarInfo(f"{number:05}.png" + "/\udce9\udce9" * 300_000) for number in range(count)]
    return gzip.compress(b"".join(info.tobuf(tarfile.GNU_FORMAT) for info in infos) + END, 1)


def long_zip_of_no_encoding() -> bytes:
    return zip_bytes({b"\xe9\xe8/" * 20_000: b""})


def link_to(folders: int) -> bytes:
    """Return a tar with a link to so many folders, one in another."""
    info = tarfile.TarInfo("cat")
    info.type, info.linkname = tarfile.SYMTYPE, "a/" * folders
    return tar_of(info.tobuf(tarfile.GNU_FORMAT))


def attribute(name: bytes, value: bytes) -> bytes:
    """Return an attribute of an extended header, framed as it must be."""
    rest = b" " + name + b"=" + value + b"\n"
    count = len(rest)
    while len(rest) + len(str(count)) != count:
        count = len(rest) + len(str(count))
    return str(count).encode() + rest


def pax_alone(content: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """Return a tar of extended headers with this content."""
    info = header(kind)
    info.size = len(content)
    return tar_of(info.tobuf(tarfile.USTAR_FORMAT), content)


def headers_alone() -> bytes:
    """Return 80 comments of 900,000 letters, which compress well, before members without content."""
    return gzip.compress(tar_of(header(comment="x" * 900_000))[:-1024] * 80 + END)


def zip_with(place: int, value: int, directory_only: bool = False) -> bytes:
    """Return a zip with a 16-bit number changed in its first member's headers."""
    content = bytearray(packed(".zip"))
    struct.pack_into("<H", content, content.index(b"PK\1\2") + place + 2, value)
    if not directory_only:
        struct.pack_into("<H", content, place, value)
    return bytes(content)


def lying_zip(method: int, stream: bytes) -> bytes:
    """Return a zip whose member says that it has 70 bytes, and unpacks to what the stream holds."""
    found = bytearray(zip_bytes({b"cat/1.png": stream}))
    crc = zlib.crc32(bytes(70))
    for start, signature in ((8, b"PK\3\4"), (10, b"PK\1\2")):
        place = found.index(signature)
        struct.pack_into("<H", found, place + start, method)
        struct.pack_into("<3L", found, place + start + 6, crc, len(stream), 70)
    return bytes(found)


BROKEN = "cannot be read as an archive"
REFUSED: dict[str, tuple[str, Callable[[], bytes], str]] = {
    **{f"cut{kind}": (kind, partial(cut, kind), BROKEN) for kind in KINDS},
    **{f"empty{kind}": (kind, bytes, BROKEN) for kind in KINDS},
    **{
        f"page{kind}": (
            kind,
            lambda: PAGE,
            "is a web page, not an archive: it begins with '<!DOCTYPE html>.*title 'Virus & scan'; open it in a br",
        )
        for kind in KINDS
    },
    **{
        f"outside{kind}": (kind, partial(packed, kind, {"cat/../../x.png": b""}), "leads outside the archive")
        for kind in KINDS
    },
    **{
        f"long-name{kind}": (kind, partial(packed, kind, {"x/" * 30_000 + "1.png": b""}), "a name of 60,005 letters")
        for kind in KINDS
    },
    **{f"bomb{kind}": (kind, partial(bomb, kind), "than 200 times its size") for kind in COMPRESS if kind != ".tar"},
    **{f"zeros{kind}": (kind, partial(zeros_after, kind), "after its end|200 times its size") for kind in COMPRESS},
    **{f"another{kind}": (kind, partial(another_after, kind), "goes on after its end") for kind in COMPRESS},
    "headers-alone": (".tar.gz", headers_alone, "than 200 times its size"),
    "sparse": (".tar", partial(gnu_sparse, b"7777777777\0"), "holds the sparse file 'cat/1.png'; pack it without --sp"),
    "sparse-negative": (".tar", partial(gnu_sparse, b"\xff" * 12), "holds the sparse file 'cat/1.png'"),
    "sparse-0.0": (".tar", lambda: tar_of(header(GNU__sparse__size="x", GNU__sparse__numblocks="9")), "damaged header"),
    "sparse-0.1": (".tar", lambda: tar_of(header(GNU__sparse__map="0,-9,9,-9")), "holds the sparse file 'cat/1.png'"),
    "sparse-1.0": (
        ".tar",
        lambda: tar_of(header(GNU__sparse__major="1", GNU__sparse__minor="0"), b"9" * 512),
        "holds the sparse file 'cat/1.png'",
    ),
    "negative-size": (".tar", lambda: tar_of(header(size="-5")), "has a size of -5 bytes"),
    "huge-size": (".tar", lambda: tar_of(header(size="9" * 20)), "of 99,999,999,999,999,999,999 bytes, more than"),
    "huge-size-unstated": (".tar", huge_of_no_encoding, "of 1,152,921,504,606,846,976 bytes, more than"),
    "long-unstated": (".tar.gz", partial(long_of_no_encoding, 30), "holds a name of 900,009 bytes, more than 4,096"),
    "long-unstated-zip": (".zip", long_zip_of_no_encoding, "holds a name of 60,000 letters, more than 4,096"),
    "deep-link": (".tar", partial(link_to, 101), "holds a link that is more than 100 folders deep; pack the files"),
    "long-link": (".tar", partial(link_to, 500_000), "holds a name of 1,000,000 letters, more than 4,096"),
    "pax-digits": (".tar", lambda: pax_alone(b"9" * 10**6), "a damaged header: its attributes are not framed"),
    "pax-unframed": (".tar", lambda: pax_alone(b"2 " * 500_000 + b"="), "a damaged header: its attributes are not"),
    "pax-number": (".tar", lambda: pax_alone(attribute(b"comment", b"9" * 10**6)), "a number of too many digits"),
    "pax-many": (
        ".tar",
        lambda: pax_alone(b"".join(attribute(b"a%d" % number, b"") for number in range(2000)), tarfile.XGLTYPE),
        "a header with more than 1,000 attributes",
    ),
    "overflow": (".tar", lambda: pax_alone(b"9" * 20 + b" path=cat/1.png\n"), "a damaged header"),
    "device": (".tar", lambda: tar_of(header(tarfile.CHRTYPE)), "holds the device 'cat/1.png'"),
    "encrypted": (".zip", partial(zip_with, 6, 1), "'cat/1.png' encrypted; pack it without a password"),
    "deflate64": (".zip", partial(zip_with, 8, 9), "'cat/1.png' compressed by Deflate64; compress it by deflate"),
    "method-98": (".zip", partial(zip_with, 8, 98), "'cat/1.png' compressed by method 98"),
    "bad-crc": (".zip", partial(zip_with, 14, 1), BROKEN),
    "7z": (
        ".zip",
        lambda: b"7z\xbc\xaf\x27\x1c" + bytes(99),
        "is a 7z archive, which is not read; unpack it, and",
    ),
    "rar": (".tar", lambda: b"Rar!\x1a\x07\x01\0" + bytes(99), "is a RAR archive, which is not read"),
}
