"""The form for a run: the parameters that are inputs of their own, and the options."""

from typing import Any

import pytest

import pipeline
from components.shared.core.errors import UserError
from components.shared.parameters.form import OPTIONS, defaults_of, docstring_of, inputs_of, merge_options, signature_of
from components.shared.parameters.table import SWEEP, Parameters, SweepParameters, check_nodes, model_of


def inputs_with_defaults(graph: str) -> dict[str, Any]:
    return {name: value for name, value in defaults_of(graph).items() if name != OPTIONS}


@pytest.mark.parametrize(
    "graph, nodes, store, error",
    [
        ("training", 1, "", ""),
        ("training", 2, "s3://bucket", "nodes=2 is more than graph training trains on; give --graph distributed"),
        ("distributed", 2, "s3://bucket", ""),
        ("distributed", 1, "", "store= is empty, .*; give store=s3://bucket/prefix"),
    ],
)
def test_only_graph_distributed_trains_on_several_nodes(graph: str, nodes: int, store: str, error: str) -> None:
    if not error:
        check_nodes(graph, nodes, store)
        merge_options(graph, {"store": store}, {"nodes": nodes})
        return
    with pytest.raises(UserError, match=error):
        check_nodes(graph, nodes, store)
    with pytest.raises(UserError, match=error):
        merge_options(graph, {"store": store}, {"nodes": nodes})


def test_inputs_and_options_are_merged_over_the_defaults() -> None:
    found = merge_options("training", {"epochs": 7.0, "gpus": "2"}, {"mixup": 1, "threads": 3.0})
    assert found == Parameters.of(epochs=7, gpus="2", mixup=1.0, threads=3)
    assert isinstance(merge_options(SWEEP, {}, {"parallel": 2}), SweepParameters)


@pytest.mark.parametrize(
    ("graph", "options", "message"),
    [
        ("training", {"mixap": 0.2}, r"options: 'mixap' is not a parameter \(did you mean mixup\?\); give one of: "),
        ("training", {"parallel": 2}, r"options: 'parallel' is not a parameter"),
        ("sweep", {"paralel": 2}, r"options: 'paralel' is not a parameter \(did you mean parallel\?\)"),
        ("training", {"epochs": 5}, "options has epochs, which is an input of its own; give it as epochs="),
        ("training", {"mixup": -1}, "mixup=-1 is not accepted; give a number from 0 to 100"),
        ("training", {"mixup": "1"}, 'mixup="1" has the wrong type; give a number'),
        ("training", {"options": {}}, "options: 'options' is not a parameter"),
        ("training", {"": 1}, "options: '' is not a parameter"),
    ],
)
def test_an_option_that_is_unknown_or_an_input_is_refused(graph: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        merge_options(graph, inputs_with_defaults(graph), options)


def test_the_names_to_give_as_options_are_no_inputs() -> None:
    with pytest.raises(UserError) as error:
        merge_options("training", inputs_with_defaults("training"), {"zzz": 1})
    names = error.value.remedy.removeprefix("give one of: ").split(", ")
    assert set(names) == Parameters.model_fields.keys() - set(inputs_of("training"))


@pytest.mark.parametrize("graph", pipeline.GRAPHS)
def test_every_parameter_is_an_input_or_an_option(graph: str) -> None:
    assert set(inputs_of(graph)) <= model_of(graph).model_fields.keys()
    assert OPTIONS not in model_of(graph).model_fields
    assert list(signature_of(graph).parameters) == list(defaults_of(graph)) == [*inputs_of(graph), OPTIONS]
    inputs = {**inputs_with_defaults(graph), "store": "s3://bucket"}
    assert merge_options(graph, inputs, {}) == model_of(graph).of(store="s3://bucket")


@pytest.mark.parametrize("graph", pipeline.GRAPHS)
def test_the_form_shows_a_line_about_each_input(graph: str) -> None:
    lines = docstring_of(graph, "What it does.").splitlines()
    assert lines[:3] == ["What it does.", "", "Args:"]
    assert [line.strip().partition(":")[0] for line in lines[3:]] == [*inputs_of(graph), OPTIONS]
    assert all(line.partition(": ")[2] for line in lines[3:])
