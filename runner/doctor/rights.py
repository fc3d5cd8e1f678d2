"""Rights to the Kubernetes API: those that the pods' service account has, and those that this user lacks."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from kubernetes.client import (
    AuthorizationV1Api,
    V1LocalSubjectAccessReview,
    V1ObjectMeta,
    V1ResourceAttributes,
    V1SubjectAccessReviewSpec,
)

from runner.doctor.cluster import SECONDS, Cluster

DENIED = re.compile(r'cannot (\w+) resource "([^"]+)" in API group "([^"]*)"(?: in the namespace "([^"]+)")?')


class Right(NamedTuple):
    """The right to do something with all objects of one kind, in one namespace or, if none is named, in all.

    A part of an object is written as `pods/log`; with a `name`, the right is to this object alone.
    """

    group: str
    resource: str
    verb: str
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{f' in namespace {self.namespace}' if self.namespace else ''}"


def denied_right(message: str) -> Right | None:
    """Return the right that RBAC missed, by the message of a refusal; None if the refusal has another cause."""
    found = DENIED.search(message)
    return Right(found[3], found[2], found[1], found[4] or "") if found else None


def lacking(cluster: Cluster, rights: Iterable[Right]) -> list[Right]:
    """Return which rights the service account of a run lacks in its namespace, as the Kubernetes API reports."""
    return [right for right in rights if not _may(cluster, right)]


def described(rights: Iterable[Right]) -> str:
    """Return what may not be done, such as `create or list trainjobs, nor get secrets`."""
    return ", nor ".join(f"{_either(verbs)} {resource}" for (_, resource), verbs in _verbs(rights).items())


def rules(rights: Iterable[Right]) -> str:
    """Return the rules of a Role that grant the rights."""
    return ", ".join(
        f'{{apiGroups: ["{group}"], resources: ["{resource}"], verbs: {json.dumps(verbs)}}}'
        for (group, resource), verbs in _verbs(rights).items()
    )


def roles(rights: Iterable[Right]) -> str:
    """Return the rules, each with the kind of Role that it belongs to."""
    places: dict[str, list[Right]] = defaultdict(list)
    for right in rights:
        places[f"a Role in namespace {right.namespace}" if right.namespace else "a ClusterRole"].append(right)
    return "; ".join(f"{rules(inside)} in {place}" for place, inside in places.items())


def _verbs(rights: Iterable[Right]) -> dict[tuple[str, str], list[str]]:
    """Return the verbs by group and resource."""
    verbs: dict[tuple[str, str], list[str]] = defaultdict(list)
    for right in rights:
        verbs[right.group, right.resource].append(right.verb)
    return verbs


def _either(words: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _may(cluster: Cluster, right: Right) -> bool:
    resource, _, part = right.resource.partition("/")
    attributes = V1ResourceAttributes(
        group=right.group,
        resource=resource,
        subresource=part or None,
        name=right.name or None,
        verb=right.verb,
        namespace=cluster.namespace,
    )
    review = V1LocalSubjectAccessReview(
        metadata=V1ObjectMeta(namespace=cluster.namespace),
        spec=V1SubjectAccessReviewSpec(
            user=f"system:serviceaccount:{cluster.namespace}:{cluster.service_account}",
            groups=["system:authenticated", "system:serviceaccounts", f"system:serviceaccounts:{cluster.namespace}"],
            resource_attributes=attributes,
        ),
    )
    api = AuthorizationV1Api(cluster.api)
    answer = api.create_namespaced_local_subject_access_review(cluster.namespace, review, _request_timeout=SECONDS)
    return bool(answer.status.allowed)
