"""What is known of the folders of a source while its layout is searched, and how the search ends without one."""

from dataclasses import dataclass, field
from typing import NoReturn

from components.shared.core.errors import UserError
from components.shared.data.layout.survey import Survey


@dataclass
class Search:
    """The search for the layout of a source."""

    source: str
    survey: Survey
    filled: list[list[str]] = field(default_factory=list)  # the folders that hold pictures
    besides: str = ""  # about pictures that nothing can read

    def refuse(self, problem: str, remedy: str) -> NoReturn:
        raise UserError(f"{self.source} {problem}", remedy)

    def refuse_loose(self, folder: str) -> NoReturn:
        """Raise UserError about pictures outside the classes."""
        remedy = "put them into class-name/"
        if self.survey.tables:
            remedy = f"set labels={self.survey.tables[0]} if that file says their classes, or {remedy}"
        self.refuse(f"holds pictures in {folder or 'its top folder'}, outside a class", remedy)

    def require_folders(self, root: int) -> None:
        """Raise UserError if there are pictures outside the folders at this depth."""
        for parts in self.filled:
            if len(parts) <= root:
                self.refuse_loose("/".join(parts))

    def tops(self, root: int) -> list[str]:
        return sorted({parts[root] for parts in self.filled if len(parts) > root})

    def under(self, top: str, root: int) -> list[list[str]]:
        """Return the folders with pictures under a top folder, relative to it."""
        return [parts[root + 1 :] for parts in self.filled if len(parts) > root and parts[root] == top]
