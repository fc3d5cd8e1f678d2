"""Whole runs and verbs with stores that know no conditions, or that answer 500 for one object."""

from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name

import pytest

from components.shared.core.errors import UserError
from components.shared.registry.registry import RegisteredModel
from components.shared.storage.errors import Unreadable
from runner.verbs.parser import parse
from tests.faults.record import IS_SWEEP, note
from tests.faults.whole_runs import ShortRun, fail_in_one_line
from tests.servers.s3_server import Proxy, S3Server, ignore, lose, proxy

pytestmark = pytest.mark.slow

DOCUMENTS = {"register.json", "version.json"}  # of the model, and of version 2
# verb -> the objects that it cannot do without
NEEDED = {
    ("models",): {"register.json"},
    ("models", "promote", "digits", "2"): DOCUMENTS,
    ("models", "prune", "--older-than", "0", "--dry-run"): DOCUMENTS | {"dataset.json"},
    ("verify", "digits/2"): DOCUMENTS | {"model.safetensors", "predictions.npy", "model.pt2"},
    ("lineage", "digits/2"): DOCUMENTS,
}
OBJECTS = ("register.json", "version.json", "model.safetensors", "predictions.npy", "model.pt2", "dataset.json")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, server: S3Server) -> tuple[ShortRun, str]:
    """Two runs without faults, of which the first is the champion, and the digest of its weights."""
    run = ShortRun(tmp_path_factory.mktemp("reference"), "reference", server)
    digest = run.finish()
    run.finish("seed=1")
    RegisteredModel(run.store, "digits").promote(1)
    return run, digest


@pytest.fixture
def network(server: S3Server) -> Iterator[Proxy]:
    with proxy(server.address) as network:
        yield network


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"] if IS_SWEEP else ["If-Match"])
def test_a_run_needs_a_store_with_conditions(
    tmp_path: Path, server: S3Server, network: Proxy, reference: tuple[ShortRun, str], header: str
) -> None:
    run = ShortRun(tmp_path, f"no-{header}", server, network.url)
    network.always = ignore(header)
    fail_in_one_line(run.start(), "preprocess", f"the server ignores {header}, so ")
    assert not list(run.store.list("models"))
    network.always = None
    assert run.finish() == reference[1]
    run.check_store()
    note("no conditions", header=header)


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("words", NEEDED, ids=" ".join)
def test_a_verb_names_the_object_that_it_cannot_read(
    network: Proxy,
    server: S3Server,
    reference: tuple[ShortRun, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    name: str,
) -> None:
    monkeypatch.setattr("components.shared.storage.retry.MAX_WAIT_SECONDS", 0.0)
    for variable, value in {**server.environment, "AWS_ENDPOINT_URL_S3": network.url}.items():
        monkeypatch.setenv(variable, value)
    run, _ = reference
    before = {entry.name: entry.etag for entry in run.store.list()}
    network.always = lose(f"versions/2/{name}" if name.startswith(("version", "model", "pred")) else name)
    arguments = parse([*words, "--store", run.uri])
    try:
        code, said = int(resolve_name(f"{arguments.module}:handle")(arguments)), capsys.readouterr().out
    except UserError as error:
        code, said = 2, str(error)
        assert isinstance(error, Unreadable) or "cannot be read" in said
    is_needed = name in NEEDED[words]
    assert (code != 0) == is_needed, said
    assert not is_needed or name in said
    if "promote" in words and not is_needed:
        assert RegisteredModel(run.store, "digits").read().champion == 2
        RegisteredModel(run.store, "digits").promote(1)
    else:
        assert {entry.name: entry.etag for entry in run.store.list()} == before
    note("lost object", object=name, verb=" ".join(words[:2]), code=code)
