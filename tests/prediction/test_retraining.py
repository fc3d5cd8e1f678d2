"""Training again after drift: once for each version of the data, not too often, and only with labels."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from components.shared.core.errors import CorruptDataError, UserError
from components.shared.parameters.registration import RegisterRecipe
from components.shared.prediction.document import PredictionsDocument
from components.shared.prediction.drift import DriftMeasure, DriftReportDocument
from components.shared.prediction.retraining import (
    Claim,
    Retraining,
    RetrainingDocument,
    remark_of,
    retrain_if_drifted,
    settings_of,
)
from components.shared.prediction.training_run import NEXT_RUN, NextRunDocument, Started, Wanted, start_run
from components.shared.registry.document import DataOrigin
from components.shared.storage.client import Store
from tests.small_packages import package_of, provenance_of, version_of

DIGEST, OTHER = "a" * 64, "b" * 64
HOURS = 24.0


def drifted(is_drift: bool = True) -> DriftReportDocument:
    figures = {"psi": 1.0, "psi_low": 0.9, "psi_high": 1.1, "effect": 0.5, "effect_low": 0.4, "effect_high": 0.6}
    measure = DriftMeasure(
        name="brightness",
        test="Kolmogorov-Smirnov",
        p_value=0.0,
        corrected_p_value=0.0,
        is_finding=is_drift,
        **figures,
    )
    return DriftReportDocument(
        model="mnist/1",
        pictures=1000,
        sample=1000,
        reference=1000,
        threshold=0.2,
        significance=0.05,
        not_judged="",
        drifted=is_drift,
        measures=[measure],
    )


def predicted(digest: str = DIGEST, labelled: int = 990) -> PredictionsDocument:
    return PredictionsDocument(
        model="mnist/1",
        package_digest=OTHER,
        data_digest=digest,
        rows=1000,
        errors=10,
        labelled=labelled,
        correct=labelled,
        predicted={"0": 990},
        columns=["source"],
        parts={},
        resumed_at=0,
        seconds={},
    )


class Starts:
    """What starts training runs, and keeps them."""

    def __init__(self) -> None:
        self.wanted: list[Wanted] = []

    def __call__(self, wanted: Wanted) -> Started:
        self.wanted.append(wanted)
        return Started(f"run-{len(self.wanted)}")


@pytest.fixture
def starts() -> Starts:
    return Starts()


@pytest.fixture
def how(store: Store, starts: Starts) -> Retraining:
    return Retraining(
        store=store,
        model="mnist",
        data="s3://bucket/new",
        retrain_data="",
        cooldown=HOURS,
        parameters={"network": "lenet1998"},
        run_id="prediction-1",
        start=starts,
    )


def claims(store: Store) -> list[Claim]:
    return RetrainingDocument.parse(store.get_bytes("retraining/mnist.json")[0], "retraining").claims


def _write(store: Store, state: Any, age: timedelta, digest: str = OTHER) -> None:
    """Write the claim of an earlier prediction."""
    time = (datetime.now(UTC) - age).isoformat()
    run = "run-0" if state == "started" else ""
    old = Claim(data="x", data_version=digest, claimed=time, claimed_by="earlier", state=state, run=run)
    store.put_bytes(RetrainingDocument(claims=[old]).to_json(), "retraining/mnist.json")


def test_drift_of_labelled_data_starts_one_run(how: Retraining, starts: Starts, store: Store, uri: str) -> None:
    assert retrain_if_drifted(drifted(), predicted(), how) == "training run run-1 on s3://bucket/new was started"
    (wanted,), (claim,) = starts.wanted, claims(store)
    assert wanted.name == f"retrain-mnist-{DIGEST[:12]}"
    given = {"data": "s3://bucket/new", "store": uri, "model_name": "mnist"}
    assert wanted.parameters == {"network": "lenet1998", **given}
    assert (claim.state, claim.run, claim.data_version, claim.claimed_by) == (
        "started",
        "run-1",
        DIGEST,
        "prediction-1",
    )
    again = retrain_if_drifted(drifted(), predicted(), how._replace(cooldown=0.0))
    assert again.startswith("no training run: run run-1 was started for the same data, 20") and len(starts.wanted) == 1


def test_without_drift_or_labels_nothing_is_started(how: Retraining, starts: Starts, store: Store) -> None:
    assert retrain_if_drifted(drifted(False), predicted(), how).startswith("no training run: no drift: the largest")
    for labelled in (0, 989):
        found = retrain_if_drifted(drifted(), predicted(labelled=labelled), how)
        labels = f"{labelled} of 990 pictures have a label, and retrain_data names no other data"
        assert found == f"no training run: {labels}"
    assert not starts.wanted and not store.exists("retraining/mnist.json")


def test_other_data_are_claimed_by_their_version(how: Retraining, starts: Starts, store: Store, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more/1.png").write_bytes(b"1")
    how = how._replace(retrain_data=str(tmp_path / "more"), cooldown=0.0)
    found = retrain_if_drifted(drifted(), predicted(labelled=0), how)
    assert found == f"training run run-1 on {tmp_path}/more was started"
    assert "for the same data" in retrain_if_drifted(drifted(), predicted(OTHER, labelled=0), how)
    (tmp_path / "more/2.png").write_bytes(b"2")
    assert "run-2" in retrain_if_drifted(drifted(), predicted(labelled=0), how)
    assert len({claim.data_version for claim in claims(store)} - {DIGEST, OTHER}) == 2


def test_a_cooldown_lies_between_two_runs(how: Retraining, starts: Starts, store: Store) -> None:
    _write(store, "started", timedelta(hours=HOURS - 0.1))
    found = retrain_if_drifted(drifted(), predicted(), how)
    assert found.startswith("no training run: run run-0 was started, 20")
    assert found.endswith(", and the next one may be started 24 hours later") and not starts.wanted
    _write(store, "started", timedelta(hours=HOURS + 0.1))
    assert "run-1" in retrain_if_drifted(drifted(), predicted(), how)
    assert [claim.run for claim in claims(store)] == ["run-0", "run-1"]


def test_a_claim_of_a_killed_process_is_taken_over(how: Retraining, store: Store) -> None:
    _write(store, "claimed", timedelta(minutes=59), DIGEST)
    assert "earlier starts one for the same data" in retrain_if_drifted(drifted(), predicted(), how)
    _write(store, "claimed", timedelta(minutes=61), DIGEST)
    assert "run-1" in retrain_if_drifted(drifted(), predicted(), how)
    assert [claim.run for claim in claims(store)] == ["run-1"]


def test_a_run_that_cannot_be_started_releases_its_claim(how: Retraining, store: Store) -> None:
    def refuse(_: Wanted) -> Started:
        assert claims(store)[0].state == "claimed", "before it is started"
        raise UserError("KFP refuses")

    with pytest.raises(UserError, match="KFP refuses"):
        retrain_if_drifted(drifted(), predicted(), how._replace(start=refuse))
    assert claims(store) == []
    assert "run-1" in retrain_if_drifted(drifted(), predicted(), how)


def test_damaged_claims_are_reported(how: Retraining, starts: Starts, store: Store) -> None:
    store.put_bytes(b"{}", "retraining/mnist.json")
    with pytest.raises(CorruptDataError, match=r"retraining/mnist\.json .*"):
        retrain_if_drifted(drifted(), predicted(), how)
    assert not starts.wanted


PROCESS = """
import os, sys, time
from components.shared.prediction.retraining import Retraining, retrain_if_drifted
from components.shared.prediction.training_run import Started
from components.shared.storage.client import open_store
from tests.prediction.test_retraining import drifted, predicted

def start(wanted):
    time.sleep(1)
    return Started("the run")

store = open_store(os.environ["STORE"], os.environ)
print("ready", flush=True)
sys.stdin.readline()
how = Retraining(store, "mnist", "s3://bucket/new", "", 0.0, {}, str(os.getpid()), start)
print(retrain_if_drifted(drifted(), predicted(), how))
"""


@pytest.mark.slow
@pytest.mark.usefixtures("s3_variables")
def test_of_several_processes_one_starts_a_run(store: Store, uri: str) -> None:
    environment = {**os.environ, "STORE": uri, "PYTHONPATH": os.getcwd()}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for process in started:
        assert process.stdout and process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    *refused, done = sorted(process.communicate()[0].strip() for process in started)
    assert done == "training run the run on s3://bucket/new was started"
    assert all(text.startswith("no training run: ") and "for the same data" in text for text in refused)
    assert len(claims(store)) == 1


def test_a_version_is_trained_again_by_its_own_settings() -> None:
    origin = DataOrigin(name="n", source="s", raw_digest="", parameters={"image_size": 28, "labels": "old.csv"})
    settings = {"network": "resnet18", "epochs": 3, "gone_since": 1}
    given = {"min_accuracy": 0.6, "min_behavior": {"noisy": 0.5}, "keep_samples": False, "deploy": True}
    kept = RegisterRecipe.of(store="s3://bucket/other", model_name="other", threads=3, **given).kept()
    package = package_of(classes=["0"], image_shape=(1, 28, 28))
    made = {"data": origin, "parameters": settings, "seed": 7}
    version = version_of(package, provenance=provenance_of(**made, registration=kept))
    trained = {"network": "resnet18", "image_size": 28, "seed": 7}
    assert settings_of(version) == {**trained, **given} and not remark_of(version)
    older = version_of(package, provenance=provenance_of(**made))
    assert settings_of(older) == trained
    assert remark_of(older).startswith("version 1 does not keep its min_accuracy")


def test_what_is_not_known_of_a_version_is_said(how: Retraining) -> None:
    found = retrain_if_drifted(drifted(), predicted(), how._replace(remark="the defaults count"))
    assert found == "training run run-1 on s3://bucket/new was started; the defaults count"


def test_the_local_runner_is_asked_for_a_run(how: Retraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NEXT_RUN, str(tmp_path / "next-run.json"))
    served = {**how.parameters, "deploy": True, "canary": [50]}
    found = retrain_if_drifted(drifted(), predicted(), how._replace(parameters=served, start=start_run))
    assert found == f"training run retrain-mnist-{DIGEST[:12]} on s3://bucket/new follows this run"
    asked = NextRunDocument.read(tmp_path / "next-run.json").parameters
    assert asked["model_name"] == "mnist" and not {"deploy", "canary"} & asked.keys(), "nothing is served here"
