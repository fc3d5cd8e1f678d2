"""Verb `schedule` against a server of KFP's API."""

from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice
from pathlib import Path
from typing import Any

import kfp_server_api as api
import kubernetes
import pytest

from components.shared.core.errors import UserError
from runner.cluster import upload
from runner.schedules import audit, recurring, schedule
from runner.schedules.cron import parse
from tests.runner.verbs import IMAGE, changed_pipeline, run_verb
from tests.servers.kfp_http import error
from tests.servers.kfp_server import KfpServer
from tests.servers.kube_server import kube_server

NOW = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)


class Noon(datetime):
    """A clock that stands, so that no test is overtaken by the time of a schedule."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        return NOW.astimezone(tz)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (audit, recurring, schedule):
        monkeypatch.setattr(module, "datetime", Noon)


def _add(*words: str) -> int:
    return run_verb(schedule, "add", "nightly", "0 2 * * *", *words)


def _only(kfp_api: KfpServer) -> Any:
    (item,) = kfp_api.recurring_runs.values()
    return item


def _lines(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> list[str]:
    """What the verb prints of itself alone."""
    capsys.readouterr()
    assert run_verb(schedule, *words) == code
    return capsys.readouterr().out.splitlines()


def test_a_recurring_run_is_made_that_pins_the_present_code(kfp_api: KfpServer) -> None:
    assert _add("epochs=5") == 0
    item, (version,) = _only(kfp_api), kfp_api.versions.values()
    assert item.display_name == "nightly"
    assert item.trigger.cron_schedule.cron == "0 0 2 * * *"
    assert item.pipeline_version_reference.pipeline_version_id == version.pipeline_version_id
    assert item.runtime_config.parameters == {"epochs": 5}
    assert (item.no_catchup, item.max_concurrency, item.mode) == (True, "1", "ENABLE")


def test_it_is_told_when_it_runs_and_where_it_is_seen(kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    lines = _lines(capsys, "add", "nightly", "0 2 * * *")
    (version,) = kfp_api.versions.values()
    assert lines[0].startswith("uploaded version ")
    assert lines[1] == f"nightly: 0 0 2 * * *, version {version.display_name} of torch2kubeflow-training"
    tomorrow = NOW.replace(hour=2) + timedelta(days=1)
    assert lines[2] == f"  next {tomorrow:%Y-%m-%d %H:%M} UTC, here {tomorrow.astimezone():%Y-%m-%d %H:%M %Z}"
    assert len(lines) == 6
    assert lines[5] == f"{kfp_api.url}/#/recurringrun/details/{_only(kfp_api).recurring_run_id}"


def test_the_next_times_are_those_of_the_zone_that_is_given(
    kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = _lines(capsys, "add", "nightly", "30 2 * * *", "--time-zone", "Asia/Tokyo")
    assert {line.split()[2] for line in lines[2:5]} == {"17:30"}
    with pytest.raises(UserError, match="Asia/Tokio is no time zone known here; give --time-zone NAME such as"):
        run_verb(schedule, "add", "another", "@daily", "--time-zone", "Asia/Tokio")
    assert len(kfp_api.recurring_runs) == 1


def test_the_zone_is_read_from_the_cluster_where_it_may_be(
    kfp_api: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))

    def hours(name: str, *words: str) -> set[str]:
        lines = _lines(capsys, "add", name, "30 2 * * *", "--context", "loopback", *words)
        return {line.split()[2] for line in lines if line.startswith("  next")}

    with kube_server() as cluster:
        cluster.write_kubeconfig(tmp_path / "kubeconfig")
        assert hours("none") == {"02:30"}
        metadata = kubernetes.client.V1ObjectMeta(name="pipeline-install-config", namespace="kubeflow")
        cluster.add(kubernetes.client.V1ConfigMap(metadata=metadata))
        assert hours("empty") == {"02:30"}
        data = {"cronScheduleTimezone": "Asia/Tokyo"}
        cluster.add(kubernetes.client.V1ConfigMap(metadata=metadata, data=data))
        assert hours("tokyo") == {"17:30"}
        assert hours("given", "--time-zone", "UTC") == {"02:30"}
        cluster.denied.add("get configmaps")
        assert hours("denied") == {"02:30"}


def test_an_interval_concurrency_and_catch_up_are_passed_on(kfp_api: KfpServer) -> None:
    run_verb(schedule, "add", "often", "every 6h", "--max-concurrency", "2", "--catch-up")
    item = _only(kfp_api)
    assert item.trigger.periodic_schedule.interval_second == "21600"
    assert not item.trigger.cron_schedule
    assert (item.no_catchup, item.max_concurrency) == (False, "2")


def test_following_the_latest_names_no_version_and_uploads_nothing(kfp_api: KfpServer) -> None:
    with pytest.raises(UserError, match=r"has no version yet; run `python pipeline.py upload` first"):
        _add("--follow-latest")
    run_verb(upload)
    run_verb(upload, pipeline=changed_pipeline)
    _add("batch_size=64", "--follow-latest")
    reference = _only(kfp_api).pipeline_version_reference
    assert reference.pipeline_id in kfp_api.pipelines
    assert reference.pipeline_version_id is None
    assert len(kfp_api.versions) == 2


def test_an_older_version_may_be_pinned_and_its_own_parameters_count(kfp_api: KfpServer) -> None:
    run_verb(upload, pipeline=changed_pipeline)
    (version,) = kfp_api.versions.values()
    with pytest.raises(UserError, match=r"'epochs=5' is no parameter; give name=value with one of: batch_size, data"):
        _add("epochs=5", "--version", version.display_name)
    _add("batch_size=64", "--version", version.display_name)
    assert _only(kfp_api).pipeline_version_reference.pipeline_version_id == version.pipeline_version_id
    assert len(kfp_api.versions) == 1


def test_a_name_that_is_taken_is_refused(kfp_api: KfpServer) -> None:
    _add()
    kfp_api.page_limit = 1
    run_verb(schedule, "add", "another", "@daily")
    with pytest.raises(UserError, match="nightly is taken"):
        _add()
    assert len(kfp_api.recurring_runs) == 2


@pytest.mark.parametrize("words", [["nightly", "0 2 * *"], ["nightly", "0 2 * * *", "epoch=3"]])
def test_a_mistake_is_refused_before_anything_is_uploaded(kfp_api: KfpServer, words: list[str]) -> None:
    with pytest.raises(UserError):
        run_verb(schedule, "add", *words)
    assert not kfp_api.pipelines


def test_what_the_server_refuses_is_told_in_one_line(kfp_api: KfpServer) -> None:
    kfp_api.script("POST /recurringruns", error(403, "no right to create"))
    with pytest.raises(UserError, match="no right to create"):
        _add()


def test_recurring_runs_are_listed(kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert _lines(capsys, "list") == ["no recurring run yet; make one with `python pipeline.py schedule add`"]
    _add()
    run_verb(schedule, "add", "often", "every 6h")
    run_verb(schedule, "pause", "often")
    nightly, often = _lines(capsys, "list")
    (time,) = islice(parse("0 2 * * *").times(NOW), 1)
    assert nightly.split() == f"nightly enabled 0 2 * * * next {time:%Y-%m-%d %H:%M} UTC".split()
    assert often.split() == ["often", "paused", "every", "6h"]


def _listed_cron(kfp_api: KfpServer, capsys: pytest.CaptureFixture[str], cron: str) -> str:
    """What the list says of a recurring run beside its name and state."""
    _only(kfp_api).trigger.cron_schedule.cron = cron
    (line,) = _lines(capsys, "list", "--time-zone", "Asia/Tokyo")
    return " ".join(line.split()[2:])


def test_a_cron_is_listed_as_it_was_given_where_no_other_meaning_is_possible(
    kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    _add()
    misread = "misread by KFP, or not understood here; see `python pipeline.py schedule audit`"
    for cron, shown in (
        ("0 30 2 * * 0", "30 2 * * 0 next"),
        ("30 0 2 * * *", "30 0 2 * * * next"),
        ("0 0 2 ? * MON", "0 0 2 ? * MON next"),
        ("@daily", "@daily next"),
        ("0 2 * * *", f"0 2 * * * {misread}"),
        ("0 0 2 * *", f"0 0 2 * * {misread}"),
    ):
        assert _listed_cron(kfp_api, capsys, cron).startswith(shown)
    assert _listed_cron(kfp_api, capsys, "0 30 2 * * *").endswith(" 17:30 UTC"), "which is 2:30 in Tokyo"


def test_the_next_time_of_an_interval_counts_from_its_last_run(
    kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run_verb(schedule, "add", "often", "every 6h")
    item = _only(kfp_api)

    def next_time() -> str:
        (line,) = _lines(capsys, "list")
        return " ".join(line.split()[4:])

    item.created_at = NOW - timedelta(hours=20)
    assert next_time() == f"next {NOW + timedelta(hours=4):%Y-%m-%d %H:%M} UTC"
    kfp_api.add_run(recurring_run_id=item.recurring_run_id, created_at=NOW - timedelta(hours=1))
    assert next_time() == f"next {NOW + timedelta(hours=5):%Y-%m-%d %H:%M} UTC"
    item.trigger.periodic_schedule.end_time = NOW + timedelta(hours=4)
    assert next_time() == ""


def test_a_schedule_that_begins_later_runs_next_after_its_begin(
    kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    _add()
    _only(kfp_api).trigger.cron_schedule.start_time = datetime(2999, 12, 31, 12, tzinfo=UTC)
    (line,) = _lines(capsys, "list")
    assert line.endswith("next 3000-01-01 02:00 UTC")


def test_a_recurring_run_is_paused_resumed_and_removed_by_name_or_id(kfp_api: KfpServer) -> None:
    _add()
    item = _only(kfp_api)
    run_verb(schedule, "pause", "nightly")
    assert item.status == "DISABLED"
    run_verb(schedule, "resume", item.recurring_run_id)
    assert item.status == "ENABLED"
    assert run_verb(schedule, "remove", "nightly") == 0
    assert not kfp_api.recurring_runs


def test_removing_does_not_end_a_run_under_way(kfp_api: KfpServer) -> None:
    _add()
    run_verb(schedule, "remove", "nightly")
    (request,) = kfp_api.asked("DELETE .*")
    assert request.query == {"propagation_policy": "ORPHAN"}


def test_a_name_that_is_unknown_or_not_unique_is_refused(kfp_api: KfpServer) -> None:
    with pytest.raises(UserError, match=r"no recurring run is called nightly"):
        run_verb(schedule, "pause", "nightly")
    _add()
    item = _only(kfp_api)
    kfp_api.recurring_runs["2"] = api.V2beta1RecurringRun(**{**item.to_dict(), "recurring_run_id": "2"})
    with pytest.raises(
        UserError, match=f"2 recurring runs are called nightly; give the id of one: .*{item.recurring_run_id}"
    ):
        run_verb(schedule, "pause", "nightly")


def test_an_audit_of_what_is_well_says_so(kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    _add()
    item, (version,) = _only(kfp_api), kfp_api.versions.values()
    item.created_at, version.created_at = NOW, NOW - timedelta(days=3, hours=1)
    kfp_api.add_run(recurring_run_id=item.recurring_run_id, created_at=NOW - timedelta(minutes=5))
    kfp_api.add_run(recurring_run_id=item.recurring_run_id, created_at=NOW - timedelta(hours=25), state="FAILED")
    assert _lines(capsys, "audit") == [
        "nightly: enabled, 0 0 2 * * *",
        f"  version  {version.display_name}, 3 days old",
        f"  last     done {NOW - timedelta(minutes=5):%Y-%m-%d %H:%M} UTC",
        "recurring runs: 1, with something wrong: 0",
    ]


def _wrong(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.removeprefix("  wrong    ") for line in _lines(capsys, "audit", code=1) if line.startswith("  wrong")]


def test_an_audit_tells_missed_runs(kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    run_verb(schedule, "add", "often", "every 6h")
    item = _only(kfp_api)
    item.created_at = NOW - timedelta(days=9)
    kfp_api.add_run(recurring_run_id=item.recurring_run_id, created_at=NOW - timedelta(hours=20))
    assert _wrong(capsys)[0].startswith(f"missed 3 runs since {NOW - timedelta(hours=20):%Y-%m-%d %H:%M} UTC")
    run_verb(schedule, "pause", "often")
    assert run_verb(schedule, "audit") == 0


def test_an_audit_counts_in_the_zone(kfp_api: KfpServer) -> None:
    hour_ago = NOW - timedelta(hours=1)  # as a clock shows it that is five hours and a half ahead of UTC
    run_verb(schedule, "add", "nightly", f"{(hour_ago + timedelta(minutes=330)):%M %H} * * *")
    _only(kfp_api).created_at = NOW - timedelta(hours=2)
    assert run_verb(schedule, "audit") == 0
    assert run_verb(schedule, "audit", "--time-zone", "Asia/Kolkata") == 1


def test_an_audit_tells_five_fields_catch_up_a_failure_and_a_deleted_version(
    kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    _add("--catch-up")
    item = _only(kfp_api)
    item.trigger.cron_schedule.cron = "0 2 * * *"
    kfp_api.add_run(recurring_run_id=item.recurring_run_id, state="FAILED", created_at=NOW)
    kfp_api.versions.clear()
    version, catch_up, fields, failed = _wrong(capsys)
    assert "its version is deleted" in version
    assert "catch-up is on" in catch_up
    assert "has five fields: KFP takes the first for seconds; give '0 0 2 * * *'" in fields
    assert "its last run failed" in failed


def test_an_audit_tells_an_image_older_than_the_newest_version(
    kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    _add()
    _only(kfp_api).created_at = NOW
    run_verb(upload, pipeline=changed_pipeline)
    assert run_verb(schedule, "audit") == 0  # another version, but of the same image
    newest = max(kfp_api.versions.values(), key=lambda version: version.created_at)
    executors = newest.pipeline_spec["deploymentSpec"]["executors"]
    executors["exec-resolve"]["container"]["image"] = "torch2kubeflow/data:2"
    (told,) = _wrong(capsys)
    assert f"{IMAGE}, the newest version, {newest.display_name}, runs torch2kubeflow/data:2;" in told
    run_verb(schedule, "remove", "nightly")
    run_verb(schedule, "add", "nightly", "@daily", "--follow-latest")
    _only(kfp_api).created_at = NOW
    assert run_verb(schedule, "audit") == 0


def test_an_audit_goes_on_where_a_pipeline_is_gone(kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    _add()
    _only(kfp_api).created_at = NOW
    kfp_api.script("GET /pipelines/.*/versions", error(404, "Pipeline not found"))
    assert _wrong(capsys) == ["its version is deleted, so each run fails; replace it"]


def test_an_audit_reads_recurring_runs_of_other_makes(kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipeline given with the recurring run itself, and one of KFP 1."""
    _add()
    item, (version,) = _only(kfp_api), kfp_api.versions.values()
    item.created_at = NOW
    kfp_api.recurring_runs["2"] = api.V2beta1RecurringRun(
        **{**item.to_dict(), "recurring_run_id": "2", "pipeline_version_reference": None, "trigger": item.trigger}
    )
    kfp_api.recurring_runs["2"].display_name = "own"
    version.pipeline_spec = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "spec": {}}
    lines = _lines(capsys, "audit")
    assert "  version  a pipeline given with it" in lines
