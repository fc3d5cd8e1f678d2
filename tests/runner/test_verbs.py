"""The verbs: their modules exist, and are imported only to do something."""

import re
import subprocess
import sys
from pkgutil import resolve_name

import pytest

from components.shared.parameters.table import PredictionParameters, SweepParameters
from runner.verbs.options import Verb
from runner.verbs.parser import VERBS, parse
from tests.conftest import ROOT

STORE_VERBS = ["runner.registry.models", "runner.registry.verify", "runner.demo.demo", "runner.local.s3_server"]
SLOW = {"kfp", "kfp_server_api", "kubernetes", "minio", "numpy", "torch", "components.steps"}


def _imported(*words: str) -> tuple[int, set[str]]:
    """The exit code of `python pipeline.py WORD...`, and the modules that it imports."""
    command = [sys.executable, "-X", "importtime", "pipeline.py", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return done.returncode, {line.rpartition("|")[2].strip() for line in lines}


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("run",), ("schedule", "add"), ("models",)], ids=" ".join)
def test_help_imports_neither_kfp_nor_the_graphs(words: tuple[str, ...]) -> None:
    code, modules = _imported(*words, "--help")
    assert code == 0 and not modules & SLOW and "runner.verbs.parser" in modules


def test_the_help_of_a_run_lists_every_parameter(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["run", "--help"])
    shown = capsys.readouterr().out.partition("parameters, with their defaults")[2].splitlines()
    names = [line.split("=")[0].strip() for line in shown if re.match(r"  \w+=", line)]
    assert sorted(names) == sorted({*SweepParameters.model_fields, *PredictionParameters.model_fields})
    assert "  epochs=3                            Passes over the training split." in shown


@pytest.mark.slow
@pytest.mark.parametrize("words", [("upgrade",), ("run", "--wiat"), ("logs",), ("run", "epoch=3")], ids=" ".join)
def test_a_mistake_in_the_words_imports_no_more_than_help(words: tuple[str, ...]) -> None:
    code, modules = _imported(*words)
    assert code == 2 and not modules & SLOW


@pytest.mark.slow
def test_a_verb_with_a_graph_imports_kfp_and_makes_it() -> None:
    code, modules = _imported("compile", "--output", "pipeline.txt")
    assert code == 2 and {"kfp", "components.steps"} <= modules


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_verb_has_a_module_that_does_it(verb: Verb) -> None:
    assert callable(resolve_name(f"runner.{verb.module}:handle"))


@pytest.mark.slow
@pytest.mark.parametrize("module", STORE_VERBS)
def test_verbs_of_the_store_do_without_kfp(module: str) -> None:
    code = f"import sys, {module}; print({{'kfp', 'kubernetes', 'torch'}} & sys.modules.keys())"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout == "set()\n"
