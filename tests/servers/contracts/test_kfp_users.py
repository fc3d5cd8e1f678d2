"""The emulated API of Kubeflow Pipelines against a recording of KFP 2.17 with many users.

recorded/many_users.json holds the answers to requests with several tokens; `details`, which no client reads, are left
out of the comparison.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import urllib3

from tests.servers.kfp_server import kfp_server

RECORDED: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "recorded" / "many_users.json").read_text())
TOKENS = {"": None, "another audience": "other", "without rights": "right", "right": "right"}


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda one: f"{one['status']}-{one['token'] or 'no token'}")
def test_many_users_are_answered_as_by_a_real_server(recorded: dict[str, Any]) -> None:
    token = TOKENS[recorded["token"]]
    with kfp_server() as server:
        server.multi_user, server.token, server.namespaces = True, "right", {"team-a"}
        if recorded["token"] == "another audience":
            server.audience = "https://kubernetes.default.svc.cluster.local"
        if recorded["token"] == "without rights":
            server.namespaces = set()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = urllib3.request("GET", server.url + recorded["path"], headers=headers, retries=False)
    expected = recorded["response"]
    assert (answer.status, answer.headers["content-type"]) == (recorded["status"], recorded["type"])
    if answer.status == 200:
        assert answer.json().items() <= expected.items()
    else:
        assert {**answer.json(), "details": expected["details"]} == expected
