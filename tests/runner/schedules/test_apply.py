"""Verb `apply`: the file it reads, and a server of KFP's API that it makes agree with the file."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp.dsl.base_component import BaseComponent

import pipeline
from components.shared.core.errors import UserError
from runner.schedules import apply, deploy_file, schedule
from tests.runner import verbs
from tests.runner.verbs import run_verb
from tests.servers.kfp_http import error
from tests.servers.kfp_server import KfpServer

ROOT = Path(__file__).parents[3]
NIGHTLY = {"when": "0 2 * * *"}


class Folder:
    """Where deploy.yaml is written and applied."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.file, self.capsys = path / "deploy.yaml", capsys

    def write(self, **keys: Any) -> None:
        self.file.write_text(yaml.safe_dump({"pipeline": "torch2kubeflow-training", **keys}))

    def apply(self, *words: str, code: BaseComponent = verbs.pipeline, **keys: Any) -> list[str]:
        """The lines that are printed; those with details of an item begin with a space."""
        self.write(**keys)
        self.capsys.readouterr()
        assert run_verb(apply, "-f", str(self.file), *words, pipeline=code) == 0
        return self.capsys.readouterr().out.splitlines()

    def items(self, *words: str, **keys: Any) -> list[str]:
        """The lines about recurring runs."""
        return [line for line in self.apply(*words, **keys)[1:] if not line.startswith(" ")]


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Folder:
    return Folder(tmp_path, capsys)


def _named(kfp_api: KfpServer, name: str) -> list[Any]:
    return [item for item in kfp_api.recurring_runs.values() if item.display_name == name]


def test_the_example_of_this_repository_is_accepted() -> None:
    wanted = deploy_file.read(ROOT / "deploy.yaml")
    assert wanted.pipeline == pipeline.training.name
    nightly, sunday = (schedule.given(pipeline.training, plan.words) for plan in wanted.plans)
    assert sunday == {**nightly, "epochs": 10}


def test_the_next_times_are_those_of_the_zone_that_is_given(kfp_api: KfpServer, folder: Folder) -> None:
    lines = folder.apply("--time-zone", "Asia/Tokyo", schedules={"nightly": NIGHTLY})
    assert {line.split()[2] for line in lines if line.startswith("  next")} == {"17:00"}


def test_a_version_and_its_schedules_are_made(kfp_api: KfpServer, folder: Folder) -> None:
    plan = {"when": "every 6h", "parameters": {"epochs": 5}, "follow_latest": True, "enabled": False}
    lines = folder.apply(parameters={"data": "digits", "epochs": 1}, schedules={"nightly": NIGHTLY, "often": plan})
    (version,), ((nightly,), (often,)) = (
        kfp_api.versions.values(),
        (_named(kfp_api, "nightly"), _named(kfp_api, "often")),
    )
    assert lines[0] == f"version: uploaded {version.display_name}"
    place = f"{version.pipeline_id}/version/{version.pipeline_version_id}"
    assert lines[1:3] == [f"  {kfp_api.url}/#/pipelines/details/{place}", "nightly: created"]
    assert lines[6] == f"  {kfp_api.url}/#/recurringrun/details/{nightly.recurring_run_id}"
    assert lines[7:] == ["often: created", f"  {kfp_api.url}/#/recurringrun/details/{often.recurring_run_id}"]
    assert nightly.trigger.cron_schedule.cron == "0 0 2 * * *"
    assert nightly.runtime_config.parameters == {"data": "digits", "epochs": 1}
    assert nightly.pipeline_version_reference.pipeline_version_id == version.pipeline_version_id
    assert (nightly.no_catchup, nightly.max_concurrency, nightly.status) == (True, "1", "ENABLED")
    assert often.runtime_config.parameters == {"data": "digits", "epochs": 5}
    assert often.pipeline_version_reference.pipeline_version_id is None
    assert often.status == "DISABLED"


def test_applying_again_changes_nothing(kfp_api: KfpServer, folder: Folder) -> None:
    keys = {
        "parameters": {"epochs": 5, "node_selector": {"disk": "ssd"}},
        "schedules": {"nightly": NIGHTLY, "often": {"when": "every 6h", "follow_latest": True}},
    }
    folder.apply(**keys)
    written = len(kfp_api.asked("(POST|DELETE) .*"))
    (version,) = kfp_api.versions.values()
    lines = folder.apply(**keys)
    assert lines[0] == f"version: unchanged, {version.display_name}"
    assert lines[2:] == ["nightly: unchanged", "often: unchanged"]
    assert len(kfp_api.asked("(POST|DELETE) .*")) == written


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ({"when": "0 3 * * *"}, "schedule 0 0 2 * * * -> 0 0 3 * * *"),
        ({"when": "every 6h"}, "schedule 0 0 2 * * * -> every 6h"),
        ({**NIGHTLY, "parameters": {"epochs": 5}}, "parameter epochs default -> 5"),
        ({**NIGHTLY, "max_concurrency": 2}, "max_concurrency 1 -> 2"),
        ({**NIGHTLY, "catch_up": True}, "catch_up False -> True"),
    ],
)
def test_what_differs_is_told_and_replaced(kfp_api: KfpServer, folder: Folder, plan: dict[str, Any], told: str) -> None:
    folder.apply(schedules={"nightly": NIGHTLY})
    (old,) = _named(kfp_api, "nightly")
    assert folder.items("--dry-run", schedules={"nightly": plan}) == [f"nightly: would replace ({told})"]
    assert _named(kfp_api, "nightly") == [old]
    assert folder.items(schedules={"nightly": plan}) == [f"nightly: replaced ({told})"]
    (new,) = _named(kfp_api, "nightly")
    assert new.recurring_run_id != old.recurring_run_id
    assert folder.items(schedules={"nightly": plan}) == ["nightly: unchanged"]
    _, create, delete = kfp_api.asked("(POST|DELETE) /recurringruns.*")
    assert (str(create), str(delete)) == ("POST /recurringruns", f"DELETE /recurringruns/{old.recurring_run_id}")
    assert delete.query == {"propagation_policy": "ORPHAN"}  # a run under way goes on


def test_new_content_is_a_new_version_that_pinned_schedules_move_to(kfp_api: KfpServer, folder: Folder) -> None:
    schedules = {"nightly": NIGHTLY, "often": {"when": "every 6h", "follow_latest": True}}
    folder.apply(schedules=schedules)
    (old,) = kfp_api.versions.values()
    dry = folder.apply("--dry-run", code=verbs.changed_pipeline, schedules=schedules)
    assert dry == [
        "version: would upload the present content",
        f"nightly: would replace (version {old.display_name} -> to come)",
        "often: unchanged",
    ]
    assert len(kfp_api.versions) == 1
    lines = folder.apply(code=verbs.changed_pipeline, schedules=schedules)
    new = next(version for version in kfp_api.versions.values() if version is not old)
    assert lines[2] == f"nightly: replaced (version {old.display_name} -> {new.display_name})"
    assert lines[-1] == "often: unchanged"


def test_older_content_is_not_what_schedules_run_that_follow_the_latest(kfp_api: KfpServer, folder: Folder) -> None:
    follows = {"nightly": {**NIGHTLY, "follow_latest": True}}
    folder.apply(schedules=follows)
    folder.apply(code=verbs.changed_pipeline, schedules=follows)
    old, new = sorted(kfp_api.versions.values(), key=lambda version: version.created_at)
    lines = folder.apply(schedules=follows)
    assert lines[0] == f"version: unchanged, {old.display_name}"
    assert lines[2:] == [
        f"  schedules that follow the latest run {new.display_name}, which was uploaded after it",
        "nightly: unchanged",
    ]


def test_an_apply_that_was_cut_off_is_finished_by_the_next(kfp_api: KfpServer, folder: Folder) -> None:
    folder.apply(schedules={"nightly": NIGHTLY})
    later = {"nightly": {"when": "0 3 * * *"}}
    kfp_api.script("DELETE /recurringruns/.*", error(500, "not now"))
    with pytest.raises(UserError, match="not now"):
        folder.apply(schedules=later)
    assert len(_named(kfp_api, "nightly")) == 2
    assert folder.items(schedules=later) == ["nightly: unchanged", "nightly, old: removed"]
    (new,) = _named(kfp_api, "nightly")
    assert new.trigger.cron_schedule.cron == "0 0 3 * * *"


def test_the_old_one_stays_where_the_new_one_is_refused(kfp_api: KfpServer, folder: Folder) -> None:
    folder.apply(schedules={"nightly": NIGHTLY})
    kfp_api.script("POST /recurringruns", error(400, "no such schedule"))
    with pytest.raises(UserError, match="no such schedule"):
        folder.apply(schedules={"nightly": {"when": "0 3 * * *"}})
    assert [item.status for item in _named(kfp_api, "nightly")] == ["ENABLED"]


def test_pausing_and_resuming_replaces_nothing(kfp_api: KfpServer, folder: Folder) -> None:
    folder.apply(schedules={"nightly": NIGHTLY})
    (item,) = _named(kfp_api, "nightly")
    assert folder.items(schedules={"nightly": {**NIGHTLY, "enabled": False}}) == ["nightly: paused"]
    assert item.status == "DISABLED"
    assert folder.items(schedules={"nightly": NIGHTLY}) == ["nightly: resumed"]
    assert item.status == "ENABLED"
    assert _named(kfp_api, "nightly") == [item]


def test_what_the_file_no_longer_names_is_removed_and_what_it_never_named_stays(
    kfp_api: KfpServer, folder: Folder
) -> None:
    run_verb(schedule, "add", "by-hand", "@weekly")
    folder.apply(schedules={"other": NIGHTLY})
    _named(kfp_api, "other")[0].pipeline_version_reference.pipeline_id = "another"
    folder.apply(schedules={"nightly": NIGHTLY, "often": {"when": "every 6h"}})
    remedy = "remove it with `python pipeline.py schedule remove by-hand`"
    left = f"by-hand: left alone (not in the file; {remedy})"
    keys = {"schedules": {"nightly": NIGHTLY}}
    assert folder.items("--dry-run", **keys) == ["nightly: unchanged", "often: would remove", left]
    assert folder.items(**keys) == ["nightly: unchanged", "often: removed", left]
    assert folder.items(**keys) == ["nightly: unchanged", left]
    assert sorted(item.display_name for item in kfp_api.recurring_runs.values()) == ["by-hand", "nightly", "other"]


def test_a_recurring_run_made_by_hand_is_taken_over_by_its_name(kfp_api: KfpServer, folder: Folder) -> None:
    run_verb(schedule, "add", "nightly", "0 2 * * *")
    assert folder.items(schedules={"nightly": NIGHTLY})[0].startswith("nightly: replaced (description")
    assert folder.items() == ["nightly: removed"]


def test_a_name_that_another_pipeline_has_is_refused_before_anything_is_done(
    kfp_api: KfpServer, folder: Folder
) -> None:
    run_verb(schedule, "add", "nightly", "0 2 * * *")
    _named(kfp_api, "nightly")[0].pipeline_version_reference.pipeline_id = "another"
    with pytest.raises(UserError, match="nightly is taken by a recurring run of another pipeline"):
        folder.apply(code=verbs.changed_pipeline, schedules={"nightly": NIGHTLY})
    assert len(kfp_api.versions) == 1


def test_a_dry_run_before_the_first_upload_writes_nothing(kfp_api: KfpServer, folder: Folder) -> None:
    lines = folder.apply("--dry-run", schedules={"nightly": NIGHTLY})
    assert lines == ["version: would upload the present content", "nightly: would create"]
    assert not kfp_api.asked("(POST|DELETE) .*")


def test_the_file_names_the_namespace(kfp_api: KfpServer, folder: Folder) -> None:
    kfp_api.multi_user, kfp_api.namespaces = True, {"team"}
    folder.apply(namespace="team", schedules={"nightly": NIGHTLY})
    assert _named(kfp_api, "nightly")[0].namespace == "team"
    with pytest.raises(UserError, match="--namespace other is not the file's, team"):
        folder.apply("--namespace", "other", namespace="team")


def test_a_namespace_is_refused_where_kfp_has_one_user(kfp_api: KfpServer, folder: Folder) -> None:
    folder.apply(namespace="kubeflow")
    with pytest.raises(UserError, match="namespace team: this KFP has one user, whose runs live in kubeflow"):
        folder.apply(namespace="team")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"schedule": {}}, "unknown key 'schedule'; give pipeline, namespace, parameters, schedules"),
        ({"schedules": []}, "schedules: [] is not accepted; give a mapping"),
        ({"namespace": 3}, "namespace: 3 is not accepted; give a text"),
        ({"pipeline": "another"}, "pipeline: another is none of ours; give torch2kubeflow-training"),
        ({"schedules": {"nightly": "0 2 * * *"}}, "schedules.nightly is no mapping; give when, parameters"),
        ({"schedules": {"nightly": {}}}, "schedules.nightly: when is missing; add it"),
        ({"schedules": {"nightly": {**NIGHTLY, "cron": ""}}}, "schedules.nightly: unknown key 'cron'"),
        ({"schedules": {"nightly": {"when": "0 2 31 2 *"}}}, "schedules.nightly.when: '0 2 31 2 *': day-of-month '31'"),
        ({"schedules": {"nightly": {**NIGHTLY, "enabled": "yes"}}}, "schedules.nightly.enabled: 'yes' is not accepted"),
        ({"schedules": {"nightly": {**NIGHTLY, "max_concurrency": True}}}, "give a whole number from 1 to 10"),
        ({"schedules": {"nightly": {**NIGHTLY, "max_concurrency": 11}}}, "11 is not accepted; give a whole number"),
        (
            {"parameters": {"epoch": 3}, "schedules": {"nightly": NIGHTLY}},
            "schedules.nightly: 'epoch=3' is no parameter",
        ),
        ({"parameters": {"epochs": 2.5}, "schedules": {"nightly": NIGHTLY}}, "epochs=2.5 is of the wrong type"),
        ({"parameters": {"epochs": 0}, "schedules": {"nightly": NIGHTLY}}, "epochs=0 is not accepted; give 1 or more"),
        ({"parameters": {"epochs": None}, "schedules": {"nightly": NIGHTLY}}, "parameter epochs has no value"),
    ],
)
def test_a_wrong_file_is_refused_by_the_key_that_is_wrong(folder: Folder, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        folder.apply(**keys)
    assert str(error.value).startswith(str(folder.file))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pipeline: a\npipeline: b\n", "pipeline is given twice"),
        ("pipeline: a\nschedules: {n: {when: '@daily'}, n: {when: '@hourly'}}\n", "n is given twice"),
        ("pipeline: [", "is no YAML"),
        ("", "is no mapping"),
        ("namespace: a", "pipeline is missing"),
    ],
)
def test_what_is_no_deployment_is_refused(folder: Folder, text: str, said: str) -> None:
    folder.file.write_text(text)
    with pytest.raises(UserError) as error:
        deploy_file.read(folder.file)
    assert said in str(error.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"deploy.yaml cannot be read \(No such file or directory\)"):
        deploy_file.read(tmp_path / "deploy.yaml")
