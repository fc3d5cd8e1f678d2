"""The files of a source that are left out of the data set: counted by kind, and said in words."""

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from components.shared.core import log
from components.shared.core.document import Count, Items, Part, Size
from components.shared.core.errors import UserError

Reason = Literal["unreadable", "unlabelled", "sidecar", "junk", "other"]

MISSING, WITHOUT_BYTES = "missing", "without bytes"  # kinds of pictures that a table names
KINDS = 40  # that are told apart
WORDS: dict[Reason, tuple[str, str]] = {  # for one file and for several
    "unreadable": ("picture", "pictures"),
    "unlabelled": ("picture without a label", "pictures without a label"),
    "sidecar": ("file beside the pictures", "files beside the pictures"),
    "junk": ("file of other programs", "files of other programs"),
    "other": ("file that is no picture", "files that are no pictures"),
}


class Files(Part):
    """Files of one kind, such as `.heic` or `@eaDir`, and why they are left out."""

    reason: Reason
    kind: str
    count: Size
    first: str  # the name of the first one


class BadImage(Part):
    """A picture that was left out because it is broken, and how."""

    name: str
    reason: str


def sentences_on(bad: Sequence[BadImage]) -> list[str]:
    """Return a line such as `2 broken pictures left out; the first is a/1.png: the file is empty`, if there are any."""
    broken = "broken picture" if len(bad) == 1 else "broken pictures"
    return [f"{len(bad):,} {broken} left out; the first is {bad[0].name}: {bad[0].reason}"] if bad else []


class LeftOut(Part):
    """The files that are left out, next to the number of pictures that are taken."""

    taken: Count
    files: Items[Files]

    @property
    def unreadable(self) -> int:
        """Return the number of pictures that nothing here can read."""
        return sum(found.count for found in self.files if found.reason == "unreadable")

    @property
    def share(self) -> float:
        """Return the share of the pictures that nothing here can read."""
        return self.unreadable / max(1, self.taken + self.unreadable)

    def sentences(self) -> list[str]:
        """Return a line for each reason, such as `36 of 48 pictures left out: 36 .heic`."""
        return [sentence for reason in get_args(Reason) if (sentence := self._sentence(reason))]

    def _sentence(self, reason: Reason) -> str:
        found = [files for files in self.files if files.reason == reason]
        count = sum(files.count for files in found)
        if not count:
            return ""
        of = f" of {self.taken + count:,}" if reason == "unreadable" else ""
        kinds = ", ".join(f"{files.count:,} {files.kind}" for files in found)
        return f"{count:,}{of} {WORDS[reason][count > 1 or bool(of)]} left out: {kinds}"


class Tally:
    """Counts the files that are left out, in bounded memory."""

    def __init__(self) -> None:
        self._found: dict[tuple[Reason, str], tuple[int, str]] = {}

    def add(self, reason: Reason, kind: str, name: str, number: int = 1) -> None:
        """Count the file `name`, or a number of files of which it is the first."""
        key = (reason, kind)
        if key not in self._found and len(self._found) >= KINDS:
            key = (reason, "of other kinds")
        count, first = self._found.get(key, (0, name))
        self._found[key] = (count + number, first)

    def result(self, taken: int) -> LeftOut:
        """Return the counts, next to the number of pictures that are taken; the most frequent kinds come first."""
        return LeftOut(taken=taken, files=sorted(self._files(), key=lambda files: (-files.count, files.kind)))

    def _files(self) -> Iterable[Files]:
        for (reason, kind), (count, first) in self._found.items():
            shown = first.encode(errors="backslashreplace").decode()  # names of junk may be of any bytes
            yield Files(reason=reason, kind=kind, count=count, first=shown)


def log_left_out(left_out: LeftOut | None) -> None:
    """Log what a source leaves out, if it can leave out anything."""
    for sentence in left_out.sentences() if left_out else ():
        log.info(sentence)


def check_left_out(source: str, left_out: LeftOut | None, allowed: float) -> None:
    """Raise UserError if more than the allowed share of a source's pictures is left out: nothing can read them."""
    if left_out and left_out.share > allowed:
        kinds = {found.kind for found in left_out.files if found.reason == "unreadable"}
        remedy = "add them or remove their rows" if kinds <= {MISSING, WITHOUT_BYTES} else "convert them to PNG or JPEG"
        raise UserError(
            f"{source}: {left_out.sentences()[0]}, more than max_left_out={allowed}",
            f"{remedy}, or set max_left_out to the share that may be left out",
        )
