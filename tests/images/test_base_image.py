"""The pin of the base image in docker/Dockerfile, with a registry on the loopback interface."""

from pathlib import Path

import pytest

from runner.images.base import BASE, DOCKERFILE, main, pin
from tests.servers.image_registry import digest_of, image_registry

IMAGES = {"python/manifests/3.11"}
DIGEST = digest_of("/v2/python/manifests/3.11")


@pytest.fixture
def dockerfile(tmp_path: Path) -> Path:
    path = tmp_path / "Dockerfile"
    path.write_text(DOCKERFILE.read_text())
    return path


def name_base(dockerfile: Path, image: str) -> None:
    dockerfile.write_text(BASE.sub(f"ARG BASE_IMAGE={image}", dockerfile.read_text()))


def test_the_base_image_is_pinned_by_its_digest(dockerfile: Path) -> None:
    with image_registry(IMAGES) as host:
        for before in (f"{host}/python:3.11", f"{host}/python:3.11@sha256:{'0' * 64}"):
            name_base(dockerfile, before)
            assert pin(dockerfile) == f"{host}/python:3.11@{DIGEST}"
            named = BASE.search(dockerfile.read_text())
            assert named and named[0] == f"ARG BASE_IMAGE={host}/python:3.11@{DIGEST}"
    name_base(dockerfile, "x")
    given = BASE.sub("ARG BASE_IMAGE=x", DOCKERFILE.read_text())
    assert dockerfile.read_text() == given, "nothing else has changed"


@pytest.mark.parametrize(
    ("tag", "digest", "reason"),
    [
        ("3.12", "", "answered 404"),
        ("3.11", f"sha256:{'1' * 64}", f"names sha256:{'1' * 64} for"),
    ],
)
def test_a_registry_that_does_not_know_changes_nothing(
    dockerfile: Path, capsys: pytest.CaptureFixture[str], tag: str, digest: str, reason: str
) -> None:
    with image_registry(IMAGES, digest=digest) as host:
        name_base(dockerfile, f"{host}/python:{tag}")
        before = dockerfile.read_text()
        main(dockerfile)
    told = capsys.readouterr()
    assert "note: the base image in Dockerfile stays as it is" in told.err and reason in told.err and not told.out
    assert dockerfile.read_text() == before


def test_a_registry_out_of_reach_changes_nothing(dockerfile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name_base(dockerfile, "localhost:1/python:3.11")
    main(dockerfile)
    line = "registry localhost:1 gives no usable answer (ConnectionError); run `make lock` where it can be reached"
    assert line in capsys.readouterr().err
