"""Build the images of the steps, push them, and record the digests that `python pipeline.py compile` pins.

python -m runner.build_images build            # `make images`: torch2kubeflow/data, serve and torch, tagged by version
python -m runner.build_images push REGISTRY    # `make push`: also to REGISTRY, and into build/images.json
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence

from components.shared.container_images import NAMES, RECORD, image_version
from components.shared.core.errors import UserError
from components.shared.core.files import write_json
from components.shared.core.printable import say
from runner.failures import USER_ERROR
from runner.git import ROOT, git

TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
REGISTRY = re.compile(r"[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")


def main(argv: Sequence[str] | None = None) -> None:
    """Build or push, and exit: 0 done, 2 the user's mistake or Docker's failure."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.handle(arguments)
    except UserError as error:
        say(f"error: {error}", file=sys.stderr)
        sys.exit(USER_ERROR)


def build(tag: str) -> None:
    """Build the images and tag them by their version and, if it is not empty, by `tag`.

    Raises UserError if the tag is not valid, or Docker is not installed or fails.
    """
    if tag and not TAG.fullmatch(tag):
        raise UserError(f"TAG={tag} is no tag of an image", "give at most 128 letters, digits, '_', '.' and '-'")
    revision = git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or "unknown"
    # Those without a value come from the environment, as in `make images BASE_IMAGE=...`, else from the Dockerfile.
    given = (
        f"REVISION={revision}",
        f"VERSION={tag or image_version()}",
        "BASE_IMAGE",
        "TORCH_LOCK",
        "UV_TORCH_BACKEND",
        "COMPILERS",
    )
    arguments = [word for argument in given for word in ("--build-arg", argument)]
    for name in NAMES:
        images = [f"torch2kubeflow/{name}:{version}" for version in (image_version(), tag) if version]
        tags = [word for image in images for word in ("--tag", image)]
        _docker("build", "--file", "docker/Dockerfile", "--target", name, *tags, *arguments, ".")
        say(*images)


def push(registry: str, tag: str) -> None:
    """Build the images, push them to `registry`, and record their digests in build/images.json.

    Raises UserError if the git tree is dirty, the registry or tag is not valid, or Docker is not installed or fails.
    """
    if not REGISTRY.fullmatch(registry):
        raise UserError(f"REGISTRY={registry} is no registry", "give host[:port][/path], as in registry.example.org/me")
    _check_committed()
    build(tag)
    digests = {name: _push(name, f"{registry}/torch2kubeflow/{name}", tag or image_version()) for name in NAMES}
    write_json(RECORD, {"version": image_version(), "images": digests})
    say(*digests.values(), f"recorded in {RECORD.relative_to(ROOT)}; `python pipeline.py compile` uses them")


def _push(name: str, repository: str, tag: str) -> str:
    """Push one image and return its name with its digest."""
    _docker("tag", f"torch2kubeflow/{name}:{tag}", f"{repository}:{tag}")
    _docker("push", f"{repository}:{tag}")
    digests = _docker("image", "inspect", "--format", '{{join .RepoDigests "\\n"}}', f"{repository}:{tag}", read=True)
    return next(digest for digest in digests.splitlines() if digest.startswith(f"{repository}@"))


def _check_committed() -> None:
    changed = git("status", "--porcelain")
    if changed is None:
        raise UserError(
            f"git is not installed, or {ROOT} is no git checkout: no commit to name", "push from a checkout"
        )
    if changed:
        raise UserError(
            f"the git tree is dirty ({changed.splitlines()[0].strip()}), so the images would match no commit",
            "commit or stash, then push again",
        )


def _docker(*words: str, read: bool = False) -> str:
    """Run Docker's client, which shows its own progress and errors. Return what it printed if `read`, else nothing."""
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    stdout = subprocess.PIPE if read else None
    try:
        done = subprocess.run(["docker", *words], cwd=ROOT, env=environment, stdout=stdout, text=True)
    except FileNotFoundError:
        raise UserError("the command `docker` is not installed", "install Docker, or add it to PATH") from None
    if done.returncode:
        raise UserError(f"`docker {words[0]}` ended with exit code {done.returncode}", "see its own error above")
    return done.stdout or ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runner.build_images", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    building = verbs.add_parser("build", help="build the images")
    building.set_defaults(handle=lambda arguments: build(arguments.tag))
    pushing = verbs.add_parser("push", help="build and push them, and record their digests")
    pushing.add_argument("registry", metavar="REGISTRY", help="host[:port][/path]")
    pushing.set_defaults(handle=lambda arguments: push(arguments.registry, arguments.tag))
    for verb in (building, pushing):
        verb.add_argument("--tag", default="", help="a tag besides the version of what is in them")
    return parser


if __name__ == "__main__":
    main()
