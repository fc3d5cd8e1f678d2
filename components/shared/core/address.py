"""Addresses that people give: what of them may be told, since a login or a query can be a key to the data.

Kubeflow keeps the parameters of a run as they are. What we write and print, logs, documents and errors alike, has
neither the login nor the query of an address.
"""

import re
from collections.abc import Mapping
from typing import Any

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
