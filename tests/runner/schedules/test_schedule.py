"""Verb `schedule`, with a server of KFP's API: add, list, pause, resume, remove."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import kfp_server_api as api
import pytest

from components.shared.core.errors import UserError
from runner.cluster import upload
from runner.schedules import schedule
from runner.schedules.cron import parse
from tests.runner.schedules.clock import NOW
from tests.runner.verbs import changed_pipeline, run_verb
from tests.servers.kfp_http import error
from tests.servers.kfp_server import KfpServer

pytestmark = pytest.mark.usefixtures("clock")
Printed = Callable[..., list[str]]


def _add(*words: str) -> None:
    """Add a recurring run, by default one for every night."""
    assert run_verb(schedule, "add", "nightly", "0 2 * * *", *words) == 0


def _only_item(kfp_api: KfpServer) -> Any:
    (item,) = kfp_api.recurring_runs.values()
    return item


def test_add_pins_the_present_code(kfp_api: KfpServer) -> None:
    _add("epochs=5")
    item, (version,) = _only_item(kfp_api), kfp_api.versions.values()
    assert item.display_name == "nightly"
    assert item.trigger.cron_schedule.cron == "0 0 2 * * *"
    assert item.pipeline_version_reference.pipeline_version_id == version.pipeline_version_id
    assert item.runtime_config.parameters == {"epochs": 5}
    assert (item.no_catchup, item.max_concurrency, item.mode) == (True, "1", "ENABLE")


def test_add_prints_the_next_times_and_a_link(kfp_api: KfpServer, printed: Printed) -> None:
    lines = printed("add", "nightly", "0 2 * * *")
    (version,) = kfp_api.versions.values()
    assert lines[0].startswith("uploaded version ")
    assert lines[1] == f"nightly: 0 2 * * *, version {version.display_name} of torch2kubeflow-training"
    tomorrow = NOW.replace(hour=2) + timedelta(days=1)
    assert lines[2] == f"  next {tomorrow:%Y-%m-%d %H:%M} UTC, here {tomorrow.astimezone():%Y-%m-%d %H:%M %Z}"
    assert len(lines) == 6
    assert lines[5] == f"{kfp_api.url}/#/recurringrun/details/{_only_item(kfp_api).recurring_run_id}"


def test_add_with_interval_concurrency_and_catch_up(kfp_api: KfpServer) -> None:
    run_verb(schedule, "add", "often", "every 6h", "--max-concurrency", "2", "--catch-up")
    item = _only_item(kfp_api)
    assert item.trigger.periodic_schedule.interval_second == "21600"
    assert not item.trigger.cron_schedule
    assert (item.no_catchup, item.max_concurrency) == (False, "2")


def test_add_that_follows_the_latest_version(kfp_api: KfpServer) -> None:
    run_verb(upload)
    run_verb(upload, pipeline=changed_pipeline)
    _add("batch_size=64", "--follow-latest")
    reference = _only_item(kfp_api).pipeline_version_reference
    assert reference.pipeline_id in kfp_api.pipelines
    assert reference.pipeline_version_id is None
    assert len(kfp_api.versions) == 2


def test_follow_latest_before_the_first_upload_is_refused(kfp_api: KfpServer) -> None:
    with pytest.raises(UserError, match=r"has no version yet; run `python pipeline.py upload` first"):
        _add("--follow-latest")


def test_add_with_an_older_version_and_its_parameters(kfp_api: KfpServer) -> None:
    run_verb(upload, pipeline=changed_pipeline)
    (version,) = kfp_api.versions.values()
    with pytest.raises(
        UserError, match=r"'epochs=5' is not a parameter; give name=value with one of: batch_size, data"
    ):
        _add("epochs=5", "--version", version.display_name)
    _add("batch_size=64", "--version", version.display_name)
    assert _only_item(kfp_api).pipeline_version_reference.pipeline_version_id == version.pipeline_version_id
    assert len(kfp_api.versions) == 1


def test_used_name_is_refused(kfp_api: KfpServer) -> None:
    _add()
    kfp_api.page_limit = 1
    run_verb(schedule, "add", "another", "@daily")
    with pytest.raises(UserError, match=r"nightly is the name of recurring run .*; choose another name"):
        _add()
    assert len(kfp_api.recurring_runs) == 2


@pytest.mark.parametrize(
    "words", [["nightly", "0 2 * *"], ["nightly", "0 2 * * *", "epoch=3"]], ids=["schedule", "parameter"]
)
def test_mistake_is_refused_before_the_upload(kfp_api: KfpServer, words: list[str]) -> None:
    with pytest.raises(UserError):
        run_verb(schedule, "add", *words)
    assert not kfp_api.pipelines


def test_refusal_of_the_server_is_reported(kfp_api: KfpServer) -> None:
    kfp_api.script("POST /recurringruns", error(403, "no right to create"))
    with pytest.raises(UserError, match="no right to create"):
        _add()


def test_list_without_recurring_runs(kfp_api: KfpServer, printed: Printed) -> None:
    assert printed("list") == ["no recurring run yet; create one with `python pipeline.py schedule add`"]


def test_list_shows_state_and_next_time(kfp_api: KfpServer, printed: Printed) -> None:
    _add()
    run_verb(schedule, "add", "often", "every 6h")
    run_verb(schedule, "pause", "often")
    nightly, often = printed("list")
    (time,) = islice(parse("0 2 * * *").times(NOW), 1)
    assert nightly.split() == f"nightly enabled 0 2 * * * next {time:%Y-%m-%d %H:%M} UTC".split()
    assert often.split() == ["often", "paused", "every", "6h"]


MISREAD = "KFP misreads it, or it is not understood here; see `python pipeline.py schedule audit`"


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 30 2 * * 0", "30 2 * * 0 next"),
        ("30 0 2 * * *", "30 0 2 * * * next"),
        ("0 0 2 ? * MON", "0 0 2 ? * MON next"),
        ("@daily", "@daily next"),
        ("0 2 * * *", f"0 2 * * * {MISREAD}"),
        ("0 0 2 * *", f"0 0 2 * * {MISREAD}"),
    ],
)
def test_list_shows_five_fields_if_unambiguous(kfp_api: KfpServer, printed: Printed, cron: str, expected: str) -> None:
    assert _list_cron(kfp_api, printed, cron).startswith(expected)


def test_list_shows_times_in_utc(kfp_api: KfpServer, printed: Printed) -> None:
    assert _list_cron(kfp_api, printed, "0 30 2 * * *").endswith(" 17:30 UTC"), "2:30 in Tokyo"


def _list_cron(kfp_api: KfpServer, printed: Printed, cron: str) -> str:
    """Return what `list` shows after name and state for a recurring run with that cron in KFP."""
    _add()
    _only_item(kfp_api).trigger.cron_schedule.cron = cron
    (line,) = printed("list", "--time-zone", "Asia/Tokyo")
    return " ".join(line.split()[2:])


def test_next_time_of_an_interval_counts_from_the_last_run(kfp_api: KfpServer, printed: Printed) -> None:
    run_verb(schedule, "add", "often", "every 6h")
    item = _only_item(kfp_api)

    def next_time() -> str:
        (line,) = printed("list")
        return " ".join(line.split()[4:])

    item.created_at = NOW - timedelta(hours=20)
    assert next_time() == f"next {NOW + timedelta(hours=4):%Y-%m-%d %H:%M} UTC"
    kfp_api.add_run(recurring_run_id=item.recurring_run_id, created_at=NOW - timedelta(hours=1))
    assert next_time() == f"next {NOW + timedelta(hours=5):%Y-%m-%d %H:%M} UTC"
    item.trigger.periodic_schedule.end_time = NOW + timedelta(hours=4)
    assert next_time() == ""


def test_next_time_is_after_the_start_time(kfp_api: KfpServer, printed: Printed) -> None:
    _add()
    _only_item(kfp_api).trigger.cron_schedule.start_time = datetime(2999, 12, 31, 12, tzinfo=UTC)
    (line,) = printed("list")
    assert line.endswith("next 3000-01-01 02:00 UTC")


def test_pause_resume_and_remove_by_name_or_id(kfp_api: KfpServer) -> None:
    _add()
    item = _only_item(kfp_api)
    run_verb(schedule, "pause", "nightly")
    assert item.status == "DISABLED"
    run_verb(schedule, "resume", item.recurring_run_id)
    assert item.status == "ENABLED"
    assert run_verb(schedule, "remove", "nightly") == 0
    assert not kfp_api.recurring_runs


@pytest.mark.parametrize(
    ("hours", "words", "expected"),
    [
        (5, [], "no run was missed meanwhile"),
        (7, [], "the run that was missed meanwhile starts now"),
        (20, [], "of the 3 runs missed meanwhile, the last starts now"),
        (20, ["--catch-up"], "of the 3 runs missed meanwhile, every one is started"),
        (9999, [], "of the 100 or more runs missed meanwhile, the last starts now"),
    ],
)
def test_resume_tells_what_was_missed_since_the_last_run(
    kfp_api: KfpServer, printed: Printed, hours: int, words: list[str], expected: str
) -> None:
    run_verb(schedule, "add", "often", "every 6h", *words)
    item = _only_item(kfp_api)
    item.created_at = NOW - timedelta(hours=99999)
    kfp_api.add_run(recurring_run_id=item.recurring_run_id, created_at=NOW - timedelta(hours=hours))
    run_verb(schedule, "pause", "often")
    assert printed("resume", "often")[0] == f"often: resumed; {expected}"
    assert printed("resume", "often")[0] == "often: was not paused"


def test_resume_counts_from_the_creation_in_the_time_zone(kfp_api: KfpServer, printed: Printed) -> None:
    kolkata = NOW - timedelta(hours=1) + timedelta(minutes=330)  # an hour ago, on the clock there
    run_verb(schedule, "add", "nightly", f"{kolkata:%M %H} * * *")
    item = _only_item(kfp_api)
    item.created_at = NOW - timedelta(hours=2)
    run_verb(schedule, "pause", "nightly")
    assert printed("resume", "nightly")[0] == "nightly: resumed; no run was missed meanwhile"
    run_verb(schedule, "pause", "nightly")
    assert printed("resume", "nightly", "--time-zone", "Asia/Kolkata")[0].endswith("missed meanwhile starts now")
    run_verb(schedule, "pause", "nightly")
    item.trigger.cron_schedule.cron = "0 2 * * *"
    assert printed("resume", "nightly")[0] == "nightly: resumed; whether a run was missed meanwhile is not known"


def test_remove_does_not_end_an_active_run(kfp_api: KfpServer) -> None:
    _add()
    run_verb(schedule, "remove", "nightly")
    (request,) = kfp_api.asked("DELETE .*")
    assert request.query == {"propagation_policy": "ORPHAN"}


def test_unknown_name_is_refused(kfp_api: KfpServer) -> None:
    with pytest.raises(UserError, match=r"no recurring run is called nightly"):
        run_verb(schedule, "pause", "nightly")


def test_ambiguous_name_is_refused(kfp_api: KfpServer) -> None:
    _add()
    item = _only_item(kfp_api)
    kfp_api.recurring_runs["2"] = api.V2beta1RecurringRun(**{**item.to_dict(), "recurring_run_id": "2"})
    expected = f"2 recurring runs are called nightly; give the id of one: .*{item.recurring_run_id}"
    with pytest.raises(UserError, match=expected):
        run_verb(schedule, "pause", "nightly")
