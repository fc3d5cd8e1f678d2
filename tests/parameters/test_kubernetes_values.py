"""Names, labels, tolerations and quantities of pods: what Kubernetes' API server refuses is refused here.

The cases are those of its own tests (TestIsQualifiedName, TestIsValidLabelValue, TestIsDNS1123Subdomain,
TestQuantityParse and TestValidateTolerations), and mistakes that people make.
"""

import json
from decimal import Decimal
from typing import Any

import pytest
from kubernetes.utils import parse_quantity

from components.shared.core.errors import UserError
from components.shared.parameters.pods import Pods
from components.shared.parameters.table import Parameters
from runner.cluster import run
from runner.schedules import schedule
from tests.runner.verbs import run_verb
from tests.servers.kfp_server import KfpServer

L63, S253 = "a" * 63, ".".join(["a" * 62] * 4) + ".a"
KEYS = [
    "simple",
    "now-with-dashes",
    "1-starts-with-num",
    "1234",
    "simple/simple",
    "now-with-dashes/simple",
    "now.with.dots/simple",
    "1-num.2-num/3-num",
    "1.2.3.4/5678",
    "Uppercase_Is_OK_123",
    "example.com/Uppercase_Is_OK_123",
    "requests.storage-foo",
    L63,
    f"{S253}/{L63}",
]
NOT_KEYS = [
    "nospecialchars%^=@",
    "cantendwithadash-",
    "-cantstartwithadash-",
    "only/one/slash",
    "Example.com/abc",
    "example_com/abc",
    "example.com/",
    "/simple",
    "",
    "a\n",
    "\N{ARABIC-INDIC DIGIT ONE}",
    f"{L63}a",
    f"{S253}a/simple",
    "a..b/simple",
    "a./simple",
]


def refusal(**values: Any) -> str:
    """Return the line with which a parameter is refused, also by what step `resolve` checks."""
    with pytest.raises(UserError) as refused:
        Pods.of(**values)
    with pytest.raises(UserError) as again:
        Parameters.of(**values)
    assert str(again.value) == str(refused.value) and "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("key", KEYS)
def test_keys_of_labels_are_qualified_names(key: str) -> None:
    assert Pods.of(node_selector={key: "a"}, tolerations=[{"key": key}]).node_selector == {key: "a"}


@pytest.mark.parametrize("key", NOT_KEYS)
def test_other_keys_are_refused(key: str) -> None:
    assert f" is not accepted: key {key!r} " in refusal(node_selector={"disk": "ssd", key: "a"})
    if key:
        assert f" is not accepted: toleration 2: key {key!r} " in refusal(tolerations=[{"key": "a"}, {"key": key}])


@pytest.mark.parametrize("value", ["", "simple", "now-with-dashes", "end.with.num.1", "1234", "Caps_1.2-3", L63])
def test_values_of_labels_may_be_empty(value: str) -> None:
    Pods.of(node_selector={"disk": value}, tolerations=[{"key": "a", "value": value}])


@pytest.mark.parametrize("value", [" ", "a b", "a/b", "-a", "a-", "_a", "a.", "na\xefve", f"{L63}a"])
def test_other_values_of_labels_are_refused(value: str) -> None:
    assert f": value {value!r} " in refusal(node_selector={"disk": value})
    assert f": value {value!r} " in refusal(tolerations=[{"key": "a", "value": value}])


@pytest.mark.parametrize(
    "toleration",
    [
        {},
        {"operator": "Exists"},
        {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300.0},  # as KFP hands numbers on
        {"key": "a", "operator": "", "value": "b", "effect": ""},
        {"key": "a", "operator": "Equal", "value": "", "effect": "PreferNoSchedule"},
        {"key": "a", "operator": "Exists", "value": None, "tolerationSeconds": None},
        {"key": "a", "effect": "NoExecute", "tolerationSeconds": 0},
    ],
)
def test_tolerations_are_those_of_kubernetes(toleration: dict[str, Any]) -> None:
    if toleration:
        assert Pods.of(tolerations=[toleration]).tolerations == [toleration]
    else:
        assert "without a key its operator must be Exists" in refusal(tolerations=[toleration])


@pytest.mark.parametrize(
    ("toleration", "why"),
    [
        ({"operator": "Equal", "value": "a"}, "without a key its operator must be Exists"),
        ({"value": "a", "effect": "NoSchedule"}, "without a key its operator must be Exists"),
        ({"key": "a", "operator": "Exists", "value": "b"}, "its value must be empty, for its operator is Exists"),
        ({"key": "a", "operator": "exists"}, "its operator 'exists' is none of Exists, Equal"),
        ({"key": "a", "operator": "In"}, "its operator 'In' is none of Exists, Equal"),
        ({"key": "a", "effect": "noschedule"}, "its effect 'noschedule' is none of NoSchedule, Prefer"),
        ({"key": "a", "tolerationSeconds": 60}, "its effect must be NoExecute, for it has tolerationSeconds"),
        ({"key": "a", "effect": "NoExecute", "tolerationSeconds": "60"}, "its tolerationSeconds is no whole number"),
        ({"key": "a", "effect": "NoExecute", "tolerationSeconds": 1.5}, "its tolerationSeconds is no whole number"),
        ({"key": "a", "effect": "NoExecute", "tolerationSeconds": True}, "its tolerationSeconds is no whole number"),
        ({"key": 1}, "its key is no text"),
        ({"name": "a"}, "there is no field 'name'"),
        ("a", "it is no object"),
    ],
)
def test_other_tolerations_are_refused_with_the_reason(toleration: Any, why: str) -> None:
    line = refusal(tolerations=[toleration])
    assert line.startswith(f"tolerations={json.dumps([toleration], separators=(',', ':'), sort_keys=True)} is not acc")
    assert f" is not accepted: {why}" in line and line.endswith("tolerationSeconds as Kubernetes knows them")


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1", 1),
        ("+1.5Gi", 1.5 * 2**30),
        ("1.1Gi", Decimal("1.1") * 2**30),
        (".5Gi", 2**29),
        ("5.Mi", 5 * 2**20),
        ("12e6", 12_000_000),
        ("12E6", 12_000_000),
        ("1.5e+3", 1500),
        ("128974848000e-3", 128_974_848),
        ("1E", 10**18),
        ("1Ei", 2**60),
        ("2Ki", 2048),
        ("2k", 2000),
        ("3T", 3 * 10**12),
        ("0001Pi", 2**50),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_quantities_are_those_of_kubernetes(text: str, amount: float) -> None:
    assert parse_quantity(Pods.of(train_memory=text).train_memory) == Decimal(amount)  # as doctor reads them


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("16GB", "there is no suffix 'GB'"),
        ("16GiB", "there is no suffix 'GiB'"),
        ("16K", "there is no suffix 'K'"),
        ("16gi", "there is no suffix 'gi'"),
        ("16 Gi", "there is no suffix ' Gi'"),
        ("1.2.3", "there is no suffix '.3'"),
        ("1e", "there is no suffix 'e'"),
        ("1e1.5", "there is no suffix 'e1.5'"),
        ("1Gi\n", "there is no suffix 'Gi\\n'"),
        ("", "it begins with no number"),
        (".", "it begins with no number"),
        ("Gi", "it begins with no number"),
        ("1,5Gi", "there is no suffix ',5Gi'"),
        ("\N{ARABIC-INDIC DIGIT ONE}", "it begins with no number"),
        ("0", "it is not above 0"),
        ("0.0Gi", "it is not above 0"),
        ("-1Gi", "it is not above 0"),
        ("400m", "m is a fraction of a byte"),
        ("8Ei", "it is beyond what Kubernetes counts"),
        ("1e999999999", "it is beyond what Kubernetes counts"),
    ],
)
def test_other_quantities_are_refused_with_the_reason(text: str, why: str) -> None:
    assert refusal(train_memory=text).endswith(f": {why}; give a Kubernetes quantity such as 16Gi".replace("\n", " "))


@pytest.mark.parametrize("text", ["2", "0.5", "500m", "1e1", "2000000u", "0.001", "1e-3"])
def test_cpus_are_counted_in_thousandths(text: str) -> None:
    assert Pods.of(train_cpu=text).train_cpu == text


@pytest.mark.parametrize("text", ["0.0005", "100u", "1e-4"])
def test_less_than_a_thousandth_of_a_cpu_is_refused(text: str) -> None:
    assert f"train_cpu={text} is not accepted: it is finer than 1m, a thousandth of a CPU;" in refusal(train_cpu=text)


@pytest.mark.parametrize("name", ["a", "a.b", "my-secret", "1.2-3.x", S253])
def test_names_of_secrets_are_subdomains(name: str) -> None:
    assert Pods.of(s3_secret=name).s3_secret == name


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a..b", ".a", "a.-b", "a/b", f"{S253}a"])
def test_other_names_of_secrets_are_refused(name: str) -> None:
    assert f"s3_secret={name} is not accepted: it" in refusal(s3_secret=name)


@pytest.mark.parametrize("name", ["nvidia.com/gpu", "amd.com/gpu", "nvidia.com/mig-1g.5gb", "habana.ai/gaudi"])
def test_resources_of_vendors_are_accepted(name: str) -> None:
    assert Pods.of(gpu_resource=name).gpu_resource == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("gpu", "it has no domain of a vendor"),
        ("kubernetes.io/gpu", "it has no domain of a vendor"),
        ("sub.kubernetes.io/gpu", "it has no domain of a vendor"),
        ("requests.nvidia.com/gpu", "it begins with requests."),
        ("nvidia_com/gpu", "has a wrong prefix 'nvidia_com'"),
        ("nvidia.com/gpu-", "key 'nvidia.com/gpu-' must have letters"),
        (f"{S253}/gpu", "its domain is too long"),
    ],
)
def test_other_resources_are_refused(name: str, why: str) -> None:
    assert why in refusal(gpu_resource=name)


def test_nothing_is_uploaded_for_a_run_that_would_be_refused(kfp_api: KfpServer) -> None:
    for verb, words in ((run, []), (schedule, ["add", "nightly", "0 2 * * *"])):
        with pytest.raises(UserError, match=r"node_selector=.* is not accepted: value 'a b' "):
            run_verb(verb, *words, 'node_selector={"disk": "a b"}')
    assert not kfp_api.asked("POST .*")
