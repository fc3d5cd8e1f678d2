"""The step compare: pytest tests/steps/test_compare.py"""

import json
from pathlib import Path
from typing import Any

import pytest

from components.compare import compare
from components.shared.core.errors import UserError
from components.shared.models.document import ModelDocument
from components.shared.storage.client import open_store
from components.shared.training.search.outcome import keep_best_weights, write_outcome
from tests.evaluation.page import Page, assert_self_contained
from tests.models.documents import LENET, epoch, facts, history
from tests.servers.s3_server import BUCKET, S3Server

HOSTILE = "<script>alert(1)</script>"
REASON = "12.00% validation accuracy up to epoch 1 is not among the best 1/3 of 4 trials"


def write_trial(folder: Path, *epochs: tuple[float, float], stopped: str = "", **settings: Any) -> Path:
    """Write the folder of a trial, named by its number, with epochs of these accuracies and losses on the val split."""
    folder.mkdir(parents=True)
    rows = [epoch(n, val_accuracy=a, val_loss=loss) for n, (a, loss) in enumerate(epochs, 1)]
    best = max(rows, key=lambda row: (row.val_accuracy, -row.val_loss))
    whole = history(*rows, best_epoch=best.epoch, stopped=stopped, checkpoints=[6, 7], seconds={"train": 2.0})
    whole.write(folder / "history.json")
    document = ModelDocument(**facts(LENET, checkpoint_key=key_of(folder)), weights_sha256="f" * 64)
    document.sealed().write(folder / "model.json")
    (folder / "model.safetensors").write_bytes(folder.name.encode())
    write_outcome(folder, int(folder.name), settings, None)
    return folder


def key_of(folder: Path) -> str:
    return f"{int(folder.name):064x}"


def write_failed(folder: Path, error: str, **settings: Any) -> Path:
    folder.mkdir(parents=True)
    write_outcome(folder, int(folder.name), settings, UserError(error))
    return folder


def compared(tmp_path: Path, *trials: Path, store: str = "") -> tuple[dict[str, Any], str, bytes]:
    """Return `comparison.json`, the page, and the weights of the best model, by the folders of some trials."""
    outputs = {name: tmp_path / "out" / name for name in ("model", "comparison", "sweep")}
    pods = list(dict.fromkeys(trial.parent for trial in trials))
    compare(trials=pods, store=store, **outputs)
    document = json.loads((outputs["comparison"] / "comparison.json").read_text())
    return document, outputs["sweep"].read_text(), (outputs["model"] / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("second", "best"),
    [
        ([(0.5, 0.1), (0.91, 2.0)], 2),  # the higher accuracy, whatever the loss
        ([(0.9, 0.2), (0.5, 0.1)], 2),  # equal accuracy, the lower loss of the best epoch
        ([(0.9, 0.3)], 1),  # equal in both: the first
        ([(0.9, 0.4), (0.2, 0.1)], 1),
    ],
)
def test_the_best_has_the_highest_accuracy_or_the_lower_loss(
    tmp_path: Path, second: list[tuple[float, float]], best: int
) -> None:
    first = write_trial(tmp_path / "a" / "1", (0.9, 0.3), (0.8, 0.2))
    document, page, weights = compared(tmp_path, first, write_trial(tmp_path / "b" / "2", *second))
    assert document["best"] == best
    assert weights == str(best).encode()
    assert f"Trial {best} is the best" in Page(page).text


def test_trials_have_the_order_of_their_numbers_in_any_pods(tmp_path: Path) -> None:
    numbers = {"a": (1, 4, 10), "b": (2, 11), "c": (3,)}
    trials = [write_trial(tmp_path / pod / str(n), (0.9, 0.3), epochs=n) for pod in "cba" for n in numbers[pod]]
    document, _, weights = compared(tmp_path, *trials)
    assert [row["number"] for row in document["trials"]] == [1, 2, 3, 4, 10, 11]
    assert [row["settings"]["epochs"] for row in document["trials"]] == [1, 2, 3, 4, 10, 11]
    assert (document["best"], weights) == (1, b"1"), "of equals the first"


def test_a_pod_keeps_the_weights_that_may_be_the_best(tmp_path: Path) -> None:
    scores = {"a/1": (0.5, 0.3), "a/3": (0.9, 0.3), "a/5": (0.9, 0.3), "b/2": (0.9, 0.3), "b/4": (0.9, 0.2)}
    trials = [write_trial(tmp_path / name, score) for name, score in scores.items()]
    write_failed(tmp_path / "b" / "6", "the loss became nan")
    for pod in ("a", "b"):
        keep_best_weights(tmp_path / pod)
    left = sorted(str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("*.safetensors"))
    assert left == ["a/3", "b/4"], "of equals in a pod the first"
    document, _, weights = compared(tmp_path, *trials)
    assert (document["best"], weights) == (4, b"4")


def test_the_best_model_is_copied_whole(tmp_path: Path) -> None:
    trial = write_trial(tmp_path / "a" / "1", (0.9, 0.3))
    compared(tmp_path, trial)
    for path in trial.iterdir():
        assert (tmp_path / "out" / "model" / path.name).read_bytes() == path.read_bytes()


def test_stopped_and_failed_trials_are_reported(tmp_path: Path) -> None:
    document, html, _ = compared(
        tmp_path,
        write_failed(tmp_path / "a" / "1", "the loss became nan", learning_rate=1e30),
        write_trial(tmp_path / "b" / "2", (0.12, 2.0), stopped=REASON, learning_rate=0.001),
        write_trial(tmp_path / "a" / "3", (0.8, 0.5), (0.9, 0.4), learning_rate=0.02, network="resnet18"),
        write_trial(tmp_path / "b" / "4", (0.85, 0.5), (0.85, 0.4)),
    )
    assert document["best"] == 3
    rows = [(row["number"], row["state"], row["reason"], row["epochs"]) for row in document["trials"]]
    assert rows == [
        (1, "failed", "the loss became nan", 0),
        (2, "stopped", REASON, 1),
        (3, "done", "", 2),
        (4, "done", "", 2),
    ]
    assert (document["trials"][2]["val_accuracy"], document["trials"][2]["best_epoch"]) == (0.9, 2)
    page = assert_self_contained(html)
    for text in ("the loss became nan", REASON, "resnet18", "90.00%", "learning_rate"):
        assert text in page.text
    diagram = html[html.index("<svg") : html.index("</svg>")]
    for text in ("the best, trial 3", "stopped early", "trained to the end"):
        assert f">{text}</text>" in diagram
    assert page.text.index("3, the best") < page.text.index("85.00%") < page.text.index("12.00%"), "the best on top"


def test_names_and_values_from_users_are_escaped(tmp_path: Path) -> None:
    names: dict[str, Any] = {HOSTILE: 1}
    document, html, _ = compared(
        tmp_path,
        write_trial(tmp_path / "a" / "1", (0.9, 0.3), pretrained=HOSTILE, **names),
        write_trial(tmp_path / "b" / "2", (0.8, 0.3), stopped=HOSTILE),
        write_failed(tmp_path / "a" / "3", HOSTILE),
    )
    assert document["trials"][0]["settings"]["pretrained"] == HOSTILE
    assert assert_self_contained(html).text.count(HOSTILE) >= 5


def test_trials_without_any_model_are_an_error(tmp_path: Path) -> None:
    failed = [write_failed(tmp_path / "a" / n, f"mistake {n}") for n in ("1", "2")]
    with pytest.raises(
        UserError,
        match="none of the 2 trials made a model: trial 1: mistake 1; trial 2: mistake 2; give other settings",
    ):
        compared(tmp_path, *failed)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_equal_trials_give_equal_pages(tmp_path: Path) -> None:
    trials = [write_trial(tmp_path / "a" / n, (0.5, 0.3), (0.9, 0.2), epochs=2) for n in ("1", "2")]
    assert compared(tmp_path, *trials) == compared(tmp_path, *trials)


@pytest.mark.slow
def test_only_the_last_checkpoint_of_a_trial_stays(
    tmp_path: Path, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    uri = f"s3://{BUCKET}/compare"
    store = open_store(uri, server.environment)
    one, two = key_of(Path("1")), key_of(Path("2"))
    for name in (f"{one}/0000000006", f"{one}/0000000007", f"{one}/0000000008", f"{two}/0000000007"):
        store.put_bytes(b"x", f"checkpoints/{name}.safetensors")
    trials = [write_trial(tmp_path / "a" / "1", (0.8, 0.3)), write_trial(tmp_path / "b" / "2", (0.9, 0.3))]
    compared(tmp_path, *trials, store=uri)
    left = [entry.name for entry in store.list("checkpoints")]
    names = (f"{one}/0000000007", f"{one}/0000000008", f"{two}/0000000007")
    assert left == [f"checkpoints/{name}.safetensors" for name in names]


@pytest.mark.parametrize("content", ["{}", '{"number": 1, "settings": {}, "error": {"error": "Bug"}}'])
def test_a_folder_without_a_whole_outcome_is_refused(tmp_path: Path, content: str) -> None:
    trial = write_trial(tmp_path / "a" / "1", (0.9, 0.3))
    (trial / "trial.json").write_text(json.dumps({"format": "torch2kubeflow/trial", **json.loads(content)}))
    with pytest.raises(
        UserError, match=r"a/1/trial\.json has no valid field '(number|error\.error)'; do the trial again"
    ):
        compared(tmp_path, trial)
