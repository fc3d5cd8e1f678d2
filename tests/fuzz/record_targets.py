"""The readers of what others wrote of a file: leases, records of caches, tables of labels, and a server's redirects."""

import io
import json
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import requests
from kfp.dsl import Artifact
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3 import HTTPResponse

from components.download import download
from components.shared.core.errors import UserError
from components.shared.core.files import sha256_file
from components.shared.data.raw import open_raw
from components.shared.data.sources import http_transfer
from components.shared.data.sources.http import UrlDocument, fetch_url
from components.shared.data.sources.schemes import open_source
from components.shared.parameters.preparation import ReadingRecipe
from components.shared.storage.lease import MAX_SECONDS, Lease, renew
from runner.local.cached_steps import CachedSteps
from tests.fuzz.shelf import Shelf
from tests.fuzz.target import Target
from tests.sample_files import packed, picture, sha256

PICTURES = {f"pictures/{number}.png": picture(number) for number in range(4)}
TYPED = "https://data.example.org/pets.zip"


def lease(folder: Path) -> Target:
    """The document of a lease, as those that depend on it read it."""
    shelf = Shelf()
    store: Any = shelf
    renew(store, "lease.json", 30, 300)
    seeds = [shelf.objects["lease.json"]]

    def read(content: bytes) -> None:
        shelf.objects["lease.json"] = content
        watched, said = Lease(store, "lease.json"), io.StringIO()
        with redirect_stdout(said):
            is_lapsed = watched.is_lapsed()
        assert 0 < watched.seconds <= MAX_SECONDS
        if said.getvalue():
            assert not is_lapsed, "a lease that was damaged just now"
            raise UserError(said.getvalue())

    return Target(seeds, read)


def url_record(folder: Path) -> Target:
    """The record of what an address held."""
    content = b"an archive"
    with patch.dict("os.environ", XDG_CACHE_HOME=str(folder)):
        cache = folder / "torch2kubeflow"
        (cache / "sha256").mkdir(parents=True)
        (cache / "sha256" / sha256(content)).write_bytes(content)
    record = cache / "urls" / f"{sha256(TYPED.encode())}.json"
    UrlDocument(
        url=TYPED, sha256=sha256(content), date="2026-01-01", etag='"1"', last_modified=None, name="pets.zip"
    ).write(record)

    def read(damaged: bytes) -> None:
        record.write_bytes(damaged)
        with patch.dict("os.environ", XDG_CACHE_HOME=str(folder)), redirect_stdout(io.StringIO()):
            found = fetch_url(f"{TYPED}#sha256={sha256(content)}")
        assert found.path.read_bytes() == content
        if not found.name:
            raise UserError("the record was not used")

    return Target([record.read_bytes()], read)


def step_record(folder: Path) -> Target:
    """The record of the files that a step left, beside KFP's of its outputs."""
    artifact, record = folder / "runs" / "1" / "artifact", folder / "runs" / ".cache" / "key.json"
    for path in (artifact / "file", record):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"{}")
    outputs: Mapping[str, Any] = {"out": Artifact(uri=str(artifact))}
    steps = CachedSteps(folder / "runs")
    steps.write(record, outputs)
    files = record.with_suffix(".files")

    def read(content: bytes) -> None:
        files.write_bytes(content)
        said = io.StringIO()
        with redirect_stderr(said):
            is_used = steps.is_intact(record) and steps.is_reusable(record, outputs)
        if not is_used:
            raise UserError(said.getvalue() or "the files are not those that were left")
        found = json.loads(content)
        assert found["record"] == sha256_file(record) and str(artifact) in found["files"]

    return Target([files.read_bytes()], read)


def labels(suffix: str, folder: Path) -> Target:
    """A table of labels in an archive."""
    recipe = ReadingRecipe.of(labels="labels.csv").text()
    seeds = [
        "id,label\n0,cat\n1,dog\n2,cat\n3,dog\n",
        "file;breed\n0.png;cat\n3.png;狗\n",
        '0.png,"a ""b"""\n1.png,c\n',
    ]

    def read(content: bytes) -> None:
        path = packed(folder, {**PICTURES, "labels.csv": content}, suffix)
        with redirect_stdout(io.StringIO()):
            download(
                data=str(path),
                version=open_source(str(path)).version(),
                recipe=recipe,
                needs_labels=True,
                raw=str(folder / "raw"),
            )
        raw = open_raw(folder / "raw")
        taken = [label for chunk in raw.chunks(3) for label in chunk.labels]
        assert 0 < len(taken) == sum(raw.counts.values()) <= len(PICTURES)
        assert all(0 <= label < len(raw.classes) for label in taken)
        assert len(raw.classes) > 1 and all(name.strip() for name in raw.classes)

    return Target([seed.encode() for seed in seeds], read)


class _Redirecting(BaseAdapter):
    """A server whose first answer leads elsewhere; it notes what is requested."""

    def __init__(self, location: str) -> None:
        super().__init__()
        self.location, self.asked = location, list[str]()

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """Answer the first request by the redirect, and later ones by a file."""
        self.asked.append(str(request.url))
        headers = {"Location": self.location} if len(self.asked) == 1 else {"Content-Length": "2"}
        body = io.BytesIO(b"" if len(self.asked) == 1 else b"PK")
        status = 302 if len(self.asked) == 1 else 200
        answer = HTTPResponse(body, headers=headers, status=status, preload_content=False)
        return HTTPAdapter().build_response(request, answer)

    def close(self) -> None:
        """Close nothing."""


def redirect(folder: Path) -> Target:
    """The header Location, of a server that the user typed."""

    def read(content: bytes) -> None:
        server, session = _Redirecting(content.decode("latin-1")), requests.Session()
        for scheme in ("http://", "https://"):
            session.mount(scheme, server)
        given = patch.object(http_transfer, "open_session", lambda _: session)
        with given, redirect_stdout(io.StringIO()):
            http_transfer.download(TYPED, folder / "file")
        for url in map(urlsplit, server.asked):
            assert url.scheme == "https" or url.hostname in ("localhost", "127.0.0.1", "::1")

    seeds = ["/b", "//cdn.example.net/b?c=d#e", "https://cdn.example.net:8443/b", "http://127.0.0.1/b"]
    return Target([seed.encode() for seed in seeds], read)
