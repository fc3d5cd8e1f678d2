"""The HTML report: pytest tests/evaluation/report/test_report.py"""

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.shared.evaluation.document import Bin, ClassMetrics, EvaluationDocument
from components.shared.evaluation.report.html import page as page_of
from components.shared.evaluation.report.report import Mistake, render
from components.shared.models.document import ModelDocument
from tests.evaluation.page import Page, assert_self_contained
from tests.models.documents import architecture, epoch, facts, history

HOSTILE = "<script>alert(1)</script>"
PROBABILITIES = {"probability": 0.9, "truth_probability": 0.05}


def documents(matrix: list[list[int]], classes: list[str]) -> dict[str, Any]:
    counts = np.array(matrix)
    accuracy = float(np.trace(counts) / counts.sum())
    recall = (np.diag(counts) / counts.sum(axis=1)).tolist()
    evaluation = EvaluationDocument(
        accepted=accuracy > 0.5,
        reasons=[] if accuracy > 0.5 else [f"recall 0 of class {classes[0]!r} is too low"],
        min_accuracy=0.5,
        min_recall=0.5,
        images=int(counts.sum()),
        accuracy=accuracy,
        accuracy_low=accuracy / 2,
        accuracy_high=1.0,
        weakest_recall=min(recall),
        macro_f1=0.9,
        log_loss=0.1,
        expected_calibration_error=0.02,
        classes=classes,
        per_class=[
            ClassMetrics.model_validate({"class": name, "images": 1, "precision": r, "recall": r, "f1": r})
            for name, r in zip(classes, recall, strict=True)
        ],
        confusion_matrix=matrix,
        reliability=[Bin(low=14 / 15, high=1.0, images=5, confidence=0.98, accuracy=0.9)],
        dataset=HOSTILE,
        dataset_digest="d" * 64,
        model_digest="e" * 64,
        code_version="f" * 12,
        seconds={"download": 0.5, HOSTILE: 1.5, "train": 40.0, "evaluate": 2.0},
    )
    trained = facts(architecture(), parameters={"optimizer": "muon"}, code_version="b" * 12)
    model = ModelDocument(**trained, weights_sha256="a" * 64)
    rows = epoch(data_wait=0.25, seconds=1.5, images_per_second=1234.5)
    sentences = [f"1 {HOSTILE} left out"]
    return {
        "evaluation": evaluation,
        "model": model,
        "history": history(rows),
        "left_out": sentences,
        "examples": {},
    }


def picture(channels: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (channels, size, size), np.uint8)


def pictures(page: Page) -> list[Image.Image]:
    uris = [value.partition(",")[2] for name, value in page.attributes if name == "src"]
    return [Image.open(io.BytesIO(base64.b64decode(uri))) for uri in uris]


@pytest.mark.slow
def test_names_from_outside_are_escaped_also_in_diagrams() -> None:
    mistake = Mistake(picture(1, 32), 7, truth=HOSTILE, predicted=HOSTILE, **PROBABILITIES)
    html = render(**documents([[0, 9], [9, 1]], [HOSTILE, "b"]), mistakes=[mistake])
    page = assert_self_contained(html)
    assert page.text.count(HOSTILE) >= 8
    assert HOSTILE in Page(html[html.rindex("<svg") : html.rindex("</svg>")]).text, "the step in the last diagram"


def test_the_promotion_page_escapes_text_from_outside() -> None:
    outcome = {"version": 2, "champion_before": 1, "champion_after": 1, "champion": 1, "decided_before": 3}
    html = page_of("promotion.html").render(
        name=HOSTILE,
        sentence=HOSTILE,
        outcome={**outcome, "is_champion": False, "figures": None, "uri": HOSTILE},
        package={"test_accuracy": 0.5, "digest": HOSTILE, "model_digest": HOSTILE},
        images=10,
        test_split_digest=HOSTILE,
        significance=0.05,
    )
    assert assert_self_contained(html).text.count(HOSTILE) >= 6


@pytest.mark.slow
def test_a_perfect_model_has_no_mistakes_to_show() -> None:
    page = assert_self_contained(render(**documents([[5, 0], [0, 5]], ["a", "b"]), mistakes=[]))
    assert page.text.count("None: every test image was classified correctly.") == 2
    assert "Accepted" in page.text and "Not accepted" not in page.text


@pytest.mark.usefixtures("no_diagrams")
@pytest.mark.parametrize(("shape", "is_named"), [((1, 32, 32), True), ((1, 8, 8), False), ((3, 32, 32), False)])
def test_the_demo_is_named_if_one_can_draw_for_it(shape: tuple[int, int, int], is_named: bool) -> None:
    found = documents([[4, 1], [0, 5]], ["a", "b"])
    model = found["model"].model_copy(update={"image_shape": list(shape)})
    html = render(**{**found, "model": model}, mistakes=[])
    assert ("make demo" in assert_self_contained(html).text) == is_named


@pytest.mark.usefixtures("no_diagrams")
def test_a_refused_model_shows_the_reason() -> None:
    page = Page(render(**documents([[0, 5], [5, 0]], ["a", "b"]), mistakes=[]))
    assert "Not accepted" in page.text and "recall 0 of class 'a' is too low" in page.text


@pytest.mark.slow
@pytest.mark.parametrize("num_classes", [2, 20])
def test_few_classes_get_a_matrix_of_numbers(num_classes: int) -> None:
    matrix = np.full((num_classes, num_classes), 1234).tolist()
    html = render(**documents(matrix, [f"class {n}" for n in range(num_classes)]), mistakes=[])
    cells = html[html.index('<table class="matrix">') :].partition("</table>")[0]
    assert cells.count("1,234") == num_classes**2


@pytest.mark.slow
def test_many_classes_get_a_small_picture_of_the_matrix() -> None:
    matrix = (90 * np.eye(100, dtype=int) + 1).tolist()
    matrix[3][5] = 40
    html = render(**documents(matrix, [f"class {n}" for n in range(100)]), mistakes=[])
    page = assert_self_contained(html)
    assert '<table class="matrix">' not in html
    assert len(html) < 300_000
    assert "40class 3class 5" in page.text.replace("\n", ""), "the most frequent confusion"


@pytest.mark.slow
def test_images_keep_their_colour_and_large_ones_shrink() -> None:
    colour, large = picture(3, 32), picture(3, 300)
    mistakes = [Mistake(p, 0, truth="a", predicted="b", **PROBABILITIES) for p in (colour, large, picture(1, 32))]
    page = assert_self_contained(render(**documents([[5, 1], [1, 5]], ["a", "b"]), mistakes=mistakes))
    first, second, third = pictures(page)
    assert np.array_equal(np.asarray(first).transpose(2, 0, 1), colour)
    assert second.size == (96, 96)
    assert third.mode == "L"


@pytest.mark.slow
def test_equal_evaluations_give_equal_pages() -> None:
    pages = {render(**documents([[5, 1], [1, 5]], ["a", "b"]), mistakes=[]) for _ in range(2)}
    assert len(pages) == 1
