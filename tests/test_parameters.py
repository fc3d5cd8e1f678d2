"""The rules for the parameters of the pipeline, each by itself and together."""

import pytest

from components.shared.core.errors import UserError
from components.shared.parameters import RULES, check

DIGEST = "#sha256=" + "0" * 64


def test_an_unknown_name_is_a_bug_of_the_caller() -> None:
    with pytest.raises(AssertionError, match="val_fracton is not a parameter"):
        check(val_fracton=0.1)


@pytest.mark.parametrize("name", ["data", "store", "pretrained", "network", "s3_secret"])
@pytest.mark.parametrize("value", ["", "a", "s3://", "s3://bucket/../a", "://", "#", "s3://bucket/\n"])
def test_the_rule_of_a_text_answers_yes_or_no(name: str, value: str) -> None:
    assert isinstance(RULES[name][0](value), bool)


@pytest.mark.parametrize("value", ["", "s3://bucket", "s3://bucket/prefix/"])
def test_a_store_is_empty_or_an_s3_uri(value: str) -> None:
    check(store=value)


@pytest.mark.parametrize("value", ["bucket/prefix", "https://bucket", "s3://bucket/../a"])
def test_any_other_store_is_refused(value: str) -> None:
    with pytest.raises(UserError, match=f"^store={value} is not accepted; give s3://bucket or s3://bucket/prefix$"):
        check(store=value)


@pytest.mark.parametrize("value", ["", "a/model.safetensors", "s3://bucket/a", f"s3://bucket/a{DIGEST}", f"/a{DIGEST}"])
def test_pretrained_weights_are_a_path_or_in_s3(value: str) -> None:
    check(pretrained=value)


@pytest.mark.parametrize("value", ["https://a/b", "s3://bucket/../a", "/a#sha256=0", f"/a{DIGEST}0", DIGEST])
def test_any_other_pretrained_weights_are_refused(value: str) -> None:
    with pytest.raises(UserError, match=r"is not accepted; give s3://bucket/\.\.\. or a path"):
        check(pretrained=value)


@pytest.mark.parametrize("name", ["bias", "flip", "torch_compile", "deterministic"])
def test_a_switch_is_true_or_false(name: str) -> None:
    check(**{name: False})
    with pytest.raises(UserError, match=f"^{name}=1 is not accepted; give true or false$"):
        check(**{name: 1})


@pytest.mark.parametrize("name, value", [("learning_rate", float("inf")), ("rotation", float("nan"))])
def test_a_number_is_finite(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"^{name}={value} is not accepted; give a number"):
        check(**{name: value})


def test_parameters_that_exclude_each_other_are_refused() -> None:
    check(mixup=0.2, cutmix=0.0)
    with pytest.raises(UserError, match=r"mixup=0\.2 and cutmix=1\.0 exclude each other; set one of them to 0"):
        check(mixup=0.2, cutmix=1.0)


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
        return check(graph=graph, nodes=nodes, store=store)
    with pytest.raises(UserError, match=error):
        check(graph=graph, nodes=nodes, store=store)


def test_a_network_is_known_and_takes_the_image_size() -> None:
    check(network="lenet5", image_size=32)
    with pytest.raises(UserError, match="there is no network 'lenet6'"):
        check(network="lenet6")
    with pytest.raises(UserError, match="lenet5 accepts images of 32 x 32 pixels"):
        check(network="lenet5", image_size=64)
