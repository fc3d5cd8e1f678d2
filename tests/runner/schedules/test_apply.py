"""Verb `apply`: recurring runs in a KFP API that it makes match the deploy file."""

from typing import Any

import pytest

from components.shared.core.errors import UserError
from runner.schedules import schedule
from tests.runner import verbs
from tests.runner.schedules.deploy_folder import NIGHTLY, DeployFolder
from tests.runner.verbs import run_verb
from tests.servers.kfp_http import error
from tests.servers.kfp_server import KfpServer

LATER = {"when": "0 3 * * *"}


def _find(kfp_api: KfpServer, name: str) -> list[Any]:
    return [item for item in kfp_api.recurring_runs.values() if item.display_name == name]


def test_version_and_schedules_are_created(kfp_api: KfpServer, folder: DeployFolder) -> None:
    often = {"when": "every 6h", "follow_latest": True, "enabled": False}
    lines = folder.apply(schedules={"nightly": NIGHTLY, "often": often})
    (version,), (nightly,), (often_item,) = (
        kfp_api.versions.values(),
        _find(kfp_api, "nightly"),
        _find(kfp_api, "often"),
    )
    path = f"{version.pipeline_id}/version/{version.pipeline_version_id}"
    assert lines[0] == f"version: uploaded {version.display_name}"
    assert lines[1:3] == [f"  {kfp_api.url}/#/pipelines/details/{path}", "nightly: created"]
    assert lines[6] == f"  {kfp_api.url}/#/recurringrun/details/{nightly.recurring_run_id}"
    assert lines[7:] == ["often: created", f"  {kfp_api.url}/#/recurringrun/details/{often_item.recurring_run_id}"]


def test_created_schedule_pins_the_version(kfp_api: KfpServer, folder: DeployFolder) -> None:
    folder.apply(parameters={"data": "digits", "epochs": 1}, schedules={"nightly": NIGHTLY})
    (version,), (nightly,) = kfp_api.versions.values(), _find(kfp_api, "nightly")
    assert nightly.trigger.cron_schedule.cron == "0 0 2 * * *"
    assert nightly.runtime_config.parameters == {"data": "digits", "epochs": 1}
    assert nightly.pipeline_version_reference.pipeline_version_id == version.pipeline_version_id
    assert (nightly.no_catchup, nightly.max_concurrency, nightly.status) == (True, "1", "ENABLED")


def test_created_schedule_with_settings_of_its_own(kfp_api: KfpServer, folder: DeployFolder) -> None:
    plan = {"when": "every 6h", "parameters": {"epochs": 5}, "follow_latest": True, "enabled": False}
    folder.apply(parameters={"data": "digits", "epochs": 1}, schedules={"often": plan})
    (often,) = _find(kfp_api, "often")
    assert often.runtime_config.parameters == {"data": "digits", "epochs": 5}
    assert often.pipeline_version_reference.pipeline_version_id is None
    assert often.status == "DISABLED"


def test_second_apply_changes_nothing(kfp_api: KfpServer, folder: DeployFolder) -> None:
    keys: dict[str, Any] = {
        "parameters": {"epochs": 5, "node_selector": {"disk": "ssd"}},
        "schedules": {"nightly": NIGHTLY, "often": {"when": "every 6h", "follow_latest": True}},
    }
    folder.apply(**keys)
    writes = len(kfp_api.asked("(POST|DELETE) .*"))
    (version,) = kfp_api.versions.values()
    lines = folder.apply(**keys)
    assert lines[0] == f"version: unchanged, {version.display_name}"
    assert lines[2:] == ["nightly: unchanged", "often: unchanged"]
    assert len(kfp_api.asked("(POST|DELETE) .*")) == writes


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        pytest.param(LATER, "schedule 0 2 * * * -> 0 3 * * *", id="cron"),
        pytest.param({"when": "every 6h"}, "schedule 0 2 * * * -> every 6h", id="interval"),
        pytest.param({**NIGHTLY, "parameters": {"epochs": 5}}, "parameter epochs default -> 5", id="parameter"),
        pytest.param({**NIGHTLY, "max_concurrency": 2}, "max_concurrency 1 -> 2", id="max-concurrency"),
        pytest.param({**NIGHTLY, "catch_up": True}, "catch_up False -> True", id="catch-up"),
    ],
)
def test_changed_schedule_is_replaced(
    kfp_api: KfpServer, folder: DeployFolder, keys: dict[str, Any], expected: str
) -> None:
    folder.apply(schedules={"nightly": NIGHTLY})
    (old,) = _find(kfp_api, "nightly")
    assert folder.items("--dry-run", schedules={"nightly": keys}) == [f"nightly: would replace ({expected})"]
    assert _find(kfp_api, "nightly") == [old]
    assert folder.items(schedules={"nightly": keys}) == [f"nightly: replaced ({expected})"]
    (new,) = _find(kfp_api, "nightly")
    assert new.recurring_run_id != old.recurring_run_id
    assert folder.items(schedules={"nightly": keys}) == ["nightly: unchanged"]
    _, create, delete = kfp_api.asked("(POST|DELETE) /recurringruns.*")
    assert (str(create), str(delete)) == ("POST /recurringruns", f"DELETE /recurringruns/{old.recurring_run_id}")
    assert delete.query == {"propagation_policy": "ORPHAN"}  # an active run continues


def test_pinned_schedules_move_to_a_new_version(kfp_api: KfpServer, folder: DeployFolder) -> None:
    schedules = {"nightly": NIGHTLY, "often": {"when": "every 6h", "follow_latest": True}}
    folder.apply(schedules=schedules)
    (old,) = kfp_api.versions.values()
    assert folder.apply("--dry-run", code=verbs.changed_pipeline, schedules=schedules) == [
        "version: would upload the present content",
        f"nightly: would replace (version {old.display_name} -> new)",
        "often: unchanged",
    ]
    assert len(kfp_api.versions) == 1
    lines = folder.apply(code=verbs.changed_pipeline, schedules=schedules)
    new = next(version for version in kfp_api.versions.values() if version is not old)
    assert lines[2] == f"nightly: replaced (version {old.display_name} -> {new.display_name})"
    assert lines[-1] == "often: unchanged"


def test_newer_version_is_shown_if_schedules_follow_it(kfp_api: KfpServer, folder: DeployFolder) -> None:
    schedules = {"nightly": {**NIGHTLY, "follow_latest": True}}
    folder.apply(schedules=schedules)
    folder.apply(code=verbs.changed_pipeline, schedules=schedules)
    old, new = sorted(kfp_api.versions.values(), key=lambda version: version.created_at)
    lines = folder.apply(schedules=schedules)
    assert lines[0] == f"version: unchanged, {old.display_name}"
    assert lines[2:] == [
        f"  schedules that follow the latest run {new.display_name}, which was uploaded later",
        "nightly: unchanged",
    ]


def test_interrupted_apply_is_completed_by_the_next(kfp_api: KfpServer, folder: DeployFolder) -> None:
    folder.apply(schedules={"nightly": NIGHTLY})
    kfp_api.script("DELETE /recurringruns/.*", error(500, "not now"))
    with pytest.raises(UserError, match="not now"):
        folder.apply(schedules={"nightly": LATER})
    assert len(_find(kfp_api, "nightly")) == 2
    assert folder.items(schedules={"nightly": LATER}) == ["nightly: unchanged", "nightly, old: removed"]
    (new,) = _find(kfp_api, "nightly")
    assert new.trigger.cron_schedule.cron == "0 0 3 * * *"


def test_old_schedule_stays_if_the_new_one_is_refused(kfp_api: KfpServer, folder: DeployFolder) -> None:
    folder.apply(schedules={"nightly": NIGHTLY})
    kfp_api.script("POST /recurringruns", error(400, "no such schedule"))
    with pytest.raises(UserError, match="no such schedule"):
        folder.apply(schedules={"nightly": LATER})
    assert [item.status for item in _find(kfp_api, "nightly")] == ["ENABLED"]


def test_pause_and_resume_replace_nothing(kfp_api: KfpServer, folder: DeployFolder) -> None:
    folder.apply(schedules={"nightly": NIGHTLY})
    (item,) = _find(kfp_api, "nightly")
    assert folder.items(schedules={"nightly": {**NIGHTLY, "enabled": False}}) == ["nightly: paused"]
    assert item.status == "DISABLED"
    assert folder.items(schedules={"nightly": NIGHTLY}) == ["nightly: resumed"]
    assert item.status == "ENABLED"
    assert _find(kfp_api, "nightly") == [item]


def test_only_schedules_created_by_apply_are_removed(kfp_api: KfpServer, folder: DeployFolder) -> None:
    run_verb(schedule, "add", "by-hand", "@weekly")
    folder.apply(schedules={"other": NIGHTLY})
    _find(kfp_api, "other")[0].pipeline_version_reference.pipeline_id = "another"
    folder.apply(schedules={"nightly": NIGHTLY, "often": {"when": "every 6h"}})
    remedy = "remove it with `python pipeline.py schedule remove by-hand`"
    left = f"by-hand: left alone (not in the file; {remedy})"
    schedules = {"nightly": NIGHTLY}
    assert folder.items("--dry-run", schedules=schedules) == ["nightly: unchanged", "often: would remove", left]
    assert folder.items(schedules=schedules) == ["nightly: unchanged", "often: removed", left]
    assert folder.items(schedules=schedules) == ["nightly: unchanged", left]
    assert sorted(item.display_name for item in kfp_api.recurring_runs.values()) == ["by-hand", "nightly", "other"]


def test_schedule_created_by_hand_is_adopted_by_its_name(kfp_api: KfpServer, folder: DeployFolder) -> None:
    run_verb(schedule, "add", "nightly", "0 2 * * *")
    assert folder.items(schedules={"nightly": NIGHTLY})[0].startswith("nightly: replaced (description")
    assert folder.items() == ["nightly: removed"]


def test_name_of_another_pipelines_schedule_is_refused(kfp_api: KfpServer, folder: DeployFolder) -> None:
    run_verb(schedule, "add", "nightly", "0 2 * * *")
    _find(kfp_api, "nightly")[0].pipeline_version_reference.pipeline_id = "another"
    with pytest.raises(UserError, match="nightly is the name of a recurring run of another pipeline"):
        folder.apply(code=verbs.changed_pipeline, schedules={"nightly": NIGHTLY})
    assert len(kfp_api.versions) == 1, "nothing may be uploaded before the refusal"


@pytest.mark.parametrize("place", ["parameters", "schedules"])
def test_what_kubernetes_refuses_is_refused_before_an_upload(
    kfp_api: KfpServer, folder: DeployFolder, place: str
) -> None:
    wrong = {"node_selector": {"disk": "a b"}}
    schedules = {"nightly": NIGHTLY | ({"parameters": wrong} if place == "schedules" else {})}
    with pytest.raises(UserError, match=r"node_selector=.* is not accepted: .*value 'a b' "):
        folder.apply(parameters=wrong if place == "parameters" else {}, schedules=schedules)
    assert not kfp_api.asked("POST .*")


def test_dry_run_before_the_first_upload_writes_nothing(kfp_api: KfpServer, folder: DeployFolder) -> None:
    lines = folder.apply("--dry-run", schedules={"nightly": NIGHTLY})
    assert lines == ["version: would upload the present content", "nightly: would create"]
    assert not kfp_api.asked("(POST|DELETE) .*")


def test_file_names_the_namespace(kfp_api: KfpServer, folder: DeployFolder) -> None:
    kfp_api.multi_user, kfp_api.namespaces = True, {"team"}
    folder.apply(namespace="team", schedules={"nightly": NIGHTLY})
    assert _find(kfp_api, "nightly")[0].namespace == "team"
    with pytest.raises(UserError, match="--namespace other is not the file's, team"):
        folder.apply("--namespace", "other", namespace="team")


def test_other_namespace_is_refused_if_kfp_has_one_user(kfp_api: KfpServer, folder: DeployFolder) -> None:
    folder.apply(namespace="kubeflow")
    with pytest.raises(UserError, match="namespace team: this KFP has one user, whose runs live in kubeflow; give"):
        folder.apply(namespace="team")
