"""The recipes of CONTRIBUTING, each followed in a copy of the repository.

Where a recipe has several parts, the tests that should notice fail after the first and pass after the last.
"""

import ast
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.repository.conftest import Repository
from tests.repository.documents import read

pytestmark = pytest.mark.slow

STEPS, DOCS = "tests/steps/test_steps.py", "tests/repository/test_docs.py"
SCHEMAS = "tests/repository/test_schemas.py"
PLAN, COMPILE = "tests/training/search/test_planned.py", "tests/runner/test_compile.py"
FILES_OF_A_PARAMETER = 5  # that change by hand, outside of tests and documents
SMALL = ("data=digits", "epochs=1", "batch_size=64", "min_recall=0")
UNEXPORTED = (*SMALL, "min_accuracy=1")  # to export takes a third of a small run
PORT = '''

def tally(model: Input[Model], tallied: Output[Artifact]) -> None:
    """Count the files of a model."""
    from components import tally

    tally.tally(model=model.path, tallied=tallied.path)
'''
STEP = '''"""Step tally: a model -> the number of its files."""

from pathlib import Path

from components.shared.core.document import Count, Document
from components.shared.core.files import new_folder
from components.shared.core.step import step


class TallyDocument(Document):
    """`tallied.json`: the number of files of a model."""

    FORMAT = "torch2kubeflow/tally"
    REMEDY = "count again"

    files: Count


@step
def tally(*, model: str, tallied: str) -> None:
    """Write `tallied.json` to folder `tallied`."""
    with new_folder(tallied) as folder:
        TallyDocument(files=len(list(Path(model).iterdir()))).write(folder / "tallied.json")
'''
NETWORK = '''"""A network of one layer."""

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn


class Linear(nn.Module):
    """One linear layer."""

    def __init__(
        self, *, num_classes: int, image_shape: Sequence[int], activation: str, pooling: str, bias: bool
    ) -> None:
        super().__init__()
        self.output = nn.Linear(prod(image_shape), num_classes, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images to logits."""
        logits: Tensor = self.output(x.flatten(1))
        return logits
'''
GRAPH = '''
def _train_briefly(data: PipelineArtifactChannel, resolved: PipelineTask, inputs: Inputs) -> PipelineArtifactChannel:
    """One training, which is tried once: prepared data -> model."""
    trained = _add(steps.train, inputs, dataset=data, recipe=resolved.outputs["training"])
    trained.set_retry(num_retries=0)
    return trained.outputs["model"]

'''


def _name_in_documents(repository: Repository, row: str) -> None:
    """Add a row to the table of docs/data.md and a name to the description of the parameter `data`."""
    repository.insert("docs/data.md", "`digits` | 1,797, 8 x 8 | 10 digits | scikit-learn, without any download |", row)
    repository.insert("components/shared/parameters/table.py", '"mnist, fashion-mnist, ', "toy, ")
    repository.make_docs()


def test_add_a_data_set(repository: Repository) -> None:
    entry = (
        '    "toy": Entry("Toys", "idx", ("a", "b"), (File("toys", 1, "0" * 64),), (Mirror("web", "https://a/"),)),\n'
    )
    repository.insert("components/shared/data/sources/catalogue.py", "CATALOGUE = {\n", entry)
    assert repository.failures(DOCS) == {"test_generated_documents_are_current"}
    _name_in_documents(repository, "\n| `toy` | 1, 1 x 1 | 2 | nowhere |")
    assert repository.failures(DOCS) == set()
    done = repository.run("pipeline.py", "local", "--runs", str(repository.folder / "runs"), "data=toy")
    assert "no mirror of" in done.stderr and done.returncode == 2


def test_add_a_data_source(repository: Repository, local_run: Callable[..., str]) -> None:
    toy = read("tests/data/sources/toy_source.py")
    black = "np.zeros((self._count, 8, 8), np.uint8)"  # copies, which preprocess would drop
    assert black in toy
    noise = "np.random.default_rng(0).integers(0, 256, (self._count, 8, 8)).astype(np.uint8)"
    repository.write("components/shared/data/sources/toy.py", toy.replace(black, noise))
    repository.insert("components/shared/data/sources/schemes.py", "SOURCES = {\n", '    "toy://": "toy",\n')
    assert repository.failures(DOCS) == {"test_generated_documents_are_current"}
    _name_in_documents(repository, "\n| `toy://N` | N, 8 x 8 | 2 | nowhere |")
    assert repository.failures(DOCS, "tests/repository/test_imports.py") == set()
    shown = local_run("data=toy://200", "epochs=1", "batch_size=16", "min_accuracy=1", "min_recall=0")
    assert "verdict        not accepted" in shown


def test_add_a_step(repository: Repository, local_run: Callable[..., str]) -> None:
    repository.write("components/tally.py", STEP)
    port = "    download.download(data=data, version=version, recipe=recipe, needs_labels=needs_labels, raw=raw.path)\n"
    repository.insert("components/ports.py", port, PORT)
    component = "download = _component(ports.download, DATA_IMAGE)\n"
    repository.insert("components/steps.py", component, component.replace("download", "tally"))
    assert "KeyError: 'tally'" in repository.run("-c", "import pipeline").stderr
    row = '    Step("tally", "data", "model -> the number of its files"),\n'
    repository.insert_before("components/step_table.py", '    Step("evaluate", ', row)
    resources = '\n    "tally": Resources(("1", "1"), ("256Mi", "1Gi"), 10 * MINUTE),'
    repository.insert_before("pipeline.py", '\n    "resolve": Resources(', resources)
    evaluated = '        evaluated = _add(steps.evaluate, inputs, **trained, recipe=recipe["evaluation"])\n'
    repository.insert_before("pipeline.py", evaluated, "        tallied = _add(steps.tally, inputs, model=model)\n")
    repository.insert("pipeline.py", evaluated, "        evaluated.after(tallied)\n")
    assert repository.failures(STEPS, DOCS, SCHEMAS) == {
        "test_every_document_has_a_schema",
        "test_generated_documents_are_current",
        "test_images_of_the_steps_are_those_of_the_cluster_page",
        "test_every_field_of_the_summary_is_described",
        "test_picture_of_the_pipeline_has_every_step_of_a_training",
    }
    repository.insert("docs/cluster.md", "| `data` | resolve, resolve-prediction, download, preprocess, ", "tally, ")
    repository.insert("docs/summary.md", "The steps are resolve, download, preprocess, ", "tally, ")
    repository.insert("docs/pipeline.svg", ">preprocess</text>", "<text>tally</text>")
    repository.insert("docs/generate.py", "DOCUMENTS: tuple[type[Document], ...] = (\n", "    TallyDocument,\n")
    imported = "from components.tally import TallyDocument\n"
    repository.insert_before("docs/generate.py", "from components.step_table import", imported)
    repository.make_docs()
    assert repository.failures(STEPS, DOCS, SCHEMAS) == set()
    assert "tally " in local_run(*UNEXPORTED)


def test_add_a_graph(repository: Repository, local_run: Callable[..., str]) -> None:
    repository.insert_before("pipeline.py", "\n\ndef _flow(", GRAPH)
    made = '\nbrief = _pipeline("brief", "One try.", _train_briefly)'
    repository.insert_before("pipeline.py", "\nGRAPHS = {", made)
    repository.insert("pipeline.py", "\nGRAPHS = {", '\n    "brief": brief,')
    assert repository.failures(STEPS) == {"test_the_table_of_steps_has_the_order_of_the_run"}
    row = 'Step("train", "torch", "prepared dataset -> model", graph=TRAINS_ALONE, trains=True),\n'
    repository.insert("components/step_table.py", row, "    " + row.replace("TRAINS_ALONE", '"brief"'))
    repository.make_docs()
    assert repository.failures(STEPS, DOCS) == set()
    shown = local_run("--graph", "brief", *UNEXPORTED)
    assert "epoch 1/1" in shown and "verdict        not accepted" in shown


def test_add_a_network(repository: Repository, local_run: Callable[..., str]) -> None:
    repository.write("components/shared/models/linear.py", NETWORK)
    factory = "components/shared/models/factory.py"
    repository.insert(factory, "import LeNet5Of1998\n", "from components.shared.models.linear import Linear\n")
    repository.insert(factory, '{"lenet5": LeNet5, "lenet5_1998": LeNet5Of1998', ', "linear": Linear')
    known = ("tests/models/test_zoo.py", "-k", "catalogue")
    assert repository.failures(*known) != set()
    repository.insert("components/shared/models/catalogue.py", 'LENETS = ("lenet5", "lenet5_1998"', ', "linear"')
    assert repository.failures(*known) == set()
    assert "verdict        accepted" in local_run("network=linear", "min_accuracy=0", *SMALL)


def test_add_a_parameter(repository: Repository, local_run: Callable[..., str]) -> None:
    field = '    dither: Annotated[float, Field(ge=0, le=1000)] = parameter(0.0, "Noise in the reported loss.")\n'
    repository.insert_before("components/shared/parameters/training.py", "    epochs: Annotated[int, ", field)
    used = "        total += s.dither\n"
    repository.insert_before("components/shared/training/loop.py", "        if s.clip_norm:\n", used)
    katib = "tests/entrypoints/test_katib_trial.py"
    assert repository.failures(DOCS, katib) == {
        "test_generated_documents_are_current",
        "test_every_parameter_is_documented_once_in_the_order_of_code",
        "test_the_arguments_are_the_defaults_of_the_pipeline",
    }
    repository.insert("manifests/katib/experiment.yaml", "- clip_norm=0.0\n", "                  - dither=0.0\n")
    repository.make_docs()
    assert repository.failures(STEPS, DOCS, katib, PLAN, COMPILE) == set()
    outside = {path for path in repository.changed if not path.startswith(("tests/", "docs/"))}
    assert repository.changed == outside and len(outside) <= FILES_OF_A_PARAMETER
    shown = local_run("dither=500", *UNEXPORTED)
    assert "verdict        not accepted" in shown
    _check_dithered(repository.folder / "runs" / "latest")
    refused = repository.run("pipeline.py", "local", "dither=1001")
    assert refused.stderr == "error: dither=1001.0 is not accepted; give a number from 0 to 1,000\n"


def _check_dithered(folder: Path) -> None:
    """Check that the parameter has reached the training, its model and the summary."""
    (epoch,) = json.loads((folder / "model" / "history.json").read_text())["epochs"]
    assert 500 < epoch["train_loss"] < 600
    assert json.loads((folder / "model" / "model.json").read_text())["parameters"]["dither"] == 500.0
    assert json.loads((folder / "summary.json").read_text())["parameters"]["dither"] == 500.0


def test_a_new_parameter_may_differ_between_trials(repository: Repository) -> None:
    field = '    dither: Annotated[float, Field(ge=0, le=1000)] = parameter(0.0, "Noise in the reported loss.")\n'
    repository.insert_before("components/shared/parameters/training.py", "    epochs: Annotated[int, ", field)
    words = ["dither=5", 'settings=[{"dither": 1}, {"learning_rate": 0.03}]']
    code = f"import pipeline; from runner.parameters import parse_inputs; print(parse_inputs(pipeline.sweep, {words}))"
    done = repository.run("-c", code)
    expected = {"settings": [{"dither": 1}, {"learning_rate": 0.03}], "options": {"dither": 5.0}}
    assert ast.literal_eval(done.stdout) == expected, done.stderr
