"""The server of KFP's API, held to what KFP 2.17 answered: which tasks a run has, their fields and their times."""

import re
from typing import Any

from runner.cluster import run
from tests.runner.verbs import run_verb
from tests.servers.kfp_messages import Request, to_json
from tests.servers.kfp_server import OMITTED, KfpServer, Stage
from tests.servers.recorded_cluster import ended_run, run_of

ANY = Request("GET", "", {}, {}, b"")
STEPS = ("resolve", "download", "train", "evaluate")


def read(kfp_api: KfpServer, state: str, **states: str) -> dict[str, Any]:
    """Return a run of the server as it answers it, with steps in these states."""
    tasks = {"root": state}
    for step, one in states.items():
        tasks |= {f"{step}-driver": "SUCCEEDED", step: one, f"executor#{step}": one}
    kfp_api.plan = [Stage("RUNNING", tasks), Stage(state, tasks)]
    run_verb(run)
    (run_id,) = kfp_api.runs
    return dict(to_json(kfp_api.get_run(ANY, run_id)))


def kinds(answer: dict[str, Any]) -> set[tuple[str, ...]]:
    """Return which fields entries of a kind have: executors, their attempts, the launcher's entries."""
    found = set()
    for task in answer["run_details"]["task_details"]:
        name = re.sub(r"\d", "0", task.get("display_name", "of the launcher"))
        known = {"state", "execution_id", "end_time", "start_time", "task_id"} & task.keys()
        if name in ("executor", "executor(0)", "of the launcher"):
            found.add((name, *sorted(known)))
    return found


def test_a_finished_run_lists_what_kfp_lists(kfp_api: KfpServer) -> None:
    ours = read(kfp_api, "SUCCEEDED", **dict.fromkeys(STEPS, "SUCCEEDED"))
    assert kinds(ours) == kinds(to_json(ended_run()))
    assert [one["state"] for one in ours["state_history"]] == ["PENDING", "RUNNING", "SUCCEEDED"]
    launched = [task for task in ours["run_details"]["task_details"] if "display_name" not in task]
    assert len(launched) == len(STEPS) - 1, "none of resolve, which is never cached"


def test_what_goes_on_has_no_end(kfp_api: KfpServer) -> None:
    theirs, ours = to_json(run_of("unschedulable")), read(kfp_api, "RUNNING", train="PENDING")
    for answer in (theirs, ours):
        ends = {
            t["end_time"] for t in answer["run_details"]["task_details"] if t.get("state") in ("RUNNING", "PENDING")
        }
        assert ends == {"0001-01-01T00:00:00Z"}
        assert answer["finished_at"] == "1970-01-01T00:00:00Z"


def test_a_task_that_was_not_reached_has_no_state(kfp_api: KfpServer) -> None:
    theirs = to_json(run_of("killed"))["run_details"]["task_details"]
    ours = read(kfp_api, "FAILED", train="FAILED", evaluate=OMITTED)["run_details"]["task_details"]
    for tasks in (theirs, ours):
        (task,) = [task for task in tasks if task.get("display_name") == "evaluate"]
        assert "state" not in task and task["end_time"] == task["start_time"]


def test_a_terminated_run_fails_after_canceling(kfp_api: KfpServer) -> None:
    read(kfp_api, "RUNNING", train="RUNNING")
    (run_id,) = kfp_api.runs
    kfp_api.terminate_run(ANY, run_id)
    kfp_api.get_run(ANY, run_id)
    ours = kfp_api.get_run(ANY, run_id)
    theirs = run_of("stopped")
    assert [one.state for one in theirs.state_history][-2:] == [one.state for one in ours.state_history][-2:]
    assert (ours.state, theirs.state) == ("FAILED", "FAILED")
