"""The Markdown files of the repository: their code blocks, commands, links and anchors."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "manifests").rglob("*.md")),
]
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.M | re.S)
INLINE = re.compile(r"(?<!`)`((?:make|kubectl|python pipeline\.py) [^`]*)`")


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks of a language; those without one are commands, their output and trees."""
    return [content for found, content in BLOCK.findall(text) if found == language]


def commands(text: str) -> Iterator[str]:
    """Yield the commands of a document, each in one line: of its code blocks, and in its text if they are complete."""
    for block in blocks(text, ""):
        for line in re.sub(r"(\||\\)\n\s*", r"\1 ", block).splitlines():
            command = re.sub(r"(^|\s)# .*", "", line.removeprefix("$ ")).strip()
            if re.match(r"(make|kubectl|python) ", command):
                yield command
    for command in INLINE.findall(BLOCK.sub("", text)):
        if not re.search(r"…|\.\.\.|VERB|NAME|<", command):
            yield command


def all_commands() -> list[str]:
    """Return the commands of all documents, each once."""
    return list(dict.fromkeys(command for path in DOCUMENTS for command in commands(path.read_text())))


def words_of_run(command: str) -> list[str]:
    """Return what `make run` passes to the verb `local`."""
    words = shlex.split(command)
    arguments = [word.removeprefix("ARGS=") for word in words if word.startswith("ARGS=")]
    return [word for argument in arguments for word in shlex.split(argument)]


def links(text: str) -> list[tuple[str, str]]:
    """Return path and anchor of every link and picture that leads to a file of the repository."""
    found = re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)]*))?\)", BLOCK.sub("", text))
    return [(path, anchor) for path, anchor in found]


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def paths(text: str) -> set[str]:
    """Return the files and folders of the repository that the text names in backticks."""
    folders = "bench|components|docker|docs|manifests|runner|tests"
    return set(re.findall(rf"`((?:{folders})/[\w./-]*)`", text))


def read(path: str) -> str:
    """Return the text of a file of the repository."""
    return (ROOT / path).read_text()


def relative(path: Path) -> str:
    """Return a path from the top of the repository, for names of tests."""
    return path.relative_to(ROOT).as_posix()
