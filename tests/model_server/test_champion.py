"""The switch to a new champion, with a real store."""

import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import pytest

from components.shared.core.errors import UserError
from components.shared.model_server.champion import Champion
from components.shared.model_server.program import open_version
from components.shared.registry.registry import RegisteredModel
from components.shared.registry.versions import Versions
from components.shared.storage.client import Store
from tests.model_server.running_server import INFER, NAME, SHAPE, Answer, ask, binary, floats, head, served
from tests.prediction.programs import register_package, write_package

IMAGES = np.random.default_rng(5).integers(100, 256, (2, *SHAPE), np.uint8)
POLL = 0.05


@pytest.fixture
def model(store: Store, tmp_path: Path) -> RegisteredModel:
    """A model with two versions, of which the first is the champion."""
    for number in (1, 2):
        write_package(tmp_path / str(number), SHAPE, slope=number / 50)
        register_package(store, tmp_path / str(number), NAME, wins=number == 1)
    return RegisteredModel(store, NAME)


def _until(is_so: Callable[[], bool]) -> None:
    end = monotonic() + 20
    while not is_so():
        assert monotonic() < end
        sleep(0.02)


def _version(answer: Answer) -> str:
    return str(head(answer)["model_version"])


@pytest.mark.slow
def test_a_new_champion_takes_over_and_no_request_is_lost(model: RegisteredModel) -> None:
    wanted = {str(number): open_version(model, number, 1).classify(IMAGES) for number in (1, 2)}
    assert np.abs(wanted["1"] - wanted["2"]).max() > 0.01
    answers: list[Answer] = []
    body, headers = binary(IMAGES)
    with served(Champion(model, 1), poll=POLL, max_delay=0) as address:

        def load() -> None:
            for _ in range(250):
                answers.append(ask(address, INFER, body, **headers))

        clients = [threading.Thread(target=load) for _ in range(8)]
        for client in clients:
            client.start()
        _until(lambda: len(answers) > 200)
        model.promote(2)
        for client in clients:
            client.join()
        _until(lambda: ask(address, f"/v2/models/{NAME}").json["versions"] == ["2"])
        answers.append(ask(address, INFER, body, **headers))
    assert len(answers) == 2001 and {answer.status for answer in answers} == {200}
    assert all(np.allclose(floats(answer), wanted[_version(answer)]) for answer in answers)
    assert {_version(answer) for answer in answers} == {"1", "2"}


@pytest.mark.slow
def test_a_champion_that_cannot_be_opened_does_not_serve(
    model: RegisteredModel, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    download = Versions.download
    with served(Champion(model, 1), poll=POLL) as address:
        with monkeypatch.context() as patch:
            patch.setattr(Versions, "download", _broken)
            model.promote(2)
            _until(lambda: b"serve_failed_switches_total 0.0" not in ask(address, "/metrics").content)
            assert ask(address, f"/v2/models/{NAME}").json["versions"] == ["1"]
        assert Versions.download == download
        _until(lambda: ask(address, f"/v2/models/{NAME}").json["versions"] == ["2"])
    lines = capfd.readouterr().out.splitlines()
    assert [line for line in lines if "version 1 serves on: the file is gone" in line] == lines[:1]
    assert "[log] version 2 is the champion now, and replaces version 1" in lines


def _broken(*_arguments: object) -> None:
    raise UserError("the file is gone")


def test_the_registry_is_read_only_when_it_has_changed(model: RegisteredModel, monkeypatch: pytest.MonkeyPatch) -> None:
    champion = Champion(model, 1)
    monkeypatch.setattr(RegisteredModel, "read", lambda _: pytest.fail("it was read"))
    assert champion._find() is None


def test_a_model_without_champion_is_refused(store: Store, tmp_path: Path) -> None:
    write_package(tmp_path / "package")
    register_package(store, tmp_path / "package", NAME, wins=False)
    with pytest.raises(UserError, match=f"{NAME} has no champion; give --model {NAME}/VERSION, or promote one"):
        Champion(RegisteredModel(store, NAME), 1)
