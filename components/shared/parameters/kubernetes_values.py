"""Values that go into pods, by the rules by which Kubernetes' API server checks them.

Read in kubernetes/kubernetes: the names and labels in apimachinery's pkg/api/validate/content (dns.go, kube.go), the
quantities in its pkg/api/resource (quantity.go), tolerations in pkg/apis/core/validation (ValidateTolerations),
resources in pkg/apis/core/v1/helper (IsExtendedResourceName). Each function here returns why a value is refused, empty
if it is not.
"""

import re
from decimal import Decimal
from typing import Any

LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = re.compile(rf"{LABEL}(\.{LABEL})*")
NAME = re.compile("([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
LONGEST_SUBDOMAIN, LONGEST_NAME = 253, 63
QUANTITY = re.compile(r"([+-]?)([0-9]+\.?[0-9]*|\.[0-9]+)(.*)", re.S)
EXPONENT = re.compile("[eE]([+-]?[0-9]{1,18})")
DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
LARGEST = 2**63 - 1  # what Kubernetes counts in
LARGEST_EXPONENT = 30  # beyond which a number other than 0 is too large or too small whatever its digits are
OPERATORS = ("Exists", "Equal")  # Lt and Gt are an alpha feature of 1.35, which a cluster has to switch on
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
TOLERATION = ("key", "operator", "value", "effect", "tolerationSeconds")


def refuse_name(value: str) -> str:
    """Check the name of an object such as a Secret: a DNS subdomain (IsDNS1123Subdomain)."""
    if len(value) > LONGEST_SUBDOMAIN:
        return f"it is longer than {LONGEST_SUBDOMAIN} characters"
    if not SUBDOMAIN.fullmatch(value):
        return "its parts between dots must be lower-case letters, digits and -, and begin and end with no -"
    return ""


def refuse_label(key: str, value: str) -> str:
    """Check a label (IsLabelKey, IsLabelValue)."""
    return refuse_key(key) or _refuse_value(value)


def refuse_key(key: str) -> str:
    """Check a qualified name: up to 63 characters, perhaps after a DNS subdomain and a slash (IsLabelKey)."""
    prefix, slash, name = key.rpartition("/")
    if slash and (why := refuse_name(prefix)):
        return f"key {key!r} has a wrong prefix {prefix!r}: {why}"
    if len(name) > LONGEST_NAME:
        return f"key {key!r} has more than {LONGEST_NAME} characters"
    if not NAME.fullmatch(name):
        return f"key {key!r} must have letters, digits, -, _ and ., and begin and end with a letter or digit"
    return ""


def refuse_resource(name: str) -> str:
    """Check the name of a resource that is none of Kubernetes' own (IsExtendedResourceName)."""
    prefix, slash, _ = name.partition("/")
    if not slash or "kubernetes.io/" in name:
        return "it has no domain of a vendor before a slash"
    if prefix.startswith("requests."):
        return "it begins with requests., as the names of quotas do"
    return refuse_key(name) or (refuse_key(f"requests.{name}") and "its domain is too long for the name of a quota")


def refuse_toleration(item: Any) -> str:
    """Check a toleration (ValidateTolerations), with the types of its fields."""
    if not isinstance(item, dict):
        return "it is no object"
    for name, value in item.items():
        if name not in TOLERATION:
            return f"there is no field {name!r}"
        if name != "tolerationSeconds" and not isinstance(value, str | None):
            return f"its {name} is no text"
    key, operator, value, effect = (item.get(name) or "" for name in TOLERATION[:-1])
    return (
        (key and refuse_key(key))
        or _refuse_operator(key, operator, value)
        or ("" if effect in ("", *EFFECTS) else f"its effect {effect!r} is none of {', '.join(EFFECTS)}")
        or _refuse_seconds(item.get("tolerationSeconds"), effect)
    )


def refuse_cpu(value: str) -> str:
    """Check an amount of CPUs: a quantity above 0 in whole thousandths."""
    amount = _quantity(value)
    if isinstance(amount, str):
        return amount
    return "it is finer than 1m, a thousandth of a CPU" if amount * 1000 % 1 else ""


def refuse_memory(value: str) -> str:
    """Check an amount of memory: a quantity above 0; Kubernetes takes n, u and m, but warns of them."""
    amount = _quantity(value)
    if isinstance(amount, str):
        return amount
    return f"{value[-1]} is a fraction of a byte" if value[-1] in "num" else ""


def _quantity(text: str) -> Decimal | str:
    """Return a quantity above 0, or why the text is none (ParseQuantity)."""
    found = QUANTITY.fullmatch(text)
    if not found:
        return "it begins with no number"
    sign, number, suffix = found.groups()
    exponent = EXPONENT.fullmatch(suffix)
    if suffix not in DECIMAL and suffix not in BINARY and not exponent:
        return f"there is no suffix {suffix!r}"
    tens = int(exponent[1]) if exponent else DECIMAL.get(suffix, 0)
    if sign == "-" or not Decimal(number):
        return "it is not above 0"
    if abs(tens) > LARGEST_EXPONENT or len(number) > LARGEST_EXPONENT:
        return "it is beyond what Kubernetes counts"
    amount = Decimal(number).scaleb(tens) * 2 ** BINARY.get(suffix, 0)
    return "it is beyond what Kubernetes counts" if amount > LARGEST else amount


def _refuse_value(value: str) -> str:
    if len(value) > LONGEST_NAME:
        return f"value {value!r} has more than {LONGEST_NAME} characters"
    if value and not NAME.fullmatch(value):
        return f"value {value!r} must have letters, digits, -, _ and ., and begin and end with a letter or digit"
    return ""


def _refuse_operator(key: str, operator: str, value: str) -> str:
    """Check what depends on the operator; an empty one means Equal."""
    if operator not in ("", *OPERATORS):
        return f"its operator {operator!r} is none of {', '.join(OPERATORS)}"
    if operator == "Exists":
        return "its value must be empty, for its operator is Exists" if value else ""
    return _refuse_value(value) if key else "without a key its operator must be Exists"


def _refuse_seconds(seconds: Any, effect: str) -> str:
    if seconds is None:
        return ""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds != seconds // 1:
        return "its tolerationSeconds is no whole number"
    return "" if effect == "NoExecute" else "its effect must be NoExecute, for it has tolerationSeconds"
