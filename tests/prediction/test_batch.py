"""A table of predictions: what it holds, and that an interrupted run goes on without a lost or repeated row."""

import csv
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.shared.core.errors import UserError
from components.shared.evaluation.inference import Classify
from components.shared.prediction import table, uncertain
from components.shared.prediction.batch import predict_all
from components.shared.prediction.document import PredictionsDocument
from components.shared.prediction.inputs import Inputs
from components.shared.prediction.rows import Program, open_program
from tests.evaluation.page import assert_self_contained
from tests.prediction.programs import write_package, write_shades
from tests.prediction.test_inputs import fetched

PICTURES = 43


@pytest.fixture
def program(tmp_path: Path) -> Program:
    write_package(tmp_path / "package")
    return open_program(tmp_path / "package/model.onnx", tmp_path / "package/package.json", "light/1", 1)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Pictures of which the higher numbers are lighter; one is broken."""
    write_shades(tmp_path / "pictures", PICTURES)
    return fetched(tmp_path / "pictures", tmp_path / "raw")


@pytest.fixture
def inputs(raw: Path, program: Program, monkeypatch: pytest.MonkeyPatch) -> Inputs:
    """The pictures in batches of 4, and parts of 8."""
    monkeypatch.setattr(table, "PART_ROWS", 9)
    opened = Inputs(raw, program.package)
    opened.size = 4
    return opened


def _rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "predictions.csv", newline="") as file:
        return [*csv.DictReader(file)]


def test_the_table_has_a_row_for_each_picture(inputs: Inputs, program: Program, tmp_path: Path) -> None:
    found = predict_all(inputs, program, tmp_path / "out")
    rows = _rows(tmp_path / "out")
    assert [row["source"] for row in rows] == [batch.names[0] for batch in inputs.take(range(PICTURES))]
    assert (found.rows, found.errors, found.labelled, found.correct) == (PICTURES, 1, 42, 42)
    assert found.predicted == {"dark": 21, "light": 21} and len(found.parts) == 6
    bad = rows.pop(30)
    assert bad["class"] == bad["probability"] == "" and bad["error"].startswith("it is")
    assert all(row["class"] == row["label"] == row["source"].split("/")[0] for row in rows)
    light = 1 / (1 + np.exp(-0.1 * (42 * 6 + 2 - 127.5)))
    assert (rows[-1]["class_2"], rows[-1]["model"]) == ("dark", "light/1")
    assert float(rows[-1]["probability"]) == pytest.approx(light, abs=1e-5)
    parts = [pq.read_table(tmp_path / "out" / name) for name in found.parts]
    assert [len(part) for part in parts] == [8, 8, 8, 8, 8, 3]
    assert parts[1]["brightness"].to_pylist() == pytest.approx([(number * 6 + 2) / 255 for number in range(8, 16)])
    assert PredictionsDocument.read(tmp_path / "out/predictions.json") == found


def test_broken_pictures_with_odd_names_are_rows(program: Program, tmp_path: Path) -> None:
    names = [*"abcd", "e,f", 'g"h', "i\nj"]  # the first batch has no picture that can be used
    for name in names:
        write_shades(tmp_path / "one", 1)
        (tmp_path / "pictures").mkdir(exist_ok=True)
        (tmp_path / "one/light/30.png").rename(tmp_path / "pictures" / f"{name}.png")
    (tmp_path / "one/light/00.png").rename(tmp_path / "pictures/z.png")
    inputs = Inputs(fetched(tmp_path / "pictures", tmp_path / "raw"), program.package)
    inputs.size = 4
    found = predict_all(inputs, program, tmp_path / "out")
    assert (found.rows, found.errors, found.predicted) == (8, 7, {"dark": 1, "light": 0})
    rows = _rows(tmp_path / "out")
    assert [row["source"] for row in rows] == [f"{name}.png" for name in [*names, "z"]]
    text = io.StringIO(newline="")
    csv.writer(text).writerows([[*rows[0]], *(row.values() for row in rows)])
    assert (tmp_path / "out/predictions.csv").read_bytes() == text.getvalue().encode()


def test_the_page_shows_the_least_certain_pictures(
    inputs: Inputs, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uncertain, "LEAST_CERTAIN", 3)
    predict_all(inputs, program, tmp_path / "out")
    html = (tmp_path / "out/uncertain.html").read_text()
    assert_self_contained(html)
    places = [html.index(f'alt="{name}.png"') for name in ("light/21", "dark/20", "light/22")]
    assert places == sorted(places) and html.count("<figure>") == 3


@pytest.mark.parametrize("calls", [3, *(pytest.param(calls, marks=pytest.mark.slow) for calls in (1, 2, 7, 10))])
def test_an_interrupted_run_goes_on(inputs: Inputs, program: Program, tmp_path: Path, calls: int) -> None:
    whole = predict_all(inputs, program, tmp_path / "whole")
    left = calls

    def dying(classify: Classify) -> Classify:
        def call(images: np.ndarray) -> np.ndarray:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return classify(images)

        return call

    with pytest.raises(KeyboardInterrupt):
        predict_all(inputs, program._replace(classify=dying(program.classify)), tmp_path / "out")
    (tmp_path / "out/part-00009.parquet.7.partial").write_bytes(b"of a killed run")
    again = predict_all(inputs, program, tmp_path / "out")
    assert again.resumed_at == calls // 2 * 8
    assert again.parts == whole.parts, "byte by byte"
    names = ("predictions.csv", "uncertain.html")
    assert all((tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in names)
    assert len([*(tmp_path / "out").iterdir()]) == len([*(tmp_path / "whole").iterdir()])


def test_no_run_goes_on_with_the_parts_of_another(inputs: Inputs, program: Program, tmp_path: Path) -> None:
    predict_all(inputs, program, tmp_path / "out")
    with pytest.raises(UserError, match="out holds predictions by light/1 of other data, or by another model; give"):
        predict_all(inputs, program._replace(model="light/2"), tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/photo.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="full is not empty; give a new or empty folder"):
        predict_all(inputs, program, tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["photo.png"]


def test_a_changed_program_is_not_run(tmp_path: Path, program: Program) -> None:
    (tmp_path / "package/model.onnx").write_bytes(b"another")
    with pytest.raises(UserError, match=r"model.onnx differs from its digest in .*package.json; download or export"):
        open_program(tmp_path / "package/model.onnx", tmp_path / "package/package.json", "light/1", 1)
    (tmp_path / "package/model.onnx").unlink()
    with pytest.raises(UserError, match=r"model.onnx is missing beside package.json; give the folder of a whole"):
        open_program(tmp_path / "package/model.onnx", tmp_path / "package/package.json", "light/1", 1)
