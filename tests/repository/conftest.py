"""A copy of the repository that a test may change."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.repository.documents import ROOT


class Repository:
    """The files of the repository, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
        self.changed = set[str]()  # files that were changed by hand
        for name in names:
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, folder / name)

    def write(self, path: str, text: str) -> None:
        """Write a new file."""
        assert not (self.folder / path).exists()
        (self.folder / path).write_text(text)
        self.changed.add(path)

    def insert(self, path: str, after: str, text: str, times: int = 1) -> None:
        """Insert text after each occurrence of other text. Fails if that is not there `times` times."""
        self._replace(path, after, after + text, times)

    def insert_before(self, path: str, before: str, text: str) -> None:
        """Insert text before other text. Fails if that is not there once."""
        self._replace(path, before, text + before, 1)

    def _replace(self, path: str, old: str, new: str, times: int) -> None:
        file = self.folder / path
        content = file.read_text()
        assert content.count(old) == times, f"{old!r} is {content.count(old)} times in {path}"
        file.write_text(content.replace(old, new))
        self.changed.add(path)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run Python in the copy."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        return subprocess.run(
            [sys.executable, *words], cwd=self.folder, env=environment, capture_output=True, text=True
        )

    def failures(self, *words: str) -> set[str]:
        """Return the names of the tests of the copy that fail."""
        done = self.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *words)
        assert done.returncode in (0, 1), done.stdout + done.stderr
        return set(re.findall(r"^(?:FAILED|ERROR) \S+?::(\w+)", done.stdout, re.M))

    def make_docs(self) -> None:
        """Write the generated documents."""
        done = self.run("-m", "docs.generate")
        assert done.returncode == 0, done.stderr


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A copy of the repository."""
    return Repository(tmp_path / "copy")


@pytest.fixture
def local_run(repository: Repository) -> Callable[..., str]:
    """Run the pipeline of the copy on this machine; return what it printed."""

    def run(*words: str) -> str:
        done = repository.run("pipeline.py", "local", "--runs", str(repository.folder / "runs"), *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
