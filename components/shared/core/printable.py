"""The one door by which texts of others reach a terminal: names of files, answers of servers, names in Kubeflow.

Control characters could move the cursor or forge lines there, and bidirectional controls show a text in another order.
"""

import hashlib
import re
from typing import TextIO

# All control characters but the tab, line separators, bidirectional controls, and bytes that are no UTF-8.
UNPRINTABLE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
MAX_TAG = 200  # characters; those of known servers have fewer than 80


def printable(text: str) -> str:
    r"""Return a text as one line without controls, each of which is shown as Python writes it, such as \x1b."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def say(*lines: object, file: TextIO | None = None, flush: bool = False) -> None:
    """Print lines for people, each as one line."""
    for line in lines:
        print(printable(str(line)), file=file, flush=flush)


def bounded(tag: str) -> str:
    """Return an ETag as it is if it is short and printable, else a digest of it."""
    is_plain = len(tag) <= MAX_TAG and not UNPRINTABLE.search(tag)
    return tag if is_plain else f"sha256:{hashlib.sha256(tag.encode()).hexdigest()}"
