"""Every command of README and docs: its target, verb, options, parameters and files exist.

tests/repository/run_doc_commands.py runs them (`make test-docs`).
"""

import re
import shlex
from pathlib import Path

import pytest

import pipeline
from runner.parameters import parse_parameters
from runner.verbs.parser import parse
from tests.repository.documents import ROOT, all_commands, read, words_of_run

COMMANDS = all_commands()
# Why no test runs them as they stand, or which test does.
ELSEWHERE = {
    "make (run|test|compile|bench|lock(-cpu)?|lint|docs|fuzz|test-[a-z]+)": "the work of a developer or of CI",
    "make (demo|serve|s3)": "they serve until Ctrl-C; the tests of their verbs serve",
    "make (images|push)( .*)?": "tests/images/test_images.py builds and pushes with Docker",
    "python pipeline.py deploy .*": "needs KServe; tests/runner/serving/test_deploy.py deploys with an emulated one",
    "python pipeline.py serve.*": "tests/runner/serving/test_serve.py serves, and runs the examples in docs/serving.md",
    "kubectl get experiment .*": "needs Katib's CRD",
    "kubectl label namespace team-a katib.*": "needs a cluster",
    "kubectl apply -n team-a -f experiment.yaml": "tests/entrypoints/test_katib_trial.py checks it and runs a trial",
    "kubectl .* port-forward .*": "needs a cluster",
}
RUNS = [command for command in COMMANDS if command.startswith("make run ARGS=")]
VERBS = [command for command in COMMANDS if command.startswith("python pipeline.py ")]
KUBECTL = [command for command in COMMANDS if command.startswith("kubectl ")]


def _parse(words: list[str]) -> None:
    """Parse a command line as `python pipeline.py` does; SystemExit if it is refused."""
    arguments = parse(words)
    if "parameters" in arguments:
        parse_parameters(pipeline.GRAPHS[arguments.graph or "training"], arguments.parameters)


def test_documents_have_commands_of_each_kind() -> None:
    assert {"make run", "make test"} <= set(COMMANDS)
    assert len(RUNS) > 8 and len(VERBS) > 20 and len(KUBECTL) > 10


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("make ")])
def test_make_targets_exist(command: str) -> None:
    words = shlex.split(command)[1:]
    targets = set(re.findall(r"^([a-z0-9-]+):", read("Makefile"), re.M))
    assert words[0] in targets
    for name in (word.partition("=")[0] for word in words[1:]):
        assert re.search(rf"\$[({{]{name}\b|\"{name}\"|ARG {name}\b", read("Makefile") + read("docker/Dockerfile"))


@pytest.mark.parametrize("command", RUNS)
def test_runs_have_accepted_parameters(command: str) -> None:
    words = words_of_run(command)
    assert words
    _parse(["local", *words])


@pytest.mark.parametrize("command", VERBS)
def test_verbs_and_their_parameters_are_accepted(command: str) -> None:
    _parse(shlex.split(command)[2:])


def test_a_wrong_verb_or_parameter_is_noticed() -> None:
    with pytest.raises(SystemExit):
        _parse(["upgrade"])
    with pytest.raises(SystemExit):
        _parse(["models", "diff", "mnist"])
    with pytest.raises(ValueError, match="epoch"):
        _parse(["run", "epoch=3"])


@pytest.mark.parametrize("command", KUBECTL)
def test_kubectl_commands_name_existing_files(command: str) -> None:
    for path in re.findall(r"(?:-k|--patch-file) (\S+)", command):
        assert (ROOT / path).exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_run_or_has_a_reason(command: str) -> None:
    tried = r"-k |--patch-file|annotate|create (secret|rolebinding)|label --dry-run"
    is_verb = command in VERBS and not re.match("python pipeline.py (deploy|serve)", command)
    runnable = command in RUNS or is_verb or re.search(tried, command)
    reasons = [reason for pattern, reason in ELSEWHERE.items() if re.fullmatch(pattern, command)]
    assert bool(runnable) != bool(reasons), command
    for reason in reasons:
        assert all(Path(ROOT / path).exists() for path in re.findall(r"tests/\S+\.py", reason))


def test_every_reason_is_needed() -> None:
    for pattern in ELSEWHERE:
        assert any(re.fullmatch(pattern, command) for command in COMMANDS), pattern
