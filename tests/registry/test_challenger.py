"""The comparison of a challenger with the champion: pytest tests/registry/test_comparison.py"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from components.shared.data.dataset import SPLITS, open_dataset
from components.shared.registry.challenger import champion_judge, digest_of_test_split
from components.shared.registry.document import RegistryDocument, VersionDocument
from tests.kept_pictures import download_from, prepare_kept, write_photographs
from tests.small_packages import CLASSES, figures_of, package_of, provenance_of, version_of, write_dataset


@pytest.mark.parametrize(
    ("n01", "n10", "p_value", "wins", "reason"),
    [
        (30, 5, 0.01, True, "75.00% against 50.00% of version 1, p = 0.01"),
        (30, 5, 0.05, False, "75.00% against 50.00% of version 1, p = 0.05, which may be chance (significance 0.05)"),
        (5, 30, 0.01, False, "75.00% against 50.00% of version 1, which is not better"),
        (5, 5, 0.01, False, "75.00% against 50.00% of version 1, which is not better"),
    ],
)
def test_the_challenger_must_be_better_by_more_than_chance(
    n01: int, n10: int, p_value: float, wins: bool, reason: str
) -> None:
    figures = figures_of(n01=n01, n10=n10, p_value=p_value)
    assert (figures.challenger_wins, figures.reason) == (wins, reason)


def test_a_champion_is_scored_once(tmp_path: Path) -> None:
    data = open_dataset(write_dataset(tmp_path / "dataset", 10))
    labels = data.load("test")[1]
    perfect, wrong = np.eye(2, dtype=np.float32)[labels], np.eye(2, dtype=np.float32)[1 - labels]
    package = package_of(classes=CLASSES, image_shape=data.image_shape)
    version = version_of(package, provenance=provenance_of(test_split_digest=digest_of_test_split(data)))
    reads: list[int] = []

    def read_version(number: int) -> VersionDocument:
        reads.append(number)
        return version

    versions = SimpleNamespace(read_predictions=lambda document, images: wrong)
    model: Any = SimpleNamespace(name="m", versions=versions, read_version=read_version)
    judge = champion_judge(model, 3, data, perfect, 0.05, 1, tmp_path)
    registry = RegistryDocument(name="m", champion=None, versions=[], decisions=[])
    champions = [registry.model_copy(update={"champion": champion}) for champion in (None, 1, 1, 2)]
    verdicts = [judge(one) for one in champions]
    assert reads == [1, 2]
    assert [verdict.wins for verdict in verdicts] == [True] * 4
    assert verdicts[1].figures is not None and (verdicts[1].figures.n01, verdicts[1].figures.n10) == (10, 0)


def test_a_champion_of_whole_pictures_is_not_compared_on_crops(tmp_path: Path) -> None:
    raw = download_from(write_photographs(tmp_path / "pictures", counts=dict.fromkeys(SPLITS, 4)), tmp_path / "raw")
    data = prepare_kept(raw, tmp_path / "dataset")
    package = package_of(classes=data.classes, image_shape=data.image_shape)
    model: Any = SimpleNamespace(name="m", read_version=lambda number: version_of(package))
    predictions = np.eye(2, dtype=np.float32)[data.load("test")[1]]
    judge = champion_judge(model, 3, data, predictions, 0.05, 1, tmp_path)
    registry = RegistryDocument(name="m", champion=None, versions=[], decisions=[])
    verdict = judge(registry.model_copy(update={"champion": 1}))
    assert not verdict.wins
    assert verdict.reason.startswith("not compared: version 1 was trained with keep=raw, not jpeg; to make it")
