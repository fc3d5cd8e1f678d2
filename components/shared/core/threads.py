"""Threads that a process needs: if one ends by an exception, so does the process, instead of going on without it."""

import os
import sys
import threading
import traceback
from collections.abc import Callable


def start_vital(work: Callable[..., object], *arguments: object) -> threading.Thread:
    """Start a thread without which the process must not go on.

    If `work` raises, which is a bug, its traceback is printed and the process ends at once, with exit code 1.
    """
    thread = threading.Thread(target=_run, args=(work, *arguments), daemon=True)
    thread.start()
    return thread


def _run(work: Callable[..., object], *arguments: object) -> None:
    try:
        work(*arguments)
    except BaseException:
        traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
