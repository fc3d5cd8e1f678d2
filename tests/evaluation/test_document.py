"""The reader of evaluation.json."""

from pathlib import Path

import pytest

from components.shared.core.errors import UserError
from components.shared.core.files import MAX_JSON_BYTES
from components.shared.evaluation.document import FORMAT, read_evaluation


def test_an_evaluation_may_exceed_the_usual_limit(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_bytes(f'{{"format": "{FORMAT}"}}'.encode().ljust(MAX_JSON_BYTES + 1))
    with pytest.raises(UserError, match="has no valid field 'dataset_digest'"):
        read_evaluation(tmp_path)
