"""What a file of a data set is: by its name and, if that does not tell, by its first 64 bytes."""

from typing import NamedTuple

from components.shared.data.layout.left_out import Reason

PICTURES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".avif", ".tif", ".tiff")
# Pictures that nothing here reads: of phones, of cameras, of printers and drawings, of medicine, and rare ones.
UNREADABLE = (
    *(".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpx", ".jpf"),
    *(".dng", ".raw", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".srw", ".orf", ".rw2", ".rwl"),
    *(".raf", ".pef", ".x3f", ".3fr", ".erf", ".kdc", ".mrw", ".dcr", ".iiq", ".mef", ".mos", ".fff", ".gpr", ".rwz"),
    *(".pdf", ".ps", ".eps", ".ai", ".svg", ".psd", ".xcf", ".djvu", ".emf", ".wmf"),
    *(".dcm", ".dicom", ".nii", ".mha", ".mhd", ".nrrd", ".fits", ".svs", ".ndpi", ".czi"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".pcx", ".ico", ".exr", ".hdr", ".dds", ".ras", ".sgi"),
)
SIDECARS = (
    *(".xml", ".json", ".jsonl", ".txt", ".csv", ".tsv", ".mat", ".yaml", ".yml", ".xmp", ".aae", ".npy", ".npz"),
    *(".pkl", ".h5", ".parquet", ".arff", ".md", ".rst", ".html", ".htm", ".log", ".cfg", ".doc", ".docx", ".xls"),
    *(".xlsx", ".rtf", ".py", ".ipynb", ".sh", ".url", ".md5", ".sha1", ".sha256"),
)
# What file servers, desktops and tools leave behind, in lower case. Whatever lies in such a folder is left out, too.
JUNK = (
    *("@eadir", "#recycle", "@recycle", "#snapshot", ".thumbnails", "__macosx", "$recycle.bin", "lost+found"),
    *("system volume information", ".ipynb_checkpoints", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini"),
    *(".ds_store", ".git", ".trash", ".trashes", ".spotlight-v100", ".fseventsd", ".dvc", ".cache", "icon\r"),
)
START_BYTES = 64
# The start of pictures, for files whose names do not tell.
JPEG_START = b"\xff\xd8\xff"
READABLE_STARTS = (b"\x89PNG\r\n\x1a\n", JPEG_START, b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
UNREADABLE_STARTS = {
    b"%PDF-": ".pdf",
    b"%!PS": ".ps",
    b"8BPS": ".psd",
    b"\xff\x0a": ".jxl",
    b"\0\0\0\x0cJXL ": ".jxl",
    b"\0\0\0\x0cjP  ": ".jp2",
    b"FUJIFILMCCD-RAW": ".raf",
    b"IIRO": ".orf",
    b"IIU\0": ".rw2",
    b"FOVb": ".x3f",
}
# Brands of the files whose bytes 4 to 8 are `ftyp`, as videos have it, too.
READABLE_BRANDS = (b"avif", b"avis")
UNREADABLE_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), ".heic"),
    b"crx ": ".cr3",
}


class FileKind(NamedTuple):
    """Why a file is left out, None if it is a picture to read, and its kind in a word for people."""

    reason: Reason | None
    kind: str


PICTURE = FileKind(None, "picture")


def junk_in(name: str) -> str:
    """Return what in the path `name` shows that the file is no part of the data set; nothing if it may be."""
    for part in name.split("/"):
        if part.lower() in JUNK:
            return part.strip()
        if part.startswith("._"):
            return "._*"
        if part.startswith(".") and part not in (".", ".."):
            return "hidden"
    return ""


def kind_by_name(name: str) -> FileKind | None:
    """Return the kind of a file by its name; None if its first bytes have to tell."""
    if junk := junk_in(name):
        return FileKind("junk", junk)
    suffix = _suffix(name)
    if suffix in PICTURES:
        return PICTURE
    if suffix in UNREADABLE:
        return FileKind("unreadable", suffix)
    return FileKind("sidecar", suffix) if suffix in SIDECARS else None


def kind_by_start(name: str, start: bytes) -> FileKind:
    """Return the kind of a file by its first bytes, at least 64 if it has as many."""
    is_bitmap = start[:2] == b"BM" and start[6:10] == bytes(4)
    brand = start[8:12] if start[4:8] == b"ftyp" else b""
    is_webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    if is_bitmap or is_webp or brand in READABLE_BRANDS or (start.startswith(READABLE_STARTS) and start[8:10] != b"CR"):
        return PICTURE
    unreadable = [kind for magic, kind in UNREADABLE_STARTS.items() if start.startswith(magic)]
    if brand in UNREADABLE_BRANDS or unreadable or start.startswith((b"II*\0", b"MM\0*")):
        return FileKind("unreadable", UNREADABLE_BRANDS.get(brand) or (unreadable or [".cr2"])[0])
    suffix = _suffix(name)
    is_usual = 2 <= len(suffix) <= 6 and suffix[1:].isalnum() and not suffix[1:].isdigit()
    return FileKind("other", suffix if is_usual else "without a known suffix")


def _suffix(name: str) -> str:
    base = name.rpartition("/")[2]
    return "." + base.rpartition(".")[2].lower() if "." in base else ""
