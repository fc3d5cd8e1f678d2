"""The action `schedule audit`: problems of recurring runs."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import kfp_server_api as api
import pytest

from runner.cluster import upload
from runner.schedules import schedule
from tests.runner.schedules.clock import NOW
from tests.runner.verbs import IMAGE, changed_pipeline, run_verb
from tests.servers.kfp_http import error
from tests.servers.kfp_server import KfpServer

pytestmark = pytest.mark.usefixtures("clock")
Printed = Callable[..., list[str]]


def _add(kfp_api: KfpServer, *words: str) -> Any:
    """Add a recurring run for every night, and return KFP's item of it, created now."""
    run_verb(schedule, "add", "nightly", "0 2 * * *", *words)
    (item,) = kfp_api.recurring_runs.values()
    item.created_at = NOW
    return item


def _problems(printed: Printed) -> list[str]:
    """The problems that an audit prints."""
    return [line.removeprefix("  problem  ") for line in printed("audit", code=1) if line.startswith("  problem")]


def test_audit_without_problems(kfp_api: KfpServer, printed: Printed) -> None:
    item, (version,) = _add(kfp_api), kfp_api.versions.values()
    version.created_at = NOW - timedelta(days=3, hours=1)
    kfp_api.add_run(recurring_run_id=item.recurring_run_id, created_at=NOW - timedelta(minutes=5))
    kfp_api.add_run(recurring_run_id=item.recurring_run_id, created_at=NOW - timedelta(hours=25), state="FAILED")
    assert printed("audit") == [
        "nightly: enabled, 0 2 * * *",
        f"  version  {version.display_name}, 3 days old",
        f"  last     done {NOW - timedelta(minutes=5):%Y-%m-%d %H:%M} UTC",
        "recurring runs: 1, with problems: 0",
    ]


def test_missed_runs(kfp_api: KfpServer, printed: Printed) -> None:
    run_verb(schedule, "add", "often", "every 6h")
    (item,) = kfp_api.recurring_runs.values()
    item.created_at = NOW - timedelta(days=9)
    kfp_api.add_run(recurring_run_id=item.recurring_run_id, created_at=NOW - timedelta(hours=20))
    assert _problems(printed)[0].startswith(f"missed 3 runs since {NOW - timedelta(hours=20):%Y-%m-%d %H:%M} UTC")
    run_verb(schedule, "pause", "often")
    assert run_verb(schedule, "audit") == 0


def test_missed_runs_are_counted_in_the_time_zone(kfp_api: KfpServer) -> None:
    kolkata = NOW - timedelta(hours=1) + timedelta(minutes=330)  # an hour ago, on the clock there
    run_verb(schedule, "add", "nightly", f"{kolkata:%M %H} * * *")
    (item,) = kfp_api.recurring_runs.values()
    item.created_at = NOW - timedelta(hours=2)
    assert run_verb(schedule, "audit") == 0
    assert run_verb(schedule, "audit", "--time-zone", "Asia/Kolkata") == 1


def test_catch_up_five_fields_failure_and_deleted_version(kfp_api: KfpServer, printed: Printed) -> None:
    item = _add(kfp_api, "--catch-up")
    item.trigger.cron_schedule.cron = "0 2 * * *"
    kfp_api.add_run(recurring_run_id=item.recurring_run_id, state="FAILED", created_at=NOW)
    kfp_api.versions.clear()
    version, catch_up, fields, failed = _problems(printed)
    assert "its version was deleted" in version
    assert "catch-up is on" in catch_up
    assert "has five fields: KFP reads the first as seconds; give '0 0 2 * * *'" in fields
    assert "its last run failed" in failed


def test_image_older_than_the_newest_version(kfp_api: KfpServer, printed: Printed) -> None:
    _add(kfp_api)
    run_verb(upload, pipeline=changed_pipeline)
    assert run_verb(schedule, "audit") == 0, "another version with the same image is no problem"
    newest = _give_newest_version_another_image(kfp_api)
    (problem,) = _problems(printed)
    assert f"{IMAGE}, the newest version, {newest.display_name}, runs torch2kubeflow/data:2;" in problem


def test_following_the_latest_version_has_no_old_image(kfp_api: KfpServer) -> None:
    run_verb(upload)
    run_verb(upload, pipeline=changed_pipeline)
    _give_newest_version_another_image(kfp_api)
    _add(kfp_api, "--follow-latest")
    assert run_verb(schedule, "audit") == 0


def _give_newest_version_another_image(kfp_api: KfpServer) -> Any:
    newest = max(kfp_api.versions.values(), key=lambda version: version.created_at)
    executors = newest.pipeline_spec["deploymentSpec"]["executors"]
    executors["exec-resolve"]["container"]["image"] = "torch2kubeflow/data:2"
    return newest


def test_deleted_pipeline(kfp_api: KfpServer, printed: Printed) -> None:
    _add(kfp_api)
    kfp_api.script("GET /pipelines/.*/versions", error(404, "Pipeline not found"))
    assert _problems(printed) == ["its version was deleted, so each run fails; replace it"]


def test_pipeline_of_its_own_and_of_kfp_1(kfp_api: KfpServer, printed: Printed) -> None:
    item, (version,) = _add(kfp_api), kfp_api.versions.values()
    fields = {"recurring_run_id": "2", "pipeline_version_reference": None, "trigger": item.trigger}
    kfp_api.recurring_runs["2"] = api.V2beta1RecurringRun(**{**item.to_dict(), **fields})
    kfp_api.recurring_runs["2"].display_name = "own"
    version.pipeline_spec = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "spec": {}}
    assert "  version  a pipeline of its own" in printed("audit")
