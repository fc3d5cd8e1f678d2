"""Pin the base image in docker/Dockerfile by the digest that its registry has for its tag.

python -m runner.images.base        # part of `make lock`
"""

import hashlib
import re
from pathlib import Path

import requests

from components.shared.core.errors import UserError
from components.shared.core.files import new_file
from components.shared.core.printable import say
from runner.images.registry import DOCKER_HUB, ask, parse
from runner.terminal import note

DOCKERFILE = Path(__file__).parents[2] / "docker" / "Dockerfile"
BASE = re.compile(r"^ARG BASE_IMAGE=(?P<name>[^@\s]+)(@\S+)?$", re.M)


def main(dockerfile: Path = DOCKERFILE) -> None:
    """Pin the image, or say on stderr why it stays as it is."""
    try:
        say(f"base image: {pin(dockerfile)}")
    except UserError as error:
        note(f"the base image in {dockerfile.name} stays as it is: {error}")


def pin(dockerfile: Path) -> str:
    """Write the digest that the tag has now behind it, and return the image's whole name.

    Raises UserError, with nothing changed, if the registry does not tell it.
    """
    text = dockerfile.read_text()
    found = BASE.search(text)
    assert found, f"no ARG BASE_IMAGE in {dockerfile}"
    pinned = f"{found['name']}@{digest(found['name'])}"
    with new_file(dockerfile) as file:
        file.write((text[: found.start()] + f"ARG BASE_IMAGE={pinned}" + text[found.end() :]).encode())
    return pinned


def digest(name: str) -> str:
    """Return the digest of an image's manifest. Raises UserError if its registry does not tell it, or tells another."""
    image = parse(name) or parse(f"{DOCKER_HUB}/{name if '/' in name else f'library/{name}'}")
    assert image
    try:
        answer = ask(image, method="GET")
    except requests.RequestException as error:
        message = f"registry {image.registry} gives no usable answer ({type(error).__name__})"
        raise UserError(message, "run `make lock` where it can be reached") from None
    if answer.status_code != 200:
        message = f"registry {image.registry} answered {answer.status_code} for {name}"
        raise UserError(message, "correct BASE_IMAGE, or try again later")
    found = f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
    if (told := answer.headers.get("Docker-Content-Digest", found)) != found:
        raise UserError(f"registry {image.registry} names {told} for {name} and sent {found}", "try again later")
    return found


if __name__ == "__main__":
    main()
