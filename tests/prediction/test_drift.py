"""Drift of predicted pictures: what is found, what is not judged, and that parts and interruptions change nothing."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.shared.core.errors import UserError
from components.shared.core.npy import write_npy
from components.shared.prediction import drift, sample, table
from components.shared.prediction.batch import predict_all
from components.shared.prediction.drift import DriftReportDocument, Known, Reference, judge_drift, read_reference
from components.shared.prediction.inputs import Inputs
from components.shared.prediction.reference import MAX_VECTORS, reference
from components.shared.prediction.rows import Program, open_program
from tests.evaluation.page import assert_self_contained
from tests.prediction.programs import CLASSES, write_package
from tests.small_packages import write_dataset

PICTURES = 400


@pytest.fixture
def program(tmp_path: Path) -> Program:
    write_package(tmp_path / "package")
    return open_program(tmp_path / "package/model.onnx", tmp_path / "package/package.json", "light/1", 1)


@pytest.fixture
def inputs(program: Program, tmp_path: Path) -> Inputs:
    """Random pictures."""
    return Inputs(write_dataset(tmp_path / "dataset", PICTURES - 16, CLASSES, side=16), program.package)


def _reference(program: Program, images: int = 1000, shift: int = 0) -> Reference:
    """Return the reference of random pictures that are darker by `shift`."""
    pixels = np.random.default_rng(7).integers(0, 256, (images, 1, 16, 16), np.uint8)
    darker = pixels - np.minimum(pixels, np.uint8(shift))
    return Reference(*reference([(darker, program.classify(darker))], CLASSES))


def _judged(inputs: Inputs, program: Program, known: Reference | None, folder: Path) -> DriftReportDocument:
    predict_all(inputs, program, folder, Known(known, f"{program.model} has no reference"))
    return DriftReportDocument.read(folder / "drift-report.json")


def test_pictures_like_those_of_the_test_have_not_drifted(inputs: Inputs, program: Program, tmp_path: Path) -> None:
    report = _judged(inputs, program, _reference(program), tmp_path / "out")
    assert not report.drifted and (report.pictures, report.reference, report.sample) == (PICTURES, 1000, PICTURES)
    assert [one.name for one in report.measures[-2:]] == ["predicted classes", "pictures as a whole"]
    assert report.sentence.startswith("no drift: the largest of 7 PSIs, 0.") and len(report.measures) == 7
    assert report.scalars()["drift findings"] == 0 and report.scalars()["psi of brightness"] < 0.2


def test_other_pictures_have_drifted(inputs: Inputs, program: Program, tmp_path: Path) -> None:
    report = _judged(inputs, program, _reference(program, shift=40), tmp_path / "out")
    assert {"brightness", "pictures as a whole", "predicted classes"} <= {one.name for one in report.findings}
    assert report.sentence.startswith("drift: these differ from the model's test images by a PSI above 0.2: ")
    page = assert_self_contained((tmp_path / "out/uncertain.html").read_text())
    assert "400 pictures compared with the 1,000 test images of the model" in " ".join(page.text.split())


def test_a_high_threshold_finds_nothing(inputs: Inputs, program: Program, tmp_path: Path) -> None:
    known = _reference(program, shift=40)
    predict_all(inputs, program, tmp_path / "out", Known(known), drift_threshold=1000)
    report = DriftReportDocument.read(tmp_path / "out/drift-report.json")
    assert not report.drifted and min(one.corrected_p_value for one in report.measures) < 1e-9


def test_a_difference_that_may_be_chance_is_no_drift(inputs: Inputs, program: Program, tmp_path: Path) -> None:
    predict_all(inputs, program, tmp_path / "out", Known(_reference(program), ""), drift_threshold=0)
    report = DriftReportDocument.read(tmp_path / "out/drift-report.json")
    assert not report.drifted and max(one.psi for one in report.measures) > 0
    assert report.sentence.endswith(", may be chance")


@pytest.mark.slow
def test_parts_do_not_change_the_report(
    inputs: Inputs, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (sample, drift):
        monkeypatch.setattr(module, "MAX_VECTORS", 120)
    known = _reference(program)
    whole = _judged(inputs, program, known, tmp_path / "whole")
    monkeypatch.setattr(table, "PART_ROWS", 150)
    inputs.size = 50
    assert _judged(inputs, program, known, tmp_path / "parts") == whole and whole.sample == 120
    parts = sorted((tmp_path / "parts").glob("part-*.parquet"))
    thumbnails = [pq.read_table(path)["thumbnail"].is_valid().to_pylist() for path in parts]
    assert [sum(part) for part in thumbnails] == [120, 120, 100]
    assert judge_drift(parts[::-1], known, "light/1", 0.2) == whole


def test_few_pictures_are_not_judged(inputs: Inputs, program: Program, tmp_path: Path) -> None:
    report = _judged(inputs, program, _reference(program, images=99), tmp_path / "few")
    assert report.sentence == "drift is not judged: 99 test images are there, and at least 100 are needed"
    small = Inputs(write_dataset(tmp_path / "small", 20, CLASSES, side=16), program.package)
    report = _judged(small, program, _reference(program), tmp_path / "out")
    assert report.sentence == "drift is not judged: 36 pictures are there, and at least 100 are needed"
    assert (report.drifted, report.measures, report.pictures) == (False, [], 36)
    one = drift.Predicted({}, np.array([1, 0]), np.zeros((1, 2), np.float32))
    assert "judged: 1 picture is there, and" in drift.compare(_reference(program), one, "m/1", 0.2).sentence


def test_a_model_without_a_reference_is_not_judged(inputs: Inputs, program: Program, tmp_path: Path) -> None:
    report = _judged(inputs, program, None, tmp_path / "out")
    assert report.sentence == "drift is not judged: light/1 has no reference" and report.pictures == PICTURES
    assert "Not judged: light/1 has no reference." in (tmp_path / "out/uncertain.html").read_text()


def test_parts_without_thumbnails_are_refused(inputs: Inputs, program: Program, tmp_path: Path) -> None:
    predict_all(inputs, program, tmp_path / "out")
    part = tmp_path / "out/part-00000.parquet"
    pq.write_table(pq.read_table(part).drop_columns(["thumbnail"]), part)
    with pytest.raises(UserError, match=r"part-00000\.parquet lacks the columns thumbnail; predict again, into a new"):
        judge_drift([part], _reference(program), "light/1", 0.2)


def _write(known: Reference, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    known.document.write(folder / "drift.json")
    write_npy(folder / "reference.npy", known.vectors)
    return folder


def test_a_reference_is_read_again(program: Program, tmp_path: Path) -> None:
    known = _reference(program, images=MAX_VECTORS + 1)
    found = read_reference(_write(known, tmp_path / "reference"), CLASSES)
    assert found.document == known.document and np.array_equal(found.vectors, known.vectors)


def test_a_damaged_reference_is_refused(program: Program, tmp_path: Path) -> None:
    known = _reference(program)
    folder = _write(known, tmp_path / "reference")
    document, vectors = folder / "drift.json", folder / "reference.npy"

    def refused(message: str, classes: Sequence[str] = CLASSES) -> None:
        with pytest.raises(UserError, match=message):
            read_reference(folder, classes)

    refused("drift.json is of a model with other classes; evaluate the model again", ["a", "b"])
    content = vectors.read_bytes()
    vectors.write_bytes(content[:-1])
    refused(r"reference.npy is not a NumPy array of shape \(1000, 69\) and type float32")
    vectors.write_bytes(content[:-4] + b"\x00\x00\xc0\x7f")
    refused("reference.npy has numbers that are not finite; evaluate the model again")
    document.write_text(document.read_text().replace('"sharpness"', '"blur"'))
    refused("drift.json has other statistics than this version compares; evaluate the model again")
