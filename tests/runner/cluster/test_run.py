"""Verb `run` against a server of KFP's API."""

import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

import pipeline
from components.shared.core.errors import TransientError, UserError
from components.shared.core.log import EVENT
from components.step_table import names_in
from runner.cli import main
from runner.cluster import rest, run, upload
from runner.cluster.watch import watch
from runner.summary import collect
from tests.runner.tokens import jwt
from tests.runner.verbs import changed_pipeline, run_verb
from tests.servers.kfp_http import cut, error, lost
from tests.servers.kfp_messages import Request
from tests.servers.kfp_server import OMITTED, KfpServer, Stage, node_id, pod_name

ORDER = names_in("training")
# Lines that follow a step's own in the log of its pod.
LAUNCHER = """\
F1124 10:20:30.123456      21 main.go:56] failed to execute component: exit status 1
time="2026-11-24T10:20:30.200Z" level=info msg="sub-process exited" argo=true error="<nil>"
Error: exit status 1
"""
TRACEBACK = "Traceback (most recent call last):"
VERDICT = EVENT + json.dumps({"event": "verdict", "accuracy": 0.9876, "accepted": True, "reasons": []}) + "\n"


def reported(error: UserError) -> str:
    """Return what a step prints that ends with an error."""
    event = EVENT + json.dumps({"event": "error", **error.to_json()})
    return f"{event}\nTraceback\ncomponents.shared.core.errors.{type(error).__name__}: {error}\n{LAUNCHER}"


def tasks(**states: str) -> dict[str, str]:
    """Return what KFP lists for steps in these states: drivers, groups and pods, too."""
    group = next((state for state in ("RUNNING", "FAILED") if state in states.values()), "SUCCEEDED")
    listed = {"root-driver": "SUCCEEDED", "root": group, "exit-handler-1": group}
    for step, state in states.items():
        listed |= {f"{step}-driver": "SUCCEEDED", step: "SUCCEEDED" if state == "cached" else state}
        listed[f"executor#{step}"] = "SKIPPED" if state == "cached" else state
    return listed


ALL_DONE = tasks(**dict.fromkeys(ORDER, "SUCCEEDED"))


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(rest, "RETRIES", rest.RETRIES.new(backoff_factor=0, backoff_jitter=0))


def wait(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Return exit code and summary of `run --wait`."""
    code = run_verb(run, *words, "--wait", "--runs", str(folder / "runs"))
    (path,) = (folder / "runs").glob("*/summary.json")
    return code, json.loads(path.read_text())


def test_a_run_has_the_present_code_and_its_parameters(kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb(run, "epochs=5", 'node_selector={"disk": "ssd"}', "--pipeline-root", "s3://bucket/runs") == 0
    (version,), (started,) = kfp_api.versions.values(), kfp_api.runs.values()
    assert started.pipeline_version_reference.pipeline_version_id == version.pipeline_version_id
    assert started.runtime_config.parameters == {"epochs": 5, "node_selector": {"disk": "ssd"}}
    root = version.pipeline_spec["root"]
    assert root["inputDefinitions"]["parameters"]["data"]["defaultValue"] == "mnist", "KFP takes the others from there"
    assert started.runtime_config.pipeline_root == "s3://bucket/runs"
    assert kfp_api.experiments[started.experiment_id].display_name == "torch2kubeflow"
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [
        f"started run {started.display_name}: {started.run_id}",
        f"{kfp_api.url}/#/runs/details/{started.run_id}",
    ]


def test_a_run_takes_options_by_flat_names_and_reports_them_so(kfp_api: KfpServer, tmp_path: Path) -> None:
    kfp_api.plan = [Stage("SUCCEEDED", ALL_DONE)]
    words = ["epochs=5", "optimizer=adamw", "mixup=0.2", "gpus=1", "--wait", "--runs", str(tmp_path)]
    assert run_verb(run, *words, pipeline=pipeline.training) == 0
    (started,) = kfp_api.runs.values()
    own, options = {"epochs": 5, "gpus": "1"}, {"optimizer": "adamw", "mixup": 0.2}
    assert started.runtime_config.parameters == {**own, "options": options}
    document = json.loads((tmp_path / started.run_id / "summary.json").read_text())
    assert document["parameters"].items() >= {**own, **options}.items()
    assert "options" not in document["parameters"]


def test_waiting_writes_the_summary_of_a_local_run(
    kfp_api: KfpServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kfp_api.plan = [
        Stage("PENDING"),
        Stage("RUNNING", tasks(resolve="RUNNING")),
        Stage("RUNNING", tasks(resolve="SUCCEEDED", download="RUNNING")),
        Stage("SUCCEEDED", ALL_DONE),
    ]
    kfp_api.logs[pod_name("executor#evaluate")] = VERDICT
    code, document = wait(tmp_path, "epochs=1")
    assert code == 0
    assert document.keys() == collect("", tmp_path, 0.0, "done", {}, {}, {}, None).fields().keys()
    assert document["state"] == "done"
    own = {step: 7.0 if step in ("resolve", "finish") else 5.0 for step in ORDER}  # without Argo's interval of 10 s
    assert document["steps"] == {step: {"state": "done", "seconds": own[step]} for step in ORDER}
    assert document["parameters"]["epochs"] == 1
    assert (document["test_accuracy"], document["accepted"], document["reasons"]) == (0.9876, True, [])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if line.startswith(("resolve", "download"))][:4] == [
        ["resolve", "running"],
        ["resolve", "done", "in", "7", "s"],
        ["download", "running"],
        ["download", "done", "in", "5", "s"],
    ]
    assert "test accuracy  98.76%" in lines


def test_steps_from_the_cache_and_a_model_that_is_not_accepted(kfp_api: KfpServer, tmp_path: Path) -> None:
    states = dict.fromkeys(ORDER, "cached") | {"resolve": "SUCCEEDED", "evaluate": "SUCCEEDED", "finish": "SUCCEEDED"}
    states |= {"export": "SUCCEEDED", "register": "SUCCEEDED"}
    kfp_api.plan = [Stage("SUCCEEDED", tasks(**states))]
    kfp_api.logs[pod_name("executor#evaluate")] = EVENT + json.dumps(
        {"event": "verdict", "accuracy": 0.095, "accepted": False, "reasons": ["too low", "class 3 is weak"]}
    )
    code, document = wait(tmp_path)
    assert code == 0
    assert {name: step["state"] for name, step in document["steps"].items()} == {
        **dict.fromkeys(ORDER, "cached"),
        **dict.fromkeys(("resolve", "evaluate", "export", "register", "finish"), "done"),
    }
    assert document["accepted"] is False
    assert document["reasons"] == ["too low", "class 3 is weak"]


def test_without_the_log_the_accuracy_is_unknown(
    kfp_api: KfpServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kfp_api.plan = [Stage("SUCCEEDED", ALL_DONE)]
    code, document = wait(tmp_path)
    assert code == 0
    assert (document["test_accuracy"], document["accepted"], document["reasons"]) == (None, None, None)
    assert "test accuracy  not known" in capsys.readouterr().out


def test_a_failed_run_shows_step_error_and_log(
    kfp_api: KfpServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kfp_api.plan = [Stage("FAILED", tasks(resolve="SUCCEEDED", train="FAILED", finish="SUCCEEDED"))]
    kfp_api.logs[node_id("executor#train")] = f"epoch 1\n{TRACEBACK}\nRuntimeError: CUDA out of memory\n" + LAUNCHER
    code, document = wait(tmp_path)
    assert code == 1
    assert (document["state"], document["steps"]["train"]["state"]) == ("failed", "failed")
    assert document["error"] == "RuntimeError: CUDA out of memory"
    assert document["accepted"] is None
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == [TRACEBACK, "RuntimeError: CUDA out of memory"]
    assert lines[2] == "error: train failed: RuntimeError: CUDA out of memory"
    assert lines[3].startswith(kfp_api.url)


def test_a_user_error_is_one_line_and_is_not_retried(
    kfp_api: KfpServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kfp_api.plan = [Stage("FAILED", tasks(resolve="FAILED"))]
    kfp_api.logs[pod_name("executor#resolve")] = reported(UserError("gpus=lots is not accepted", "give a number"))
    code, document = wait(tmp_path, "--retries", "3")
    assert code == 2
    assert document["error"] == "gpus=lots is not accepted; give a number"
    assert capsys.readouterr().err.splitlines()[0] == "error: resolve failed: gpus=lots is not accepted; give a number"
    assert not kfp_api.asked("POST .*:retry")


def test_a_transient_error_is_retried(kfp_api: KfpServer, tmp_path: Path) -> None:
    kfp_api.plan = [Stage("FAILED", tasks(download="FAILED"))]
    kfp_api.logs[pod_name("executor#download")] = reported(TransientError("the server answered 503", "try again later"))
    kfp_api.plan_of_retry = [Stage("SUCCEEDED", tasks())]
    code, _ = wait(tmp_path, "--retries", "3")
    assert code == 0
    assert len(kfp_api.asked("POST .*:retry")) == 1


def test_a_driver_that_fails_is_its_steps_failure(
    kfp_api: KfpServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kfp_api.plan = [Stage("FAILED", {"resolve": "SUCCEEDED", "download-driver": "FAILED", "download": "SKIPPED"})]
    code, document = wait(tmp_path)
    assert (code, document["steps"]["download"]["state"]) == (1, "failed")
    assert "error: download failed: its log cannot be read from here" in capsys.readouterr().err


def test_steps_that_did_not_start_are_skipped(kfp_api: KfpServer, tmp_path: Path) -> None:
    omitted = {"evaluate-driver": OMITTED, "evaluate": OMITTED, "export-driver": OMITTED}
    kfp_api.plan = [Stage("FAILED", tasks(resolve="SUCCEEDED", train="FAILED") | omitted)]
    _, document = wait(tmp_path)
    states = [document["steps"][step] for step in ("evaluate", "export")]
    assert states == [{"state": "skipped", "seconds": 0.0}] * 2


def test_the_log_of_the_last_attempt_counts(kfp_api: KfpServer, tmp_path: Path) -> None:
    attempts = {"executor(0)#train": "FAILED", "executor(1)#train": "FAILED"}
    kfp_api.plan = [Stage("FAILED", tasks(train="FAILED") | attempts)]
    for attempt in attempts:
        kfp_api.logs[pod_name(attempt)] = f"error of {attempt}"
    assert wait(tmp_path)[1]["error"] == "error of executor(1)#train"


def test_a_canceled_run_ends_the_wait(kfp_api: KfpServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut_off = tasks(resolve="SUCCEEDED", train="FAILED") | {"evaluate-driver": OMITTED, "evaluate": OMITTED}
    kfp_api.plan = [Stage("RUNNING", tasks(train="RUNNING")), Stage("CANCELING"), Stage("FAILED", cut_off)]
    code, document = wait(tmp_path, "--retries", "3")
    assert (code, document["state"], document["error"]) == (3, "canceled", None)
    assert {name: step["state"] for name, step in document["steps"].items()} == {
        **dict.fromkeys(ORDER, "skipped"),
        "resolve": "done",
        "train": "canceled",
    }
    assert "error: the run was canceled" in capsys.readouterr().err


def test_a_failed_run_is_retried_as_often_as_allowed(kfp_api: KfpServer, tmp_path: Path) -> None:
    kfp_api.plan = [Stage("FAILED", tasks(resolve="SUCCEEDED", train="FAILED"))]
    kfp_api.plan_of_retry = [Stage("RUNNING", tasks(train="RUNNING")), Stage("SUCCEEDED", ALL_DONE)]
    assert wait(tmp_path, "--retries", "1")[0] == 0
    assert len(kfp_api.asked("POST .*:retry")) == 1


def test_retries_end(kfp_api: KfpServer, tmp_path: Path) -> None:
    kfp_api.plan = kfp_api.plan_of_retry = [Stage("FAILED", tasks(train="FAILED"))]
    assert wait(tmp_path, "--retries", "2")[0] == 1
    assert len(kfp_api.asked("POST .*:retry")) == 2


def test_waiting_continues_while_the_server_is_down(kfp_api: KfpServer, tmp_path: Path) -> None:
    kfp_api.plan = [Stage("RUNNING"), Stage("SUCCEEDED", ALL_DONE)]
    kfp_api.script("GET /runs/.*", *[cut] * 6)
    assert wait(tmp_path)[0] == 0


def test_a_token_of_the_environment_that_expires_ends_the_wait(
    kfp_api: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KFP_EXISTING_TOKEN", jwt(-7300))
    kfp_api.plan = [Stage("RUNNING")]
    kfp_api.script("GET /runs/.*", error(401))
    with pytest.raises(SystemExit) as ended:
        main(lambda: pipeline.GRAPHS, ["run", "--graph", "training", "--wait", "--runs", str(tmp_path)])
    (run_id,) = kfp_api.runs
    assert ended.value.code == 2 and kfp_api.runs[run_id].state == "RUNNING"
    goes_on, why = capsys.readouterr().err.splitlines()[-2:]
    assert goes_on == f"the run continues; see `python pipeline.py status {run_id}`"
    assert why.endswith(
        "(401): the token expired 2 hours ago; give --token-file or --cookie-file, which are read again: "
        "a variable cannot be renewed meanwhile"
    )
    assert not list(tmp_path.glob("*/summary.json")), "the run has not failed"


@pytest.mark.parametrize(("option", "header"), [("--token-file", "token"), ("--cookie-file", "cookie")])
def test_waiting_goes_on_once_expired_credentials_are_renewed(
    kfp_api: KfpServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, header: str
) -> None:
    def renewed(handler: Any, request: Request) -> None:
        file.write_text("new")
        error(401)(handler, request)

    file = tmp_path / "secret"
    file.write_text("old")
    setattr(kfp_api, header, "old")
    kfp_api.plan = [Stage("RUNNING"), Stage("SUCCEEDED", ALL_DONE)]

    def expired(handler: Any, request: Request) -> None:
        setattr(kfp_api, header, "new")
        error(401)(handler, request)

    kfp_api.script("GET /runs/.*", expired, error(401), renewed)
    assert wait(tmp_path, option, str(file))[0] == 0
    assert capsys.readouterr().err.count("expired; give a new token") == 1


@pytest.mark.parametrize(("answer", "code", "state"), [("y\n", 3, "FAILED"), ("\n", 130, "RUNNING")])
def test_ctrl_c_asks_whether_to_terminate(
    kfp_api: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, state: str
) -> None:
    kfp_api.plan = [Stage("RUNNING")]
    kfp_api.script("GET /runs/.*", _interrupting)
    monkeypatch.setattr(sys, "stdin", _Keyboard(answer))
    assert run_verb(run, "--wait", "--runs", str(tmp_path)) == code
    (started,) = kfp_api.runs.values()
    assert started.state == state


def test_ctrl_c_without_a_terminal_does_not_terminate(
    kfp_api: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kfp_api.plan = [Stage("RUNNING")]
    kfp_api.script("GET /runs/.*", _interrupting)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert run_verb(run, "--wait", "--runs", str(tmp_path)) == 130
    assert "the run continues; see `python pipeline.py status" in capsys.readouterr().out
    assert not kfp_api.asked("POST .*:terminate")


@pytest.mark.parametrize(("route", "code"), [("GET .*/log", 1), ("POST .*:retry", 3)])
def test_ctrl_c_asks_also_while_a_failure_is_read(
    kfp_api: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, route: str, code: int
) -> None:
    kfp_api.plan = kfp_api.plan_of_retry = [Stage("FAILED", tasks(train="FAILED"))]
    kfp_api.script(route, _interrupting)
    monkeypatch.setattr(sys, "stdin", _Keyboard("y\n"))
    assert wait(tmp_path, "--retries", "2")[0] == code  # a run that has ended cannot be terminated
    assert len(kfp_api.asked("POST .*:terminate")) == 1
    assert len(kfp_api.asked("POST .*:retry")) == (route == "POST .*:retry")


def test_ctrl_c_asks_also_in_the_pause_after_a_retry(
    kfp_api: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kfp_api.plan, kfp_api.plan_of_retry = [Stage("FAILED", tasks(train="FAILED"))], [Stage("RUNNING")]
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("runner.cluster.watch.watch.time.sleep", pause)
    monkeypatch.setattr(sys, "stdin", _Keyboard("y\n"))
    code, document = wait(tmp_path, "--retries", "1")
    assert (code, document["state"]) == (3, "canceled")


def test_an_unconfirmed_run_is_not_created_twice(kfp_api: KfpServer) -> None:
    kfp_api.script("POST /runs", lost)
    assert run_verb(run) == 0
    assert len(kfp_api.runs) == 1


def test_an_uploaded_version_is_run_with_its_own_parameters(kfp_api: KfpServer) -> None:
    run_verb(upload, pipeline=changed_pipeline)
    (version,) = kfp_api.versions.values()
    assert run_verb(run, "--version", version.display_name, "batch_size=64") == 0
    (started,) = kfp_api.runs.values()
    assert started.runtime_config.parameters == {"batch_size": "64"}
    with pytest.raises(UserError, match=r"'epochs=4' is not a parameter; .*batch_size"):
        run_verb(run, "--version", version.display_name, "epochs=4")


def test_user_errors_start_and_upload_nothing(kfp_api: KfpServer) -> None:
    with pytest.raises(UserError, match=r"epochs=many has the wrong type"):
        run_verb(run, "epochs=many")
    with pytest.raises(UserError, match="is not uploaded"):
        run_verb(run, "--version", "v1")
    assert not kfp_api.asked("POST .*")
    run_verb(upload)
    with pytest.raises(UserError, match="has no version v1; the newest are: "):
        run_verb(run, "--version", "v1")


def test_nothing_starts_if_its_summary_could_not_be_written(kfp_api: KfpServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"nothing can be written to .*/file; give another folder with --runs DIR"):
        run_verb(run, "--wait", "--runs", str(tmp_path / "file"))
    assert not kfp_api.runs


def test_a_refusal_of_the_server_is_reported(kfp_api: KfpServer) -> None:
    kfp_api.script("POST /runs", error(400, "parameter(s) provided are not required by pipeline: x"))
    with pytest.raises(UserError, match=r"refuses POST /apis/v2beta1/runs \(400\): parameter"):
        run_verb(run)


class _Keyboard:
    """A terminal at which one line is typed."""

    def __init__(self, line: str) -> None:
        self.line = line

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return self.line


def _interrupting(handler: Any, request: Request) -> None:
    """Press Ctrl-C, then answer."""
    os.kill(os.getpid(), signal.SIGINT)
    handler.serve(request)
