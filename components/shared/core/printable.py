"""What of a text may be shown: the one door by which texts of others reach a terminal, and addresses without keys.

Control characters in names of files, answers of servers and names in Kubeflow could move the cursor or forge lines, and
bidirectional controls show a text in another order. A login or a query can be a key to the data: Kubeflow keeps the
parameters of a run as they are, but what we write and print, logs, documents and errors alike, has neither.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, TextIO

# All control characters but the tab, line separators, bidirectional controls, and bytes that are no UTF-8.
UNPRINTABLE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
MAX_TAG = 200  # characters; those of known servers have fewer than 80
OMITTED = "?..."  # in place of a query
# A secret key may have slashes, so a login may reach beyond what a parser takes for the host; a port is none.
LOGIN = r"[^\s/?#@:\[]+:(?!\d+(?:[/?#\s]|$))[^\s\"]*@|[^\s/?#\"]*@"
WITH_LOGIN = re.compile(rf"\s*[a-z][a-z0-9+.-]*://(?:{LOGIN})", re.IGNORECASE)
END = r"(?=[,;:.)'\]]*(?:[\s#\"]|$))"  # of a query, which does not have what ends a sentence or a quotation
ADDRESS = re.compile(
    rf"(?P<scheme>\b[a-z][a-z0-9+.-]*://)(?P<login>{LOGIN})?(?P<place>[^\s?#\"]*)"
    rf"(?P<query>\?(?:\.\.\.{END}|[^\s#\"]*?{END}))?",
    re.IGNORECASE,
)
WITHOUT_QUERIES = ("s3://", "file://")  # there a question mark is part of the name


def printable(text: str) -> str:
    r"""Return a text as one line without controls, each of which is shown as Python writes it, such as \x1b."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable_json(text: str) -> str:
    """Return a JSON document, which may have several lines, without controls: JSON escapes only some by itself."""
    return UNPRINTABLE.sub(lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)


def say(*lines: object, file: TextIO | None = None, flush: bool = False) -> None:
    """Print lines for people, each as one line."""
    for line in lines:
        print(printable(str(line)), file=file, flush=flush)


def bounded(tag: str) -> str:
    """Return an ETag as it is if it is short and printable, else a digest of it."""
    is_plain = len(tag) <= MAX_TAG and not UNPRINTABLE.search(tag)
    return tag if is_plain else f"sha256:{hashlib.sha256(tag.encode()).hexdigest()}"


def told(text: str) -> str:
    """Return a text with the addresses in it as they may be told: without a login, and with ?... for a query."""
    return ADDRESS.sub(_told, text) if "://" in text else text


def told_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as they may be told."""
    return {name: told(value) if isinstance(value, str) else value for name, value in values.items()}


def lacks_query(address: str) -> bool:
    """Return whether an address is one as it was told, without its query."""
    return address.partition("#")[0].endswith(OMITTED)


def has_login(address: str) -> bool:
    """Return whether an address holds a user, a password or a key."""
    return WITH_LOGIN.match(address) is not None


def _told(found: re.Match[str]) -> str:
    scheme, query = found["scheme"], found["query"] or ""
    if query and scheme.lower() not in WITHOUT_QUERIES:
        query = OMITTED
    return scheme + ("...@" if found["login"] else "") + found["place"] + query
