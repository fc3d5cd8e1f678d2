"""Web pages that come in place of what was asked for: what a message says of one."""

import html
import re

TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.I | re.S)


def title_of(page: str) -> str | None:
    """Return the title of a page as one line; None if it has none."""
    found = TITLE.search(page)
    return " ".join(html.unescape(found[1]).split()) if found else None
