"""The ports: thin, and in agreement with the functions behind them."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest
from kfp.components import load_component_from_file

import pipeline
from components.shared.parameters.form import OPTIONS, inputs_of
from components.shared.parameters.recipe import accepted
from components.shared.parameters.table import PREDICTION, model_of
from components.step_table import MODULES, STEPS, names_in
from runner.compile import compile_pipeline, read_package
from runner.graphs import steps_of

PORTS = {
    node.name: node
    for node in ast.parse((Path(__file__).parents[2] / "components" / "ports.py").read_text()).body
    if isinstance(node, ast.FunctionDef)
}

TAKEN = {  # by the steps that take any inputs of a pipeline
    "resolve": {name for graph in pipeline.GRAPHS if graph != PREDICTION for name in inputs_of(graph)},
    "resolve_prediction": set(inputs_of(PREDICTION)),
    "finish": set(pipeline.RECORDED),
}


@pytest.mark.parametrize("name", PORTS)
def test_port_and_function_have_the_same_parameters(name: str) -> None:
    port = {argument.arg for argument in PORTS[name].args.args}
    function = inspect.signature(getattr(importlib.import_module(MODULES[name]), name))
    named = [parameter for parameter in function.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    own = {parameter.name for parameter in named}
    others = set(function.parameters) - own  # the name of **inputs
    assert port == own | (TAKEN[name] if others else set())
    for parameter in named:
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is parameter.empty, "defaults live in components/shared/parameters alone"


@pytest.mark.parametrize("name", PORTS)
def test_a_port_calls_its_function_once_and_never_branches(name: str) -> None:
    body = list(ast.walk(PORTS[name]))
    assert not [node for node in body if isinstance(node, ast.If | ast.IfExp | ast.Try | ast.While)]
    calls = [node.func for node in body if isinstance(node, ast.Call)]
    assert [f.attr for f in calls if isinstance(f, ast.Attribute)].count(name) == 1


@pytest.mark.parametrize("graph", pipeline.GRAPHS)
def test_the_runner_knows_every_step_of_a_compiled_pipeline(graph: str, tmp_path: Path) -> None:
    package = compile_pipeline(pipeline.GRAPHS[graph], tmp_path / "pipeline.yaml")
    compiled, _ = read_package(package)
    executors = compiled["deploymentSpec"]["executors"]
    found = steps_of(pipeline.GRAPHS[graph])
    assert sorted(name.removeprefix("exec-") for name in executors) == sorted(found)
    assert found == steps_of(load_component_from_file(str(package)))
    for executor in executors.values():
        assert not executor["container"]["image"].endswith(":latest")
        assert "pip install" not in " ".join(executor["container"]["command"])


@pytest.mark.parametrize("graph", pipeline.GRAPHS)
def test_the_table_of_steps_has_the_order_of_the_run(graph: str) -> None:
    assert steps_of(pipeline.GRAPHS[graph]) == names_in(graph)


def test_the_table_of_steps_is_that_of_the_ports() -> None:
    assert {step.port for step in STEPS} == PORTS.keys()


@pytest.mark.parametrize("graph", pipeline.GRAPHS)
def test_every_parameter_is_described_and_has_a_rule(graph: str) -> None:
    for name, spec in pipeline.GRAPHS[graph].component_spec.inputs.items():
        assert spec.description, name
        assert name in {*model_of(graph).model_fields, OPTIONS}, name
    for name, field in model_of(graph).model_fields.items():
        assert field.description and accepted(field), name
