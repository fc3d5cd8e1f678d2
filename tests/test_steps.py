"""The ports: thin, and in agreement with the functions behind them."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest
import yaml

import pipeline
from components.shared.parameters import RULES
from runner.local import STEPS
from runner.package import compile_pipeline
from runner.parameters import parse_parameters

PORTS = {
    node.name: node
    for node in ast.parse((Path(__file__).parents[1] / "components" / "steps.py").read_text()).body
    if isinstance(node, ast.FunctionDef)
}


@pytest.mark.parametrize("name", PORTS)
def test_port_and_function_have_the_same_parameters(name: str) -> None:
    port = {argument.arg for argument in PORTS[name].args.args}
    function = inspect.signature(getattr(importlib.import_module(f"components.{name}"), name))
    named = [parameter for parameter in function.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    if len(named) < len(function.parameters):  # it takes whatever parameters the pipeline has
        assert set(pipeline.training.component_spec.inputs) <= port
        assert {parameter.name for parameter in named} <= port
    else:
        assert set(function.parameters) == port
    for parameter in named:
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is parameter.empty, "defaults live in pipeline.py alone"


@pytest.mark.parametrize("name", PORTS)
def test_a_port_calls_its_function_once_and_never_branches(name: str) -> None:
    body = list(ast.walk(PORTS[name]))
    assert not [node for node in body if isinstance(node, ast.If | ast.IfExp | ast.Try | ast.While)]
    calls = [node.func for node in body if isinstance(node, ast.Call)]
    assert [f.attr for f in calls if isinstance(f, ast.Attribute)].count(name) == 1


def test_every_step_of_the_compiled_pipeline_is_known_to_the_runner(tmp_path: Path) -> None:
    package = compile_pipeline(pipeline.training, tmp_path / "pipeline.yaml")
    compiled, _ = yaml.safe_load_all(package.read_text())
    executors = compiled["deploymentSpec"]["executors"]
    assert {name.removeprefix("exec-") for name in executors} == set(STEPS) == set(PORTS)
    for executor in executors.values():
        assert not executor["container"]["image"].endswith(":latest")
        assert "pip install" not in " ".join(executor["container"]["command"])


def test_every_parameter_is_described_and_has_a_rule() -> None:
    parameters = parse_parameters(pipeline.training, [])
    for name, spec in pipeline.training.component_spec.inputs.items():
        assert spec.description, name
        assert name in RULES or isinstance(parameters[name], bool), name
