"""The recipes of CONTRIBUTING, each followed in a copy of the repository.

Where a recipe has several parts, the tests that should notice fail after the first and pass after the last.
"""

from collections.abc import Callable

import pytest

from tests.repository.conftest import Repository
from tests.repository.documents import read

pytestmark = pytest.mark.slow

STEPS, DOCS = "tests/steps/test_steps.py", "tests/repository/test_docs.py"
SMALL = ("data=digits", "epochs=1", "batch_size=64", "min_accuracy=0", "min_recall=0")
PORT = '''

@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def tally(model: Input[Model], tallied: Output[Artifact]) -> None:
    """Count the files of a model."""
    from components import tally

    tally.tally(model=model.path, tallied=tallied.path)
'''
STEP = '''"""Step tally: a model -> the number of its files."""

from pathlib import Path

from components.shared.core.files import new_folder, write_json
from components.shared.core.step import step


@step
def tally(*, model: str, tallied: str) -> None:
    """Write `tallied.json` to folder `tallied`."""
    with new_folder(tallied) as folder:
        write_json(folder / "tallied.json", {"format": "toy", "files": len(list(Path(model).iterdir()))})
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
def _train_briefly(data: PipelineArtifactChannel, parameters: Parameters) -> PipelineArtifactChannel:
    """One training of a single epoch: prepared data -> model."""
    return _train(data, {**parameters, "epochs": 1})

'''


def _name_in_documents(repository: Repository, row: str) -> None:
    """Add a row to the table of docs/data.md and a name to the docstring of the parameter `data`."""
    repository.insert("docs/data.md", "`digits` | 1,797, 8 x 8 | 10 digits | scikit-learn, without any download |", row)
    repository.insert("pipeline.py", "data: mnist, fashion-mnist, ", "toy, ")
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
    shown = local_run("data=toy://200", "epochs=1", "batch_size=16", "min_accuracy=0", "min_recall=0")
    assert "verdict        accepted" in shown


def test_add_a_step(repository: Repository, local_run: Callable[..., str]) -> None:
    repository.write("components/tally.py", STEP)
    port = "    download.download(data=data, version=version, raw=raw.path)\n"
    repository.insert("components/steps.py", port, PORT)
    assert "test_the_table_of_steps_is_that_of_the_ports" in repository.failures(STEPS)
    row = '    Step("tally", "data", "model -> the number of its files"),\n'
    repository.insert_before("components/step_table.py", '    Step("evaluate", ', row)
    resources = '\n    "tally": Resources(("1", "1"), ("256Mi", "1Gi"), 10 * MINUTE),'
    repository.insert_before("pipeline.py", '\n    "resolve": Resources(', resources)
    evaluated = "        evaluated = _add(steps.evaluate, parameters, dataset=data, model=model)\n"
    repository.insert_before("pipeline.py", evaluated, "        tallied = _add(steps.tally, parameters, model=model)\n")
    repository.insert("pipeline.py", evaluated, "        evaluated.after(tallied)\n")
    assert repository.failures(STEPS, DOCS) == {
        "test_generated_documents_are_current",
        "test_images_of_the_steps_are_those_of_the_cluster_page",
        "test_every_field_of_the_summary_is_described",
        "test_picture_of_the_pipeline_has_every_step_of_a_training",
    }
    repository.insert("docs/cluster.md", "| `data` | resolve, download, preprocess, ", "tally, ")
    repository.insert("docs/summary.md", "The steps are resolve, download, preprocess, ", "tally, ")
    repository.insert("docs/pipeline.svg", ">preprocess</text>", "<text>tally</text>")
    repository.make_docs()
    assert repository.failures(STEPS, DOCS) == set()
    assert "tally " in local_run(*SMALL)


def test_add_a_graph(repository: Repository, local_run: Callable[..., str]) -> None:
    repository.insert_before("pipeline.py", "\n\ndef _flow(", GRAPH)
    made = '\nbrief = _pipeline("brief", "One epoch.", _train_briefly, shared_parameters)'
    repository.insert_before("pipeline.py", "\nGRAPHS = {", made)
    repository.insert("pipeline.py", "\nGRAPHS = {", '"brief": brief, ')
    assert repository.failures(STEPS) == {"test_the_table_of_steps_has_the_order_of_the_run"}
    row = 'Step("train", "torch", "prepared dataset -> model", graph="training", trains=True),\n'
    repository.insert("components/step_table.py", row, "    " + row.replace("training", "brief"))
    repository.make_docs()
    assert repository.failures(STEPS, DOCS) == set()
    shown = local_run("--graph", "brief", *SMALL)
    assert "epoch 1/1" in shown and "verdict        accepted" in shown


def test_add_a_network(repository: Repository, local_run: Callable[..., str]) -> None:
    repository.write("components/shared/models/linear.py", NETWORK)
    factory = "components/shared/models/factory.py"
    repository.insert(factory, "import LeNet5Of1998\n", "from components.shared.models.linear import Linear\n")
    repository.insert(factory, '{"lenet5": LeNet5, "lenet5_1998": LeNet5Of1998', ', "linear": Linear')
    known = ("tests/models/test_zoo.py", "-k", "catalogue")
    assert repository.failures(*known) != set()
    repository.insert("components/shared/models/catalogue.py", 'LENETS = ("lenet5", "lenet5_1998"', ', "linear"')
    assert repository.failures(*known) == set()
    assert "verdict        accepted" in local_run("network=linear", *SMALL)


def test_add_a_parameter(repository: Repository) -> None:
    repository.insert("pipeline.py", "    clip_norm: float = 0.0,\n", "    dither: float = 0.0,\n")
    repository.insert("pipeline.py", "larger gradients are scaled down; 0 does not clip.\n", "        dither: Noise.\n")
    assert repository.failures(STEPS) >= {
        "test_port_and_function_have_the_same_parameters",
        "test_every_parameter_is_described_and_has_a_rule",
    }
    rule = '    "clip_norm": _between(0, 1_000_000),\n'
    repository.insert("components/shared/parameters.py", rule, '    "dither": _between(0, 1),\n')
    field, added = "    clip_norm: float,\n", "    dither: float,\n"
    repository.insert("components/steps.py", field, added, times=5)
    repository.insert("components/steps.py", "        clip_norm=clip_norm,\n", "        dither=dither,\n")
    repository.insert("components/train.py", field, added)
    repository.insert("components/shared/training/settings.py", "    clip_norm: float\n", "    dither: float\n")
    katib = "tests/entrypoints/test_katib_trial.py"
    assert "test_generated_documents_are_current" in repository.failures(DOCS, katib)
    repository.insert("manifests/katib/experiment.yaml", "- clip_norm=0.0\n", "                  - dither=0.0\n")
    repository.insert("tests/trained_digits.py", '    "clip_norm": 0.0,\n', '    "dither": 0.0,\n')
    repository.make_docs()
    assert repository.failures(STEPS, DOCS, katib, "tests/steps/test_plan.py") == set()
