"""The JSON Schemas in docs/schemas/: of every document, and of what has been written."""

import ast
import json
import lzma
import tarfile
from io import BytesIO
from pathlib import Path

import jsonschema
import pytest

from docs.generate import DOCUMENTS, generated
from tests.repository.documents import ROOT, relative

SCHEMAS = ROOT / "docs" / "schemas"
FILES = sorted(SCHEMAS.iterdir())


def _has_format(node: ast.ClassDef) -> bool:
    return any(ast.unparse(line).startswith("FORMAT = ") for line in node.body)


def test_every_document_has_a_schema() -> None:
    paths = [path for folder in ("components", "runner") for path in (ROOT / folder).rglob("*.py")]
    classes = [
        node for path in paths for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)
    ]
    assert sorted(node.name for node in classes if _has_format(node)) == sorted(one.__name__ for one in DOCUMENTS)
    assert sorted(path for path in generated() if path.parent == SCHEMAS) == FILES


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_a_schema_is_valid_and_needs_the_format(path: Path) -> None:
    schema = json.loads(path.read_bytes())
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    assert not validator.is_valid({}) and not validator.is_valid({"format": "torch2kubeflow/other"})


def test_the_kept_documents_fit_their_schemas() -> None:
    schemas = {path.stem: json.loads(path.read_bytes()) for path in FILES}
    store = lzma.decompress((ROOT / "tests/fixtures/cd652ef/store.tar.xz").read_bytes())
    checked = set()
    with tarfile.open(fileobj=BytesIO(store)) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file and member.name.startswith("objects/") and member.name.endswith(".json"):
                document = json.load(file)
                kind = document["format"].rpartition("/")[2]
                jsonschema.validate(document, schemas[kind])
                checked.add(kind)
    assert checked == {"dataset", "model", "package", "record", "register", "version"}
