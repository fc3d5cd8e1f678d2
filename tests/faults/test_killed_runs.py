"""Whole runs with faults: killed processes, lost files, a bad network, keys revoked and buckets deleted in mid-run."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from components.step_table import names_in
from tests.faults.record import IS_SWEEP, MOMENTS, note
from tests.faults.whole_runs import Reference, Run, fail_in_one_line, last_step, wait_until_logged
from tests.servers.s3_server import S3Server, answer, proxy
from tests.step_processes import has_processes, step_processes

pytestmark = pytest.mark.slow

AT_WORK = {"train": r"\[train\] epoch", "export": r"\[export\] tracing"}  # what a step logs in the middle of its work
FIRST_KILLED = ("train", "evaluate", "register")
KILLED = (*FIRST_KILLED, *(name for name in names_in("training") if name not in FIRST_KILLED))  # steps, in turn

ATTEMPTS = 4  # at a moment, each in half the time of the one before: a run may be faster than the reference


def test_retraining_a_version_is_bit_identical(reference: Reference) -> None:
    assert "its weights are bit-identical" in reference.run.verb("verify", "digits/1", "--retrain")


@pytest.mark.parametrize("number", range(MOMENTS))
def test_a_killed_run_resumes_to_the_same_model(
    tmp_path: Path, server: S3Server, reference: Reference, number: int
) -> None:
    chance = random.Random(number)
    what, are_files_lost = ("step", "run")[(number + number // 2) % 2], number % 2 == 1
    step = KILLED[(number // 2 + number // 16) % len(KILLED)]
    share = chance.uniform(0.03, 0.95)
    for attempt in range(ATTEMPTS):
        run = Run(tmp_path / str(attempt), f"killed-{number}-{attempt}", server)
        child, started = run.start(), time.monotonic()
        if what == "run":
            time.sleep(share * reference.seconds)
            os.kill(child.pid, signal.SIGKILL)
        else:
            _kill_step(child, run.runs, step, 0.8 * share * reference.steps[step])
        after = round(time.monotonic() - started, 1)
        child.communicate(timeout=600)
        if child.returncode:
            break
        assert run.read("model/model.json")["weights_sha256"] == reference.digest, "it was over before, so it is whole"
        share /= 2  # it was faster than the reference
    assert child.returncode == (-signal.SIGKILL if what == "run" else 1)
    _wait_until_gone(run.runs)
    reached = last_step(run.runs)
    if are_files_lost:
        shutil.rmtree(run.runs)
    started = time.monotonic()
    assert run.finish() == reference.digest
    again = round(time.monotonic() - started, 1)
    run.check_store()
    note("kill", killed=what, after_seconds=after, **{"in": reached}, files_lost=are_files_lost, again_seconds=again)


def test_a_bad_network_loses_and_duplicates_nothing(tmp_path: Path, server: S3Server, reference: Reference) -> None:
    with proxy(server.address) as bad_network:
        bad_network.rate = 0.3  # a run sends some forty requests
        run = Run(tmp_path, "bad-network", server, bad_network.url)
        assert run.finish("handover_mib=0") == reference.digest
        assert bad_network.dealt.total() >= len(bad_network.asked) / 10 >= 3
        assert len(bad_network.dealt) >= 3, "kinds of faults"
    run.check_store()
    note("bad network", requests=len(bad_network.asked), faults=bad_network.dealt.total())


@pytest.mark.parametrize("step", ["train", "export"] if IS_SWEEP else ["train"])
def test_a_run_resumes_after_its_keys_were_revoked(
    tmp_path: Path, server: S3Server, reference: Reference, step: str
) -> None:
    with proxy(server.address) as network:
        run = Run(tmp_path, f"revoked-{step}", server, network.url)
        child = run.start()
        wait_until_logged(run.runs, AT_WORK[step])
        network.always = answer(403, "InvalidAccessKeyId")
        fail_in_one_line(child, "register", "the access key is not known")
        assert (run.runs / "latest" / "package" / "model.onnx").is_file(), "local results are not lost"
        network.always = None
        assert run.finish() == reference.digest
        assert {run.read("summary.json")["steps"][name]["state"] for name in ("train", "export")} == {"cached"}
    run.check_store()
    note("keys revoked", **{"in": step})


def test_a_run_resumes_after_its_bucket_was_deleted(tmp_path: Path, server: S3Server, reference: Reference) -> None:
    server.client.make_bucket("gone")
    run = Run(tmp_path, "", server, bucket="gone")
    child = run.start()
    wait_until_logged(run.runs, AT_WORK["export"])
    run.store.remove(*(entry.name for entry in run.store.list()))
    server.client.remove_bucket("gone")
    fail_in_one_line(child, "register", "there is no such bucket")
    server.client.make_bucket("gone")
    assert run.finish() == reference.digest
    register = json.loads(run.store.get_bytes("models/digits/register.json")[0])
    assert (register["champion"], len(register["versions"])) == (1, 1)
    note("bucket deleted", **{"in": "export"})


def _kill_step(child: subprocess.Popen[str], runs: Path, step: str, after: float) -> None:
    """Kill the process of a step some seconds after its start, or that of a later step if it has ended by then.

    If all have ended, nothing is killed.
    """
    while process := _wait_for_step(child, runs, step):
        time.sleep(after)
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            step, after = "", 0
        else:
            return


def _wait_for_step(child: subprocess.Popen[str], runs: Path, step: str) -> int | None:
    """Wait for the process of a step, or of any if `step` is empty, and return its id; None if the run is over."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if found := step_processes(runs, step):
            return found[0]
        if child.poll() is not None:
            return None
        time.sleep(0.01)
    raise AssertionError(f"no step {step} runs")


def _wait_until_gone(runs: Path) -> None:
    """Wait until no process works in the folder."""
    deadline = time.monotonic() + 300
    while has_processes(runs):
        assert time.monotonic() < deadline, "a step outlives its run"
        time.sleep(0.1)
