"""Ask a user on a terminal before something is removed."""

import sys


def is_agreed(question: str, yes: bool) -> bool:
    """Return whether the user agrees: by --yes, by an answer or, without a terminal, by having given the command."""
    if yes or not sys.stdin.isatty():
        return True
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
