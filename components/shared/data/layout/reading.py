"""How the user says that a source of pictures is to be read."""

from dataclasses import dataclass
from typing import Literal

Arrangement = Literal["auto", "classes", "splits", "groups", "names"]


@dataclass(frozen=True)
class Reading:
    """The parameters about the layout; the defaults find it."""

    data_layout: Arrangement = "auto"
    labels: str = ""  # a table in the source
    label_columns: str = ""  # PICTURE,CLASS
    needs_labels: bool = True  # whether pictures without labels are left out, or refused
