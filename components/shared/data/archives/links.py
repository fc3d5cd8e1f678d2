"""Links in archives: what lies where a link leads is found under the link's name, too."""

from collections import defaultdict
from collections.abc import Iterator

from components.shared.core.errors import UserError
from components.shared.data.archives.kinds import ArchiveFile
from components.shared.data.archives.limits import check_length
from components.shared.data.archives.names import parts_of
from components.shared.data.layout.file_kinds import junk_in

MAX_LINKS = 100_000
MAX_DEPTH = 100  # folders in a name or a target
MAX_STEPS = 40  # from link to link, as Linux has it
INSTEAD = "pack the files themselves (tar -h)"


class Links:
    """The links of an archive, to files or to folders in it."""

    def __init__(self, path: ArchiveFile) -> None:
        """Start without links."""
        self._path = path
        self._targets: dict[str, str] = {}
        self._names: dict[str, list[str]] = {}
        self._unused: set[str] = set()

    def __bool__(self) -> bool:
        """Return whether there are links."""
        return bool(self._targets)

    def add(self, name: str, target: str, folder: str = "") -> None:
        """Add a link to `target`, relative to `folder`. Raises UserError if it leads outside, or is too long."""
        for text in (name, target):
            check_length(self._path, text)
            if len(parts_of(text)) > MAX_DEPTH:
                raise UserError(f"{self._path} holds a link that is more than {MAX_DEPTH} folders deep", INSTEAD)
        if junk_in(name):
            return
        found = parts_of(folder)
        for part in target.replace("\\", "/").split("/"):
            if target.startswith("/") or (part == ".." and not found):
                raise UserError(f"{self._path} holds the link {name!r} to {target!r}, outside the archive", INSTEAD)
            found = found[:-1] if part == ".." else found + parts_of(part)
        if len(self._targets) >= MAX_LINKS:
            raise UserError(f"{self._path} holds more than {MAX_LINKS:,} links", INSTEAD)
        self._targets["/".join(parts_of(name))] = "/".join(found)

    def resolve(self) -> None:
        """Follow the links, which have all been added. Raises UserError if one leads to what holds it."""
        names = defaultdict(list)
        for name in self._targets:
            target = self._final(name)
            if f"{name}/".startswith(f"{target}/" if target else ""):
                raise UserError(f"{self._path} holds the link {name!r} to what holds it", "remove it")
            names[target].append(name)
        self._names, self._unused = names, set(names)
        for name in self._targets:
            if within := next((place for place in _above(name) if place in names), ""):
                raise UserError(f"{self._path} holds the link {name!r} in {within!r}, to which a link leads", INSTEAD)

    def names_of(self, name: str) -> list[str]:
        """Return the names that a member has by way of links."""
        parts, found = parts_of(name), []
        for count in range(1, len(parts) + 1):
            target = "/".join(parts[:count])
            if target in self._names:
                self._unused.discard(target)
                found += ["/".join([link, *parts[count:]]) for link in self._names[target]]
        return found

    def require_used(self) -> None:
        """Raise UserError if a link led to no member."""
        for target in sorted(self._unused):
            raise UserError(
                f"{self._path} holds the link {self._names[target][0]!r} to {target!r}, which is not in it", INSTEAD
            )

    def _final(self, name: str) -> str:
        """Return where a link leads to when all links on the way are followed."""
        target = self._targets[name]
        for _ in range(MAX_STEPS):
            link = next((place for place in (*_above(target), target) if place in self._targets), None)
            if link is None:
                return target
            target = self._targets[link] + target[len(link) :]
        raise UserError(f"{self._path} holds the link {name!r}, which leads to itself", "remove it")


def _above(name: str) -> Iterator[str]:
    """Yield the folders above a name, the outermost first."""
    parts = name.split("/")
    yield from ("/".join(parts[:count]) for count in range(1, len(parts)))
