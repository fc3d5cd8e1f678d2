"""Users without a home or an entry in the system's list, such as OpenShift's, and code that they can only read."""

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.shared.core.errors import UserError
from components.shared.storage.download_cache import cache_folder
from runner.cli import main
from tests.conftest import ROOT
from tests.runner import verbs
from tests.runner.verbs import run_verb
from tests.servers.kfp_server import KfpServer

UID = "54321"
# Another user who may read all files, since this Python may be in a closed folder, but write only their own.
BECOME = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
BECOME += [f"--{kind}=-all,+dac_read_search" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
NAMES = ("HOME", "USER", "LOGNAME", "USERNAME", "XDG_CACHE_HOME", "KUBECONFIG")


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the environment nor the system knows the user's home."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_a_cache_without_a_home_is_refused_in_one_line(no_home: None) -> None:
    with pytest.raises(UserError, match=r"HOME is not set, and .* no entry .*; set XDG_CACHE_HOME to"):
        cache_folder()


def test_verbs_of_a_cluster_need_no_home(
    kfp_api: KfpServer, no_home: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from runner.cluster import run

    assert run_verb(run, "data=digits") == 0
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    with pytest.raises(SystemExit) as stop:
        main(lambda: {"training": verbs.pipeline}, ["status"])
    line = "error: no cluster is known: kubeconfig ~/.kube/config: no such file"
    assert stop.value.code == 2 and capsys.readouterr().err.startswith(line)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can become another user")
def test_a_stranger_runs_code_that_only_its_owner_can_write(tmp_path: Path) -> None:
    for name in ("build", "runs"):  # root's own, if they were not there before
        (ROOT / name).mkdir(exist_ok=True)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, int(UID), int(UID))

    def refusal(*words: str) -> str:
        done = subprocess.run(
            [*BECOME, sys.executable, "pipeline.py", *words],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if name not in NAMES},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        return done.stderr

    assert refusal("compile") == (
        f"error: nothing can be written to {ROOT / 'build'}; give --graph training --output FILE.yaml\n"
    )
    nothing = f"error: nothing can be written to {ROOT / 'runs'}; give another folder with --runs DIR\n"
    assert refusal("local", "data=digits") == refusal("models") == nothing
    failed = refusal("local", "--runs", str(theirs / "runs"), "data=mnist")
    assert failed.startswith("error: download: HOME is not set")
    (folder,) = (theirs / "runs").glob("2*")
    assert (folder / "pipeline.yaml").exists() and (folder / "summary.json").exists()
