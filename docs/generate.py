"""Write the generated parts of the documentation.

They are docs/parameters.md, the table of steps in docs/architecture.md, and docs/schemas/, which has the JSON Schema of
each document.

python -m docs.generate    # `make docs`
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import WithDefaultSchema

import pipeline
from components.export import MeasurementsDocument
from components.finish import RecordDocument
from components.shared.core.document import Document, SealedDocument
from components.shared.data.dataset import DatasetDocument
from components.shared.data.parts.listing import ListingDocument
from components.shared.data.parts.staged import StagedDocument
from components.shared.data.parts.stored_units import PartDocument, UnitDocument
from components.shared.data.prepared_index import PreparedDocument
from components.shared.data.raw import RawDocument
from components.shared.data.sources.http import UrlDocument
from components.shared.evaluation.document import EvaluationDocument
from components.shared.evaluation.exported_model import PackageDocument, RefusalDocument
from components.shared.models.document import HistoryDocument, ModelDocument
from components.shared.parameters.form import inputs_of
from components.shared.parameters.help import FIELDS, defaults, groups
from components.shared.parameters.recipe import accepted
from components.shared.parameters.table import PREDICTION, model_of
from components.shared.prediction.batch import PredictionTaskDocument
from components.shared.prediction.document import PredictionsDocument
from components.shared.prediction.drift import DriftReportDocument
from components.shared.prediction.pods.shares import ShareDocument
from components.shared.prediction.reference import DriftDocument
from components.shared.prediction.retraining import RetrainingDocument
from components.shared.prediction.training_run import NextRunDocument
from components.shared.registry.document import RegistrationDocument, RegistryDocument, VersionDocument
from components.shared.storage.lease import LeaseDocument
from components.shared.training.checkpoints.state import CheckpointDocument
from components.shared.training.distributed.task import ResultDocument, TaskDocument
from components.shared.training.search.asha import RungDocument
from components.shared.training.search.outcome import ComparisonDocument, TrialDocument
from components.step_table import STEPS
from runner.answer import ErrorDocument
from runner.cluster.run import StartDocument
from runner.cluster.upload import UploadDocument
from runner.compile import CompileDocument
from runner.control.logs import LogsDocument
from runner.control.remove import RemoveDocument
from runner.control.status import RunsDocument, StatusDocument
from runner.control.stop import StopDocument
from runner.control.ui import UiDocument
from runner.demo.demo import DemoDocument
from runner.demo.versions import PageDocument
from runner.doctor.doctor import DoctorDocument
from runner.local.cached_steps import CachedStepDocument
from runner.local.s3_server import S3Document
from runner.prediction.predict import PredictDocument
from runner.registry.models import DiffDocument, ModelsDocument, PruneDocument
from runner.registry.verify import LineageDocument, VerifyDocument
from runner.schedules.apply import ApplyDocument
from runner.schedules.schedule import ScheduleDocument, SchedulesDocument
from runner.serving.deploy import DeployDocument
from runner.serving.serve import ServeDocument
from runner.summary import SummaryDocument

DOCS = Path(__file__).parent
DOCUMENTS: tuple[type[Document], ...] = (
    RawDocument,
    DatasetDocument,
    ModelDocument,
    HistoryDocument,
    TrialDocument,
    ComparisonDocument,
    EvaluationDocument,
    DriftDocument,
    DriftReportDocument,
    RetrainingDocument,
    NextRunDocument,
    PackageDocument,
    RefusalDocument,
    MeasurementsDocument,
    RegistrationDocument,
    RecordDocument,
    SummaryDocument,
    RegistryDocument,
    VersionDocument,
    PreparedDocument,
    CheckpointDocument,
    RungDocument,
    TaskDocument,
    ResultDocument,
    LeaseDocument,
    UrlDocument,
    CachedStepDocument,
    ErrorDocument,
    CompileDocument,
    UploadDocument,
    RunsDocument,
    StatusDocument,
    DoctorDocument,
    ScheduleDocument,
    SchedulesDocument,
    ApplyDocument,
    DiffDocument,
    ModelsDocument,
    PruneDocument,
    LineageDocument,
    VerifyDocument,
    S3Document,
    DemoDocument,
    PageDocument,
    LogsDocument,
    UiDocument,
    StopDocument,
    StartDocument,
    RemoveDocument,
    DeployDocument,
    ServeDocument,
    PredictDocument,
    PredictionsDocument,
    PredictionTaskDocument,
    ShareDocument,
    ListingDocument,
    PartDocument,
    UnitDocument,
    StagedDocument,
)
PARAMETERS = """# Parameters

<!-- Generated from components/shared/parameters/ by `make docs`. -->

On your laptop as `name=value` words in `ARGS`, in a cluster after the verb:

```
make run ARGS="data=fashion-mnist epochs=5 seed=3 min_accuracy=0.85 min_recall=0.5"
python pipeline.py run data=fashion-mnist epochs=5 min_accuracy=0.85 min_recall=0.5
```

Lists and objects are JSON, in quotes: `'node_selector={{"disk": "ssd"}}'`. Invalid values are rejected before anything
runs; values that depend on the data, by the first step that reads it.

## Inputs and options

Kubeflow's form shows the inputs of a pipeline in alphabetical order and without groups. So only the parameters that
people change often, and those that Kubernetes reads, are inputs of their own. All others are members of one more
input, the JSON object `options`; a member that is left out has its default. The last column of the tables tells which
is which. In every run, the first step rejects unknown members and invalid values.

| where | how to set `optimizer` and `mixup` |
|---|---|
| command line | like any other parameter: `optimizer=adamw mixup=0.2` |
| `deploy.yaml` | like any other parameter: `parameters: {{optimizer: adamw, mixup: 0.2}}` |
| Kubeflow's form | in the field `options`: `{{"optimizer": "adamw", "mixup": 0.2}}` |
| KFP's SDK | `Client().create_run_from_pipeline_package(file, {{"options": {{"optimizer": "adamw", "mixup": 0.2}}}})` |

The graph `prediction`, which does not train, has {prediction} alone.

In the form and in the SDK, `batch_size`, `gpus` and `train_cpu` are texts: `"gpus": "1"`.

{tables}
"""


def generated() -> dict[Path, str]:
    """Return the files with generated parts, and their content."""
    schemas = {DOCS / "schemas" / f"{document.FORMAT.rpartition('/')[2]}.json": document for document in DOCUMENTS}
    return {
        DOCS / "parameters.md": _parameters(),
        DOCS / "architecture.md": _architecture(),
        **{path: _schema(document) for path, document in schemas.items()},
    }


class _Brief(GenerateJsonSchema):
    """Leaves out what says nothing new: titles of fields, and defaults, which are never written."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])


def _schema(document: type[Document]) -> str:
    """Return the JSON Schema of a document as text."""
    found = document.model_json_schema(schema_generator=_Brief)
    seal = [document.SEAL] if issubclass(document, SealedDocument) else []
    schema = {
        "$schema": _Brief.schema_dialect,
        "title": document.FORMAT,
        "description": found["description"],
        "type": found["type"],
        "properties": {"format": {"const": document.FORMAT}, **found["properties"]},
        "required": ["format", *found.get("required", []), *seal],
        "additionalProperties": found["additionalProperties"],
        **{name: part for name, part in found.items() if name == "$defs"},
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _architecture() -> str:
    """Return docs/architecture.md with the present table of steps."""
    rows = [f"| `{step.name}` | {step.image} | {step.graph} | {step.line} |" for step in STEPS]
    table = "\n".join(["| step | image | graphs | what it does |", "|---|---|---|---|", *rows])
    text = (DOCS / "architecture.md").read_text()
    return re.sub(r"(<!-- steps[^>]*-->\n).*?(<!-- /steps -->)", rf"\1{table}\n\2", text, count=1, flags=re.S)


def _parameters() -> str:
    tables = []
    for title, names in groups().items():
        having = _having(names[0])
        only = f"Only the graph `{having[0]}` has these.\n\n" if len(having) == 1 else ""
        tables.append(f"## {title}\n\n{only}{_table(names)}")
    fields = model_of(PREDICTION).model_fields
    predicting = ", ".join(f"`{name}`" for names in groups().values() for name in names if name in fields)
    return PARAMETERS.format(tables="\n\n".join(tables), prediction=predicting)


def _table(names: Sequence[str]) -> str:
    return "\n".join(["| name | default | meaning | accepted | in Kubeflow |", "|---|---|---|---|---|", *_rows(names)])


def _rows(names: Sequence[str]) -> Iterator[str]:
    given = defaults()
    for name in names:
        field = FIELDS[name]
        yield f"| `{name}` | `{given[name]}` | {field.description} | {accepted(field)} | {_place(name)} |"


def _place(name: str) -> str:
    """Return in words whether a parameter is an input of its own, in the graphs that have it."""
    having = _having(name)
    own = [graph for graph in having if name in inputs_of(graph)]
    if not own:
        return "in `options`"
    return "input" if own == having else f"input of `{'`, `'.join(own)}`, else in `options`"


def _having(name: str) -> list[str]:
    """Return the graphs that have a parameter."""
    return [graph for graph in pipeline.GRAPHS if name in model_of(graph).model_fields]


if __name__ == "__main__":
    for path, text in generated().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
