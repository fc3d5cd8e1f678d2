"""A reader of untrusted data, as the fuzzer runs it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple


class Target(NamedTuple):
    """Valid inputs, and a function that reads such an input or raises UserError."""

    seeds: Sequence[bytes]
    read: Callable[[bytes], None]
