"""Rollouts in mode Knative, whose states were not recorded: pytest tests/serving/test_knative.py"""

import pytest

from components.shared.serving import rollout
from components.shared.serving.rollout import Failed
from components.shared.serving.status import read_status
from tests.serving.conftest import RULES, Cluster
from tests.serving.small_models import NAME


@pytest.fixture
def served(cluster: Cluster) -> Cluster:
    """A cluster with Knative that serves version 1."""
    cluster.server.groups.append("serving.knative.dev")
    assert cluster.deploy(1)
    cluster.server.changes.clear()
    return cluster


def percents(cluster: Cluster) -> list[object]:
    """The shares that the changes asked for, one after the other; None: all of the traffic."""
    found = [one["spec"]["predictor"] for method, one in cluster.server.changes if method == "PATCH"]
    return [one["canaryTrafficPercent"] for one in found]


def test_a_version_takes_over_in_steps_of_a_revision(served: Cluster) -> None:
    predictor = served.server.objects[served.path]["spec"]["predictor"]
    assert predictor["minReplicas"] == 0 and "name" not in predictor
    assert served.deploy(2)
    assert percents(served) == [0, 10, 50, None]
    facts = read_status(served.kserve, NAME)
    assert facts and facts.mode == "knative" and facts.canary is None
    assert (facts.stable.version, facts.stable.percent, facts.stable.ready) == (2, 100, True)


@pytest.mark.parametrize("fault", ["smoke test", "load"])
def test_a_failed_revision_leaves_the_old_version(served: Cluster, fault: str) -> None:
    if fault == "load":
        served.server.unloadable.add(served.versions[2].predictor.storage_uri)
    else:
        served.versions[2].server.bias = 0.1
    with pytest.raises(Failed, match="version 2 "):
        served.deploy(2, RULES._replace(timeout=0.1))
    assert percents(served) == [0, None]
    facts = read_status(served.kserve, NAME)
    assert facts and facts.stable.version == 1 and facts.canary is None


def test_a_held_revision_is_taken_back(served: Cluster) -> None:
    served.deploy(2, RULES._replace(hold=True, shares=(25,)))
    facts = read_status(served.kserve, NAME)
    assert facts and facts.canary and (facts.stable.percent, facts.canary.percent) == (75, 25)
    assert rollout.roll_back(served.kserve, NAME, RULES).version == 2
    served.server.settle(served.path)
    facts = read_status(served.kserve, NAME)
    assert facts and (facts.stable.version, facts.stable.percent, facts.canary) == (1, 100, None)
